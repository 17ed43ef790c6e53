"""Rows that are no tokens of a user are found, and real traces that resemble them stay whole."""

import numpy as np
import pytest

from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.left_out import left_out
from tests.records.traces.logged import logged, random_experts

SAME = random_experts(1, layers=4, seed=9)


def counted(choices, **options: bool) -> tuple[int, int, int]:  # type: ignore[no-untyped-def]
    """Tokens without choices, of padding, and of warm-up."""
    found = left_out(choices, ImportOptions(**options))
    assert not (found.absent_T & found.padding_T | found.absent_T & found.warmup_T | found.padding_T & found.warmup_T).any()
    return int(found.absent_T.sum()), int(found.padding_T.sum()), int(found.warmup_T.sum())


def behind(rows: int, tokens: int = 50) -> np.ndarray:
    """Tokens behind rows that are all alike."""
    return np.concatenate([np.repeat(SAME, rows, axis=0), random_experts(tokens, layers=4)])


def requests(*lengths: int) -> np.ndarray:
    return np.repeat(np.arange(len(lengths)), lengths)


def test_a_first_request_of_rows_that_are_alike_is_warmup() -> None:
    choices = logged(behind(64), sequence_T=requests(64, 50))
    assert counted(choices) == (0, 0, 64)
    assert counted(choices, keep_warmup=True) == (0, 0, 0)


def test_several_requests_and_many_rows_of_one_are_warmup_too() -> None:
    assert counted(logged(behind(64), sequence_T=requests(40, 24, 50))) == (0, 0, 64)
    assert counted(logged(behind(300))) == (0, 0, 300)


@pytest.mark.parametrize(
    ("rows", "sequences"),
    [(15, requests(15, 50)), (64, requests(80, 34)), (255, requests(305)), (0, requests(50)), (1, requests(1, 50))],
)
def test_a_prompt_that_begins_with_repetitions_stays_whole(rows: int, sequences: np.ndarray) -> None:
    assert counted(logged(behind(rows), sequence_T=sequences)) == (0, 0, 0)


def test_rows_that_are_alike_later_or_apart_are_tokens() -> None:
    assert counted(logged(np.concatenate([random_experts(20, layers=4), np.repeat(SAME, 500, axis=0)]))) == (0, 0, 0)


def test_one_choice_of_a_collapsed_router_is_no_warmup() -> None:
    """A request of 100 tokens, all of which a top-1 router sends to one expert of its one layer."""
    experts = np.concatenate([np.full((100, 1, 1), 3), random_experts(40, 1, 1)])
    assert counted(logged(experts, sequence_T=requests(100, 40))) == (0, 0, 0)


def test_weights_tell_warmup_from_repetition() -> None:
    """The same 32 rows of choices, with weights that are alike and with weights that differ."""
    experts = np.concatenate([np.repeat(random_experts(1, 1), 32, axis=0), random_experts(40, 1)])
    drawn = np.random.default_rng(1).random(experts.shape)
    alike = np.concatenate([np.full((32, 1, 2), 0.125), drawn[32:]])
    assert counted(logged(experts, sequence_T=requests(32, 40), weights_TLK=alike)) == (0, 0, 32)
    assert counted(logged(experts, sequence_T=requests(32, 40), weights_TLK=drawn)) == (0, 0, 0)
    assert counted(logged(experts, sequence_T=requests(32, 40))) == (0, 0, 0)


def test_rows_without_choices_are_absent() -> None:
    experts = random_experts(6)
    experts[[0, 4]] = -1
    assert counted(logged(experts)) == (2, 0, 0)
    assert counted(logged(experts), keep_padding=True, keep_warmup=True) == (2, 0, 0)


STEP = np.zeros(5, int)
"""Five rows of one step."""


def test_a_row_that_repeats_a_token_of_its_step_is_padding() -> None:
    experts = random_experts(3)[[0, 1, 2, 2, 2]]
    choices = logged(experts, step_T=STEP, sequence_T=np.array([0, 1, 2, 2, 2]), position_T=np.array([7, 4, 9, 9, 9]))
    assert counted(choices) == (0, 2, 0)
    assert counted(choices, keep_padding=True) == (0, 0, 0)


def test_padding_at_position_0_has_no_token() -> None:
    experts = random_experts(3)[[0, 1, 2, 2, 2]]
    choices = logged(experts, step_T=STEP, sequence_T=np.array([0, 1, 2, 2, 2]), position_T=np.array([7, 4, 0, 0, 0]))
    assert counted(choices) == (0, 3, 0)


def test_the_same_prompt_in_several_sequences_is_no_padding() -> None:
    """Greedy decoding of five requests with one prompt: all rows of a step are alike, and all are tokens."""
    experts = random_experts(1)[[0] * 5]
    assert counted(logged(experts, step_T=STEP, sequence_T=np.arange(5), position_T=np.full(5, 8))) == (0, 0, 0)


def test_a_token_that_is_repeated_in_further_steps_is_no_padding() -> None:
    assert counted(logged(random_experts(1)[[0] * 5])) == (0, 0, 0)


def test_memory_behind_the_last_choice_of_a_sequence_is_padding() -> None:
    experts = random_experts(6)
    experts[[2, 5]] = 0
    assert counted(logged(experts, sequence_T=requests(3, 3))) == (0, 2, 0)
    assert counted(logged(experts, sequence_T=requests(3, 3)), keep_padding=True) == (0, 2, 0)


def test_zeros_of_a_top_1_router_are_choices() -> None:
    assert counted(logged(np.zeros((6, 2, 1), int))) == (0, 0, 0)
