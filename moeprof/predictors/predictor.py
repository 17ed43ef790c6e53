"""A predictor of experts as it is used: read from its file, checked against a model and a text, asked step by step.

B sequences, L positions, T tokens (B x L), D width of the embeddings, E experts.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from moeprof.moe.router import best
from moeprof.predictors.fingerprints import MAX_KNOWN, Hashes, known_share
from moeprof.predictors.network import NetworkState, PredictorNetwork
from moeprof.records.errors import UsageError
from moeprof.records.predictor import SCHEMA, PredictorHeader, StackName, stacks_of
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.weights import weights_hash
from moeprof.records.system.files import reason, refuse_newer, replacing
from moeprof.records.system.parsing import parsed_json

KEY = "moeprof"
"""The only metadata entry, JSON."""

FINGERPRINTS = "fingerprints"
FIT_AGAIN = "Fit one with `moeprof fit-predictor RECIPE --out FILE.safetensors`."


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a predictor expects the routers of a stack to choose for T tokens, padding included."""

    gates: Mapping[str, Tensor]
    """By MoE layer in order, the expected softmax of its router, (T, E) float32."""

    def top(self, count: int) -> dict[str, Tensor]:
        """The `count` most probable experts of every token and layer, best first, (T, count); ties go to the lowest id."""
        return {layer: best(gates_TE, min(count, gates_TE.shape[1])) for layer, gates_TE in self.gates.items()}


def stack_of(phase: str) -> StackName:
    """The stack that runs in a phase."""
    return "encoder" if phase == "encode" else "decoder"


class ExpertPredictor:
    """The networks of all stacks of one model, and what they were fitted on."""

    def __init__(self, header: PredictorHeader, known: Hashes, path: Path | None = None) -> None:
        """With random weights, which fitting or reading replaces."""
        self.header, self.known, self.path = header, known, path
        self.networks: dict[StackName, PredictorNetwork] = {
            stack: PredictorNetwork(header.dim, header.width, list(shape.layers.values()), causal=shape.causal)
            for stack, shape in header.stacks.items()
        }

    @property
    def modules(self) -> nn.ModuleDict:
        """The networks as one module, with the names that their weights have in the file."""
        return nn.ModuleDict({str(stack): network for stack, network in self.networks.items()})

    @property
    def num_bytes(self) -> int:
        """Size of all parameters."""
        return sum(parameter.nbytes for parameter in self.modules.parameters())

    @classmethod
    def open(cls, path: Path, recipe: Recipe) -> Self:
        """The predictor of the recipe's model on its device; UsageError if the file is absent, damaged or of another model."""
        header, tensors = read(path)
        check_model(path, header, recipe)
        known = tensors.pop(FINGERPRINTS, torch.zeros(0))
        with torch.device("meta"):
            predictor = cls(header, np.zeros(0, np.uint64), path)
        check_weights(path, predictor.modules, known, tensors)
        predictor.known = np.sort(known.numpy().view(np.uint64))
        predictor.modules.load_state_dict(tensors, assign=True)
        predictor.modules.to(recipe.measure.device).eval().requires_grad_(False)
        return predictor

    def predict(
        self, phase: str, x_BLD: Tensor, state: NetworkState | None = None, real_BL: Tensor | None = None
    ) -> tuple[Prediction, NetworkState]:
        """The experts of tokens in all MoE layers of the phase's stack, from what the model's embedding gives for the tokens.

        `state`, returned by the call before, continues the sequences of a decoder; the same tokens give the same result in one call as
        in several. `real_BL` masks the padding of an encoder's batch.
        """
        stack = stack_of(phase)
        scores, state = self.networks[stack](x_BLD, state, real_BL)
        layers = self.header.stacks[stack].layers
        return Prediction(
            {name: torch.softmax(scores_BLE, dim=2).flatten(0, 1) for name, scores_BLE in zip(layers, scores, strict=True)}
        ), state

    def check_unseen(self, texts: Mapping[str, Iterable[Sequence[int]]]) -> None:
        """UsageError if a text, sequences of token ids by domain (`token_sequences`), is one that the predictor was fitted on."""
        for domain, sequences in texts.items():
            if (share := known_share(self.known, sequences)) > MAX_KNOWN:
                raise UsageError(
                    f"predictor {self.path}: it was fitted on {share:.0%} of the sequences of the text {domain!r}",
                    "Evaluate it on other text, or fit it on other documents: moeprof fit-predictor RECIPE --data NAME=FILE.",
                )

    def write(self, path: Path) -> None:
        """Replaces the file `path`; the same predictor gives the same bytes."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.modules.state_dict().items()}
        tensors[FINGERPRINTS] = torch.from_numpy(self.known.view(np.int64).copy())
        header = json.dumps(self.header.model_dump(mode="json"), sort_keys=True)
        with replacing(path) as partial:
            partial.write_bytes(save(tensors, {KEY: header}))


def read(path: Path) -> tuple[PredictorHeader, dict[str, Tensor]]:
    """The header and the tensors of a file; UsageError if it is absent, damaged or no predictor."""
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(KEY)
            if text is None:
                raise UsageError(f"predictor {path}: no file of moeprof fit-predictor", FIT_AGAIN)
            document = parsed_json(text)
            refuse_newer(f"predictor {path}", document, SCHEMA)
            header = PredictorHeader.model_validate(document)
            return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise UsageError(f"predictor {path}: no such file", FIT_AGAIN) from error
    except (SafetensorError, OSError, ValueError) as error:
        raise UsageError(f"predictor {path}: damaged, or no predictor: {reason(error)}", FIT_AGAIN) from error


def check_model(path: Path, header: PredictorHeader, recipe: Recipe) -> None:
    """UsageError that names the first property in which the recipe's model is not the one that the predictor was fitted to."""
    of_recipe = {
        "experts per token": recipe.gating.top_k,
        "MoE layers and experts": stacks_of(recipe.model),
        "weights": weights_hash(recipe),
    }
    of_file = {
        "experts per token": header.top_k,
        "MoE layers and experts": header.stacks,
        "weights": header.weights_hash,
    }
    if different := [name for name, value in of_recipe.items() if value != of_file[name]]:
        raise UsageError(
            f"predictor {path}: fitted to a model with other {different[0]} than that of recipe {recipe.name} has",
            f"Fit one to this model: moeprof fit-predictor {recipe.name} --out FILE.safetensors",
        )


def check_weights(path: Path, wanted: nn.Module, known: Tensor, tensors: Mapping[str, Tensor]) -> None:
    """UsageError if the tensors are not those of the networks, or not finite."""
    shapes = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in wanted.state_dict().items()}
    found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
    wrong = [name for name in {**shapes, **found} if shapes.get(name) != found.get(name)]
    wrong += [name for name, tensor in tensors.items() if not wrong and not torch.isfinite(tensor).all()]
    wrong += [FINGERPRINTS] if known.dtype != torch.int64 or known.dim() != 1 else []
    if wrong:
        raise UsageError(
            f"predictor {path}: {wrong[0]} is absent, not finite, or of another shape than its header says", FIT_AGAIN
        )
