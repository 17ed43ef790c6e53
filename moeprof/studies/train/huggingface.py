"""Causal language models of transformers that read bytes, as learners; their checkpoint is a folder in Hugging Face layout.

T tokens, E experts, K choices.
"""

import copy
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from moeprof.huggingface.folder import check_transformers, open_folder
from moeprof.huggingface.loading import Options, load_model, quiet, skeleton
from moeprof.huggingface.sites import Site, find_sites
from moeprof.instrument.hooks import hooked
from moeprof.models.build import num_parameters
from moeprof.models.initialise import initialise
from moeprof.moe.routing import Routing
from moeprof.records.errors import UsageError
from moeprof.records.recipe.model import HuggingFaceSection
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.run.model_card import Origin
from moeprof.records.system.files import replacing_folder
from moeprof.store.checkpoint_folder import CheckpointFolder
from moeprof.studies.train.byte_tokenizer import byte_tokenizer
from moeprof.studies.train.checkpoint import ORIGIN, read_config
from moeprof.studies.train.learner import Look, check_memory
from moeprof.studies.train.lessons import Lesson
from moeprof.workloads.tokenizers import BOS, EOS, FIRST_WORD, PAD

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


class HuggingFaceLearner:
    """A model whose routers return logits (T, E), weights (T, K) and ids (T, K), as those of Qwen3-MoE do."""

    def __init__(self, model: "PreTrainedModel") -> None:
        self.model, self.sites = model, find_sites(model)
        self.routers = {site.layer: site.router.module for site in self.sites if site.router}

    @classmethod
    def untrained(cls, recipe: Recipe) -> "HuggingFaceLearner":
        """A model of the configuration in the recipe's folder, in float32, with random weights and gradients."""
        check_transformers()
        shape = shape_of(recipe)
        check_text(shape.config, recipe)
        check_memory(recipe, num_parameters(shape))
        learner = cls(type(shape)._from_config(shape.config, dtype=torch.float32).eval())
        learner.check_routers()
        initialise(learner.model, recipe.measure.seed)
        return learner

    @classmethod
    def trained(cls, path: Path) -> "HuggingFaceLearner":
        """The model that a training wrote, in its own type; UsageError if its files are missing or damaged."""
        return cls(load_model(open_folder(str(path))))

    def check_routers(self) -> None:
        """UsageError unless every layer has a router that the losses of training are made for."""
        if len(self.routers) < len(self.sites):
            raise unsuitable(type(self.model).__name__)
        with torch.no_grad(), hooked(self.routers.values(), check_router):
            self.model(input_ids=torch.tensor([[BOS]]), use_cache=False)

    def logits(self, lesson: Lesson, dropout: torch.Generator | None = None) -> Tensor:
        assert not bool(lesson.tokens_BL.eq(PAD).any()), "windows of text have no padding"
        logits_BLV: Tensor = self.model(input_ids=lesson.tokens_BL, use_cache=False).logits
        return logits_BLV

    @contextmanager
    def at_routers(self, look: Look) -> Iterator[None]:
        with ExitStack() as hooks:
            for layer, router in self.routers.items():
                hooks.enter_context(hooked([router], partial(seen, look, layer)))
            yield

    def expert_parameters(self) -> list[Tensor]:
        return [matrix for site in self.sites for matrix in stacked(site)]

    def expert_matrices(self) -> list[Tensor]:
        return [
            matrix if site.experts.is_transposed else matrix.transpose(1, 2) for site in self.sites for matrix in stacked(site)
        ]

    def write(self, out: Path, origin: Origin) -> None:
        """Writes all weights in bfloat16, the tokenizer, and the origin."""
        rounded = copy.deepcopy(self.model).to(torch.bfloat16)
        with replacing_folder(out) as folder, quiet():
            rounded.save_pretrained(folder)
            byte_tokenizer(self.model.config.max_position_embeddings).save_pretrained(folder)
            (folder / ORIGIN).write_text(json.dumps(asdict(origin), sort_keys=True, indent=1) + "\n", encoding="utf-8")


def shape_of(recipe: Recipe) -> "PreTrainedModel":
    """The model of the configuration in the recipe's folder, on the meta device; UsageError if it makes none."""
    assert isinstance(recipe.model, HuggingFaceSection)
    folder = CheckpointFolder(Path(recipe.model.huggingface), recipe.model.huggingface, read_config(recipe), ())
    return skeleton(folder, Options(dtype=torch.float32))


def check_text(config: "PreTrainedConfig", recipe: Recipe) -> None:
    """UsageError unless a model of this configuration can read the training text, which is bytes in windows of one length."""
    wanted = {"vocab_size": FIRST_WORD, "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
    found = {key: getattr(config, key, None) for key in wanted}
    for key in wanted:
        if found[key] != wanted[key]:
            raise UsageError(
                f"recipe {recipe.name}: {key} is {found[key]} in config.json, but training is on bytes with {wanted[key]}",
                f"Set it to {wanted[key]} in config.json.",
            )
    if (longest := getattr(config, "max_position_embeddings", 0)) < recipe.train.sequence_length:
        raise UsageError(
            f"recipe {recipe.name}: max_position_embeddings is {longest} in config.json, "
            f"but train.sequence_length is {recipe.train.sequence_length}",
            "Lower train.sequence_length, or raise max_position_embeddings.",
        )


def stacked(site: Site) -> list[Tensor]:
    """The matrices of the experts of a layer; biases have two dimensions."""
    return [parameter for parameter in site.experts.parameters() if parameter.dim() == 3]


def routing_of(logits_TE: Tensor, experts_TK: Tensor) -> Routing:
    """The decisions of a router that chooses by softmax values."""
    return Routing(experts_TK, torch.softmax(logits_TE, dim=1).gather(1, experts_TK), None, logits_TE.shape[1])


def weights_of(router: nn.Module, routing: Routing) -> Tensor:
    """The weights (T, K) that a router gives its choices: softmax values, renormalised unless its configuration says no."""
    return routing.weights() if getattr(router, "norm_topk_prob", True) else routing.probs_TK


def check_router(router: nn.Module, inputs: object, output: Any) -> None:
    """A hook that raises UsageError unless the outputs are logits, the softmax values of the choices, and their ids."""
    match output:
        case (Tensor() as logits_TE, Tensor() as weights_TK, Tensor() as experts_TK):
            expected_TK = weights_of(router, routing_of(logits_TE.float(), experts_TK))
            if weights_TK.shape == expected_TK.shape and torch.allclose(weights_TK.float(), expected_TK, rtol=1e-3):
                return
    raise unsuitable(type(router).__name__)


def unsuitable(name: str) -> UsageError:
    """The error of a model with another kind of router."""
    return UsageError(
        f"{name}: not a router of softmax values, which the losses of training are made for",
        "Use an architecture that has one, such as qwen3_moe.",
    )


def seen(look: Look, layer: str, router: nn.Module, inputs: object, output: tuple[Tensor, Tensor, Tensor]) -> Any:
    """Shows the decisions of a router to `look`; the outputs that follow from other decisions, if it returns any."""
    logits_TE, weights_TK, experts_TK = output
    scores_TE = logits_TE.float()
    changed = look(layer, scores_TE, routing_of(scores_TE, experts_TK))
    return None if changed is None else (logits_TE, weights_of(router, changed).to(weights_TK.dtype), changed.experts_TK)
