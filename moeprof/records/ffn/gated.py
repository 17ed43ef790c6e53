"""Three matrices, of which one gates the output of another (Shazeer 2020: SwiGLU with SiLU, GEGLU with GELU)."""

from collections.abc import Callable

from moeprof.records.ffn.form import FFNForm, Matrix, RowsT, narrowing, widening

GATE, UP = Matrix("gate", "gate_bias", widening), Matrix("up", "up_bias", widening)
DOWN = Matrix("down", "down_bias", narrowing)


def outputs(rows: RowsT, product: Callable[[RowsT, Matrix], RowsT], activation: Callable[[RowsT], RowsT]) -> RowsT:
    """(activation(rows gate + gate_bias) * (rows up + up_bias)) down + down_bias"""
    hidden: RowsT = activation(product(rows, GATE)) * product(rows, UP)
    return product(hidden, DOWN)


GATED = FFNForm("gated", (GATE, UP, DOWN), outputs, hidden_buffers=3)  # both factors and their product
