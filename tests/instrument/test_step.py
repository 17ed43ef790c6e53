"""A step knows every row's sequence, position and token, and which rows are padding."""

import numpy as np
import pytest
import torch

from moeprof.instrument.step import Step, make_step


def a_step(real: list[list[bool]]) -> Step:
    tokens_BL = np.array([[11, 12, 13], [21, 22, 23]])
    return make_step("score", 4, "prose", tokens_BL, np.array(real), np.array([8, 9]), 5, "cpu")


def test_rows_run_through_a_sequence_before_the_next_one_begins() -> None:
    step = a_step([[True] * 3, [True] * 3])
    assert step.sequence_T is not None
    assert step.position_T is not None
    assert step.token_T is not None
    assert step.sequence_T.tolist() == [8, 8, 8, 9, 9, 9]
    assert step.position_T.tolist() == [5, 6, 7, 5, 6, 7]
    assert step.token_T.tolist() == [11, 12, 13, 21, 22, 23]
    assert {column.dtype for column in (step.sequence_T, step.position_T, step.token_T)} == {np.dtype(np.int32)}
    assert (step.phase, step.index, step.domain) == ("score", 4, "prose")


def test_without_padding_there_is_no_mask() -> None:
    step = a_step([[True] * 3, [True] * 3])
    assert step.real_T is None
    assert step.num_tokens == 6


def test_padding_is_marked_and_not_counted() -> None:
    step = a_step([[True, True, False], [True, False, False]])
    assert step.real_T is not None
    assert step.real_T.tolist() == [True, True, False, True, False, False]
    assert step.num_tokens == 3


@pytest.mark.parametrize(
    ("real", "count"), [([[True] * 3] * 2, 6), ([[True, True, False], [True, False, False]], 3), ([[False] * 3] * 2, 0)]
)
def test_a_step_made_on_the_host_knows_how_many_rows_are_real(real: list[list[bool]], count: int) -> None:
    step = a_step(real)
    assert (step.num_real, step.num_tokens) == (count, count)


def test_a_mask_on_a_device_is_counted_only_where_the_host_does_not_know() -> None:
    """A mask without values could not be counted."""
    mask_T, token_T = torch.empty(4, dtype=torch.bool, device="meta"), np.zeros(4, np.int32)
    assert Step(mask_T, 3, token_T=token_T).num_tokens == 3
    assert Step(torch.tensor([True, False, True, False]), token_T=token_T).num_tokens == 2


def test_a_mask_is_a_copy_that_later_changes_do_not_reach() -> None:
    real_BL = np.array([[True, False]])
    step = make_step("score", 0, "", np.array([[1, 2]]), real_BL, np.array([0]), 0, "cpu")
    real_BL[:] = True
    assert step.real_T is not None
    assert torch.equal(step.real_T, torch.tensor([True, False]))


def test_a_step_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        a_step([[True] * 3, [True] * 3]).index = 5  # type: ignore[misc]
