"""What a step asks of each expert follows from its most important choice."""

import numpy as np

from moeprof.policies.offloading.requests import ExpertRequests, requests_of
from moeprof.policies.offloading.rule import HIGH, LOW, SKIP, LoadRule


def test_a_step_asks_once_for_each_expert_as_its_most_important_choice_asks() -> None:
    rows = [  # sequence, token, layer, expert, unimportance
        (0, 3, 1, 5, 0.95),
        (0, 3, 0, 7, 0.95),
        (0, 3, 0, 2, 0.7),
        (0, 3, 0, 2, 0.0),
        (0, 4, 0, 2, 0.7),
        (1, 0, 0, 2, 0.0),
    ]
    sequence, token, layer, expert, unimportance = map(np.array, zip(*rows, strict=True))
    found = requests_of(sequence, token, layer, expert, unimportance, LoadRule())
    assert list(zip(*(column.tolist() for column in found), strict=True)) == [
        (0, 2, 3, 0, HIGH),
        (0, 7, 3, 0, SKIP),
        (1, 5, 3, 0, SKIP),
        (0, 2, 4, 0, LOW),
        (0, 2, 0, 1, HIGH),
    ]
    assert found.starts().tolist() == [0, 2, 3, 4, 5]
    assert found.part(1, 3).starts().tolist() == [0, 1, 2]


def test_no_choices_are_no_requests_and_no_steps() -> None:
    none = np.array([], np.int64)
    found = requests_of(none, none, none, none, none.astype(float), LoadRule())
    assert [len(column) for column in found] == [0] * 5
    assert found.starts().tolist() == [0]
    assert ExpertRequests(*[np.ones(1, np.int64)] * 5).starts().tolist() == [0, 1]
