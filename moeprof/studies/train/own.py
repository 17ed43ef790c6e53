"""Models of moeprof's own, as learners; their checkpoint is one safetensors file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moeprof.analysis.model_size import num_parameters
from moeprof.instrument.hooks import hooked
from moeprof.instrument.step import Step
from moeprof.models.build import Model, build_model, make_model
from moeprof.models.checkpoint import load_checkpoint
from moeprof.models.translation_model import TranslationModel
from moeprof.moe.layer import MoELayer, moe_layers, use_variant
from moeprof.moe.router import Router
from moeprof.moe.routing import Routing
from moeprof.records.errors import UsageError
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.run.model_card import Origin
from moeprof.studies.train.checkpoint import write_checkpoint
from moeprof.studies.train.learner import Look, check_memory
from moeprof.studies.train.lessons import Lesson
from moeprof.workloads.tokenizers import PAD


class OwnLearner:
    """One of moeprof's models on one rank, dropless while it learns."""

    def __init__(self, model: Model) -> None:
        self.model = model
        use_variant(model, None)

    @classmethod
    def untrained(cls, recipe: Recipe, *, twin: bool) -> "OwnLearner":
        """A model in float32 with random weights and gradients; UsageError if its text cannot be decoded."""
        if recipe.own_model.tokenizer == "hashed":
            raise UsageError(f"recipe {recipe.name}: model.tokenizer is hashed, which cannot be decoded", "Use bytes or words.")
        check_memory(recipe, num_parameters(recipe.own_model))
        model = recipe.own_model.model_copy(update={"checkpoint": None, "dtype": "float32"})
        plain = recipe.model_copy(update={"model": model})
        return cls(build_model(twin_recipe(plain) if twin else plain, dense=twin).requires_grad_(True))

    @classmethod
    def trained(cls, recipe: Recipe, path: Path, *, twin: bool) -> "OwnLearner":
        """A model with the weights of a checkpoint; errors as in `load_checkpoint`."""
        model = make_model(twin_recipe(recipe) if twin else recipe, dense=twin).to_empty(device="cpu")
        load_checkpoint(model, path)
        return cls(model)

    def logits(self, lesson: Lesson, dropout: torch.Generator | None = None) -> Tensor:
        step = step_of(lesson.tokens_BL)
        arguments: tuple[Any, ...] = (lesson.tokens_BL, step)
        with masked_outputs(self.model, dropout):
            if isinstance(self.model, TranslationModel):
                assert lesson.source_BM is not None
                source_step = step_of(lesson.source_BM)
                memory = self.model.remember(self.model.encode(lesson.source_BM, source_step), source_step)
                arguments = (lesson.tokens_BL, memory, step)
            logits_BLV: Tensor = self.model(*arguments)
        return logits_BLV

    @contextmanager
    def at_routers(self, look: Look) -> Iterator[None]:
        def hook(router: Router, inputs: tuple[Tensor, Step], routing: Routing) -> Routing | None:
            return look(router.name, inputs[0].float() @ router.weight.t(), routing)

        with hooked([layer.router for layer in moe_layers(self.model)], hook):
            yield

    def expert_parameters(self) -> list[Tensor]:
        stacked = [whole for layer in moe_layers(self.model) for whole in layer.experts.weights.values()]
        return [whole for whole in stacked if whole.dim() == 3]

    def expert_matrices(self) -> list[Tensor]:
        return self.expert_parameters()

    def write(self, out: Path, origin: Origin) -> None:
        write_checkpoint(out, self.model, origin)


def step_of(tokens_BL: Tensor) -> Step:
    """The step of a batch that is padded with PAD."""
    real_T = tokens_BL.ne(PAD).flatten()
    return Step(real_T=None if bool(real_T.all()) else real_T)


def twin_recipe(recipe: Recipe) -> Recipe:
    """The recipe of the dense twin with hidden width k x F, as wide as the experts of one token together."""
    width = recipe.gating.top_k * recipe.own_model.ffn_dim
    return recipe.model_copy(update={"model": recipe.own_model.model_copy(update={"ffn_dim": width})})


@contextmanager
def masked_outputs(model: Model, dropout: torch.Generator | None) -> Iterator[None]:
    """Expert output masking as in NLLB: an MoE layer adds nothing for some tokens, and its full output for the others.

    The layer scales by the share kept, as in inference, so kept outputs are divided by it.
    """

    def mask(layer: MoELayer, inputs: object, y_TD: Tensor) -> Tensor:
        kept_T1 = torch.rand(len(y_TD), 1, generator=dropout) < layer.scale
        return y_TD * (kept_T1 / layer.scale)

    masked = [layer for layer in moe_layers(model) if dropout is not None and layer.scale < 1]
    with hooked(masked, mask):
        yield
