"""Recall, precision and intervals of small cases that are counted by hand."""

import numpy as np
import pytest
import torch

from moeprof.studies.fit_predictor.judging import Scores, advantages, frequency, hits_of, previous, rates, token_table
from moeprof.studies.fit_predictor.lessons import StackLessons


def lessons(tokens: list[list[int]], experts: list[list[int]]) -> StackLessons:
    """Sequences of tokens, one choice of four experts each; the router is as sure of every choice."""
    experts_TK = torch.tensor([expert for row in experts for expert in row])[:, None]
    gates_TE = torch.full((len(experts_TK), 4), 0.1).scatter_(1, experts_TK, 0.7)
    sequence_T = torch.tensor([number for number, row in enumerate(tokens) for _ in row])
    token_T = torch.tensor([token for row in tokens for token in row])
    return StackLessons(sequence_T, token_T, torch.zeros(len(token_T), 2), {"1": gates_TE}, {"1": experts_TK})


FITTED = lessons([[7, 7, 8, 9]], [[2, 2, 2, 1]])
JUDGED = lessons([[7, 8, 5], [9, 9]], [[2, 1, 1], [1, 3]])


@pytest.mark.parametrize(
    ("method", "hits"),
    [
        (frequency(FITTED), [1, 0]),  # always 2
        (token_table(FITTED), [1, 1]),  # 2, 2, 2 (an unknown token: the most frequent), then 1, 1
        (previous(FITTED), [2, 0]),  # 2 (the most frequent), 2, 1; then 2, 1
    ],
)
def test_hits_by_document(method: Scores, hits: list[int]) -> None:
    found = [hit for hit in hits_of("decoder", JUDGED, np.array([0, 0, 0, 1, 1]), 2, {"method": method}) if hit.asked == 1]
    assert [(hit.layer, hit.hits_M.tolist(), hit.choices_M.tolist()) for hit in found] == [("1", hits, [3, 2])]


def test_the_token_before_has_the_order_of_its_routers_distribution() -> None:
    scores = previous(FITTED)(JUDGED)["1"]
    assert scores[1].tolist() == JUDGED.gates["1"][0].tolist()
    assert scores[3].tolist() == [0, 0.25, 0.75, 0]


def test_recall_and_precision_at_one_two_and_four_experts_and_over_layers() -> None:
    hits = list(hits_of("decoder", JUDGED, np.array([0, 0, 0, 1, 1]), 2, {"frequency": frequency(FITTED)}))
    found = {(rate.layer, rate.asked): (rate.recall, rate.precision) for rate in rates(hits, 1)}
    assert found["1", 1] == (0.2, 0.2)
    assert found["1", 2] == (0.8, 0.4)  # 2 and 1
    assert found["1", 4] == (1, 0.25)
    assert found["", 2] == found["1", 2]


def test_an_advantage_is_the_difference_of_recalls_with_an_interval_over_documents() -> None:
    many = lessons([[7, 8]] * 50, [[2, 2]] * 25 + [[2, 1]] * 25)
    document_T = np.repeat(np.arange(50), 2)
    methods = {"sida": token_table(FITTED), "previous": previous(FITTED), "other": lambda _: {"1": torch.eye(4)[[0] * 100]}}
    found = {each.method: each for each in advantages(list(hits_of("decoder", many, document_T, 50, methods)), 1, "sida")}
    assert (found["previous"].gain, found["previous"].low, found["previous"].high) == (0, 0, 0)
    assert found["previous"].verdict == "no better"
    other = found["other"]
    assert other.gain == 0.75
    # documents gain 1 or 0.5 in equal numbers: the standard error is 0.25 / sqrt(50) = 0.035
    assert (other.low, other.high) == (
        pytest.approx(0.75 - 1.96 * 0.0354, abs=0.01),
        pytest.approx(0.75 + 1.96 * 0.0354, abs=0.01),
    )
    assert other.verdict == "better"
