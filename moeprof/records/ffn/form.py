"""What a form of FFN is: its matrices, and how they turn rows into outputs, described without torch.

D width of a token, F hidden width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol, TypeVar

Shape = tuple[int, ...]


class Rows(Protocol):
    """Tokens as rows of numbers: a torch tensor, or a numpy array in a test."""

    def __mul__(self, other: Any, /) -> Any: ...


RowsT = TypeVar("RowsT", bound=Rows)


@dataclass(frozen=True)
class Matrix:
    """One matrix of an FFN and its bias, by the names that they have in a checkpoint."""

    name: str
    bias: str
    shape: Callable[[int, int], tuple[int, int]]
    """From (D, F) to (inputs, outputs); the bias has as many values as there are outputs."""


class Outputs(Protocol):
    """Computes an FFN from products of rows and matrices (biases included) and functions of single elements."""

    def __call__(
        self, rows: RowsT, product: Callable[[RowsT, Matrix], RowsT], activation: Callable[[RowsT], RowsT]
    ) -> RowsT: ...


@dataclass(frozen=True)
class FFNForm:
    """A kind of FFN: parameters, memory, initialisation, stores and kernels follow from this entry."""

    name: str
    """Its value of the recipe key `[model] ffn`."""
    matrices: tuple[Matrix, ...]
    """In the order of the parameters of a model; the first takes rows of width D."""
    outputs: Outputs
    hidden_buffers: int
    """The most buffers of rows x F that `outputs` needs at the same time."""

    def shapes(self, dim: int, ffn_dim: int, *, bias: bool) -> dict[str, Shape]:
        """Shapes of one FFN's tensors by name, each matrix followed by its bias."""
        shapes: dict[str, Shape] = {}
        for matrix in self.matrices:
            shapes[matrix.name] = matrix.shape(dim, ffn_dim)
            if bias:
                shapes[matrix.bias] = shapes[matrix.name][1:]
        return shapes

    def num_parameters(self, dim: int, ffn_dim: int, *, bias: bool) -> int:
        """Parameters of one FFN; a token takes 2 FLOPs for each of them, a product and a sum."""
        return sum(map(prod, self.shapes(dim, ffn_dim, bias=bias).values()))


def widening(dim: int, ffn_dim: int) -> tuple[int, int]:
    """The shape of a matrix from the width of a token to the hidden width, (D, F)."""
    return dim, ffn_dim


def narrowing(dim: int, ffn_dim: int) -> tuple[int, int]:
    """The shape of a matrix from the hidden width to the width of a token, (F, D)."""
    return ffn_dim, dim
