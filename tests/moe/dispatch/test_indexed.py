"""Combining by index is a weighted sum of rows, in one gather."""

import pytest
import torch

from moeprof.instrument.memory import Allocations
from moeprof.moe.dispatch.indexed import IndexedDispatched
from moeprof.moe.experts import ExpertRows

from ..drawn import tokens


def dispatched_for(
    row_TK: list[list[int]], weights_TK: list[list[float]], dtype: torch.dtype = torch.float32
) -> IndexedDispatched:
    rows = ExpertRows(torch.empty(0, 2), [0])
    return IndexedDispatched(rows, None, torch.tensor(row_TK), torch.tensor(weights_TK, dtype=dtype))


def test_a_token_gets_the_weighted_sum_of_its_rows() -> None:
    dispatched = dispatched_for([[0, 2], [1, 1], [2, 0]], [[0.5, 0.25], [1.0, 0.0], [0.0, 0.0]])
    outputs_RD = torch.tensor([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
    assert dispatched.combine(outputs_RD, 1.0).tolist() == [[1.5, 15.0], [2.0, 20.0], [0.0, 0.0]]


def test_the_scale_multiplies_everything() -> None:
    dispatched, outputs_RD = dispatched_for([[0], [1]], [[1.0], [0.5]]), tokens(2, 3)
    torch.testing.assert_close(dispatched.combine(outputs_RD, 0.8), outputs_RD * torch.tensor([[0.8], [0.4]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_rows_every_token_gets_zeros(dtype: torch.dtype) -> None:
    y_TD = dispatched_for([[0, 0]] * 3, [[0.0, 0.0]] * 3, dtype).combine(torch.empty(0, 5, dtype=dtype), 1.0)
    assert (y_TD.tolist(), y_TD.dtype) == ([[0.0] * 5] * 3, dtype)


def test_the_sum_of_eight_rows_in_bfloat16_is_near_the_exact_one() -> None:
    outputs_RD, weights_TK = tokens(80, 16), torch.softmax(tokens(10, 8, seed=3), dim=1)
    row_TK = torch.arange(80).view(10, 8)
    exact_TD = (outputs_RD.view(10, 8, 16) * weights_TK[:, :, None]).sum(dim=1)
    dispatched = IndexedDispatched(ExpertRows(outputs_RD, [0, 80]), None, row_TK, weights_TK.bfloat16())
    y_TD = dispatched.combine(outputs_RD.bfloat16(), 1.0)
    assert y_TD.dtype == torch.bfloat16
    torch.testing.assert_close(y_TD.float(), exact_TD, rtol=0.02, atol=0.01)


def test_no_copy_of_the_rows_is_made_on_the_way() -> None:
    """On shapes alone: beside its result, combining allocates nothing larger than the row numbers."""
    with torch.device("meta"):
        row_TK, weights_TK, outputs_RD = torch.empty(100, 2, dtype=torch.int64), torch.empty(100, 2), torch.empty(200, 64)
        dispatched = IndexedDispatched(ExpertRows(outputs_RD, [0, 200]), None, row_TK, weights_TK)
    sizes: list[int] = []
    with torch.inference_mode(), Allocations(lambda outputs, _: sizes.extend(output.nbytes for output in outputs)):
        dispatched.combine(outputs_RD, 1.0)
    *others, result = sorted(sizes)
    assert result == 100 * 64 * 4
    assert max(others) <= row_TK.nbytes


def test_the_same_rows_give_the_same_bits_again() -> None:
    dispatched, outputs_RD = (
        dispatched_for([[0, 1], [1, 0], [0, 0]] * 50, [[0.3, 0.7], [0.9, 0.1], [0.5, 0.5]] * 50),
        tokens(2, 33),
    )
    assert torch.equal(dispatched.combine(outputs_RD, 0.9), dispatched.combine(outputs_RD, 0.9))
