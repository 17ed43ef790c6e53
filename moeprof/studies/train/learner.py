"""What training and its appraisal need of a model, whatever its kind.

B sequences, L positions, V vocabulary, T tokens, E experts, K choices, I and O inputs and outputs of a matrix.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from moeprof.instrument.machine import available_memory
from moeprof.moe.routing import Routing
from moeprof.records.errors import MoeprofError
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.run.model_card import Origin
from moeprof.records.units import format_bytes
from moeprof.studies.train.lessons import Lesson

Look = Callable[[str, Tensor, Routing], Routing | None]
"""Gets the name of an MoE layer, the router's logits (T, E) in float32 and its decisions; may return other decisions."""


BYTES_PER_PARAMETER = 16
"""Weight, gradient and two moments in float32."""


class Learner(Protocol):
    """A model that learns or has learned."""

    @property
    def model(self) -> nn.Module:
        """The module whose parameters are trained."""
        ...

    def logits(self, lesson: Lesson, dropout: torch.Generator | None = None) -> Tensor:
        """Logits of every position, (B, L, V); `dropout` turns on expert output masking, if the model has it."""
        ...

    def at_routers(self, look: Look) -> AbstractContextManager[None]:
        """Calls `look` after every router while the block runs; what it returns, unless None, replaces the decisions."""
        ...

    def expert_parameters(self) -> list[Tensor]:
        """The parameters that hold the matrices of all experts of a layer each, as the model stores them."""
        ...

    def expert_matrices(self) -> list[Tensor]:
        """The matrices of all experts of a layer each, (E, I, O): the same memory."""
        ...

    def write(self, out: Path, origin: Origin) -> None:
        """Writes the weights, and where they come from."""
        ...


def check_memory(recipe: Recipe, num_parameters: int) -> None:
    """MoeprofError if this machine has too little free memory to train so many parameters."""
    needed = num_parameters * BYTES_PER_PARAMETER
    if needed > (available := available_memory("cpu")):
        raise MoeprofError(
            f"recipe {recipe.name}: training needs more than {format_bytes(needed)}, but only {format_bytes(available)} are free",
            f"Train a smaller recipe, such as {recipe.workload}-tiny.",
        )
