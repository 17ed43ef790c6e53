"""Low precisions of expert weights: groups of rows of a matrix share a scale of 16 bits, and several codes are packed into a byte.

A code c of b bits stands for (c - top) x scale, with top = (2^b - 1) / 2: all 2^b levels are used, at the price that none is 0. On the
64 experts of lm-tiny, with scales that reach the largest weight of a group, the relative Frobenius error is that of groups of twice
as many rows that have a minimum of their own, at as many stored bits (int4: 9.19% and 9.10% at 4.5 bits per weight), and less than that
of levels around 0 (int4: 9.84%; int2, which then has three levels: 66% instead of 46%). Smaller scales clip the largest weights, which
pays where there are few levels: of the candidates for a group's scale, the one with the least squared error is used (int4: 8.74%,
int2 at 2.25 bits: 34.4%).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

SCALE_BITS = 16


@dataclass(frozen=True)
class Precision:
    """How the matrices of an expert are packed; biases keep their dtype."""

    name: str
    bits: int
    """Of each code: 8, 4 or 2."""
    group: int
    """Rows that share the scales, one per column; the last group of a matrix may have fewer."""
    fractions: tuple[float, ...] = (1.0,)
    """Candidates for a group's scale, relative to the one that reaches its largest weight; the one with the least squared error is used."""

    def __post_init__(self) -> None:
        """ValueError unless codes fill bytes and groups fill rows of bytes."""
        if self.bits not in (8, 4, 2) or self.group < 1 or self.group % self.codes_per_byte or self.fractions[0] != 1:
            raise ValueError(f"{self} cannot be packed")

    @property
    def codes_per_byte(self) -> int:
        """Codes in a byte, the first in its lowest bits."""
        return 8 // self.bits

    @property
    def largest_code(self) -> int:
        """The largest code; the smallest is 0."""
        return (1 << self.bits) - 1

    @property
    def top(self) -> float:
        """The largest level, in scales."""
        return self.largest_code / 2

    @property
    def bits_per_weight(self) -> float:
        """Bits of a weight of a long matrix, with its share of the scale."""
        return self.bits + SCALE_BITS / self.group

    def num_groups(self, rows: int) -> int:
        """Groups of a matrix of so many rows."""
        return -(-rows // self.group)

    def packed_rows(self, rows: int) -> int:
        """Rows of bytes that hold the codes of a matrix of so many rows; bytes are not shared by groups."""
        whole, rest = divmod(rows, self.group)
        return whole * (self.group // self.codes_per_byte) - (-rest // self.codes_per_byte)

    def packed_bytes(self, shapes: Sequence[Sequence[int]], element_bytes: int) -> int:
        """Bytes of packed tensors of these shapes; those of fewer than two dimensions keep elements of so many bytes."""
        whole = sum(prod(shape) * element_bytes for shape in shapes if len(shape) < 2)
        matrices = [(shape[0], prod(shape[1:])) for shape in shapes if len(shape) > 1]
        scales = SCALE_BITS // 8
        return whole + sum((self.packed_rows(rows) + self.num_groups(rows) * scales) * columns for rows, columns in matrices)


PRECISIONS = {
    precision.name: precision
    for precision in (
        Precision("int8", 8, 64),
        Precision("int4", 4, 32, (1.0, 0.95, 0.9, 0.85, 0.8)),
        Precision("int2", 2, 64, (1.0, 0.8, 0.7, 0.6, 0.5)),
    )
}
"""All low precisions by name, the most accurate first."""
