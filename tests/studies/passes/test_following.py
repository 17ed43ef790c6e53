"""Which tokens may be compared: what a loss or another decision hides, and what counts as a near-tie."""

import numpy as np
import pytest
import torch

from moeprof.analysis.comparison.output_agreement import Agreement
from moeprof.instrument.step import Step, make_step
from moeprof.studies.passes.outputs import Context, Decision, DecisionRecorder, differences, follow

TOLERANCE = 1e-4


def step_of(phase: str = "score", *, real: list[list[bool]] | None = None, first_position: int = 0, length: int = 3) -> Step:
    """Sequences 7 and 9 of three tokens each."""
    real_BL = np.ones((2, length), bool) if real is None else np.array(real)
    return make_step(phase, 0, "", np.ones((2, length), np.int64), real_BL, np.array([7, 9]), first_position, "cpu")


def decision(
    step: Step,
    *,
    experts: dict[int, list[int]] | None = None,
    probs: dict[int, list[float]] | None = None,
    lost: tuple[int, ...] = (),
) -> Decision:
    """Every row goes to experts 0 and 1 with 0.6 and 0.3, but for the rows named."""
    assert step.token_T is not None
    rows = range(len(step.token_T))
    experts_TK = torch.tensor([(experts or {}).get(row, [0, 1]) for row in rows])
    probs_TK = torch.tensor([(probs or {}).get(row, [0.6, 0.3]) for row in rows])
    dropped_TK = torch.tensor([[row in lost, False] for row in rows])
    return Decision("1", step, experts_TK, probs_TK, dropped_TK)


def followed(*pairs: tuple[Decision, Decision]) -> tuple[Agreement, Context]:
    agreement, context = Agreement(), Context()
    for ours, theirs in pairs:
        follow(context, ours, theirs, ours.lost_T | theirs.lost_T, agreement, TOLERANCE)
    return agreement, context


def intact(context: Context, step: Step) -> list[int]:
    return context.intact(step).astype(int).tolist()


# What a loss hides


def test_where_nothing_is_lost_everything_can_be_compared() -> None:
    step = step_of()
    agreement, context = followed((decision(step), decision(step)))
    assert intact(context, step) == [1] * 6
    assert (agreement.flips, agreement.jumps) == (0, 0)


@pytest.mark.parametrize(
    ("phase", "left"), [("score", [1, 0, 0, 1, 1, 1]), ("decode", [1, 0, 0, 1, 1, 1]), ("encode", [0, 0, 0, 1, 1, 1])]
)
def test_a_loss_hides_what_comes_after_it_and_in_an_encoder_the_whole_sentence(phase: str, left: list[int]) -> None:
    step = step_of(phase)
    for pair in ((decision(step, lost=(1,)), decision(step)), (decision(step), decision(step, lost=(1,)))):
        assert intact(followed(pair)[1], step) == left


def test_a_loss_in_the_encoder_hides_every_later_word_of_the_translation() -> None:
    encoded, decoded = step_of("encode"), step_of("decode", length=1, first_position=5)
    _, context = followed((decision(encoded, lost=(2,)), decision(encoded)))
    assert intact(context, decoded) == [0, 1]


def test_a_loss_in_an_early_step_hides_the_later_ones_of_its_sequence() -> None:
    steps = [step_of("decode", length=1, first_position=position) for position in range(3)]
    pairs = [(decision(step, lost=(0,) if position == 1 else ()), decision(step)) for position, step in enumerate(steps)]
    _, context = followed(*pairs)
    assert [intact(context, step) for step in steps] == [[1, 1], [0, 1], [0, 1]]


def test_the_earliest_loss_counts_whichever_layer_came_first() -> None:
    step = step_of()
    _, context = followed((decision(step, lost=(2, 5)), decision(step)), (decision(step, lost=(1,)), decision(step)))
    assert intact(context, step) == [1, 0, 0, 1, 1, 0]


def test_padding_is_compared_by_nobody_and_loses_nothing_to_others() -> None:
    step = step_of(real=[[True, True, False], [True, False, False]])
    _, context = followed((decision(step, lost=(4,)), decision(step)))
    assert intact(context, step) == [1, 1, 0, 1, 0, 0]


# Other decisions


def test_another_expert_with_the_same_value_is_a_near_tie_that_flipped() -> None:
    step = step_of()
    agreement, context = followed((decision(step), decision(step, experts={4: [0, 2]})))
    assert (agreement.flips, agreement.jumps) == (1, 0)
    assert intact(context, step) == [1, 1, 1, 1, 0, 0]  # whatever sees it is left out


@pytest.mark.parametrize(("apart", "flips", "jumps"), [(4.9, 1, 0), (5.1, 0, 1), (-4.9, 1, 0), (-5.1, 0, 1)])
def test_values_further_apart_than_rounding_explains_make_it_a_jump(apart: float, flips: int, jumps: int) -> None:
    step = step_of()
    other = decision(step, experts={1: [0, 3]}, probs={1: [0.6, 0.3 * (1 + apart * TOLERANCE)]})
    agreement, context = followed((decision(step), other))
    assert (agreement.flips, agreement.jumps) == (flips, jumps)
    assert intact(context, step) == [1, 0, 0, 1, 1, 1]


def test_the_same_experts_with_other_values_are_no_other_decision() -> None:
    step = step_of()
    agreement, context = followed((decision(step), decision(step, probs={0: [0.5, 0.4]})))
    assert (agreement.flips, agreement.jumps) == (0, 0)
    assert intact(context, step) == [1] * 6


def test_what_a_token_decides_that_had_lost_something_is_no_flip() -> None:
    step = step_of()
    first = decision(step, lost=(0,)), decision(step)
    second = decision(step), decision(step, experts={1: [2, 3], 3: [2, 3]}, probs={1: [0.9, 0.1]})
    agreement, _ = followed(first, second)
    assert (agreement.flips, agreement.jumps) == (1, 0)  # row 3, of the sequence that had lost nothing


def test_a_flip_counts_once_however_often_it_leads_elsewhere() -> None:
    step = step_of()
    other = decision(step, experts={0: [2, 3]})
    agreement, _ = followed(*[(decision(step), other)] * 3)
    assert agreement.flips == 1


def test_two_experts_in_another_order_are_the_same_decision() -> None:
    witness, step = DecisionRecorder(), step_of(length=1)
    probs_TK, nothing = torch.tensor([[0.5, 0.5], [0.5, 0.4]]), torch.zeros(2, 2, dtype=torch.bool)
    for experts in ([[3, 1], [0, 2]], [[1, 3], [0, 2]]):
        witness.routed("1", step, torch.tensor(experts), probs_TK, nothing, 4)
    agreement, _ = followed((witness.decisions[0], witness.decisions[1]))
    assert (agreement.flips, agreement.jumps) == (0, 0)


# Differences


def test_a_row_differs_beyond_a_share_of_its_own_largest_value() -> None:
    ours = torch.tensor([[100.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    theirs = ours + torch.tensor([[0.0, 0.009], [0.0, 0.009], [0.00009, 0.0], [0.0, 0.0]])
    tokens, differing, largest = differences(ours, theirs, np.ones(4, bool), TOLERANCE)
    assert (tokens, differing) == (4, 1)
    assert largest == pytest.approx(0.009)


def test_rows_that_were_not_chosen_do_not_count() -> None:
    ours, theirs = torch.zeros(3, 2), torch.tensor([[9.0, 9.0], [0.0, 0.0], [9.0, 9.0]])
    assert differences(ours, theirs, np.array([False, True, False]), TOLERANCE) == (1, 0, 0.0)
    assert differences(ours, theirs, np.zeros(3, bool), TOLERANCE) == (0, 0, 0.0)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_differs_from_everything_by_no_finite_number(poison: float) -> None:
    numbers, poisoned = torch.ones(2, 3), torch.tensor([[1.0, 1.0, 1.0], [1.0, poison, 1.0]])
    for ours, theirs in ((numbers, poisoned), (poisoned, numbers), (poisoned, poisoned)):
        tokens, differing, largest = differences(ours, theirs, np.ones(2, bool), TOLERANCE)
        assert (tokens, differing) == (2, 1)
        assert largest == np.inf
