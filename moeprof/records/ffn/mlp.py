"""Two matrices with an activation between them (Vaswani et al. 2017)."""

from collections.abc import Callable

from moeprof.records.ffn.form import FFNForm, Matrix, RowsT, narrowing, widening

W1, W2 = Matrix("w1", "b1", widening), Matrix("w2", "b2", narrowing)


def outputs(rows: RowsT, product: Callable[[RowsT, Matrix], RowsT], activation: Callable[[RowsT], RowsT]) -> RowsT:
    """activation(rows w1 + b1) w2 + b2"""
    return product(activation(product(rows, W1)), W2)


MLP = FFNForm("mlp", (W1, W2), outputs, hidden_buffers=2)  # before and after the activation
