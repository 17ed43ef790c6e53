"""The routing pass keeps every decision of every real token, in order, and nothing of the padding."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moeprof.instrument.routing import RoutingRecorder
from moeprof.instrument.step import Step, make_step
from moeprof.records.errors import MoeprofError
from moeprof.records.traces.routing_trace import COLUMNS, TraceHeader

HEADER = TraceHeader(workload="lm", phase="score", variant="static", num_experts=8, top_k=2, layers=["1", "3"])


def a_step(index: int = 0, domain: str = "prose", real: list[bool] | None = None) -> Step:
    """Two sequences of two tokens."""
    real_BL = np.array([True] * 4 if real is None else real).reshape(2, 2)
    return make_step("score", index, domain, np.array([[10, 11], [12, 13]]), real_BL, np.array([6, 7]), 0, "cpu")


EXPERTS = torch.tensor([[0, 1], [2, 3], [4, 5], [6, 7]])
PROBS = torch.tensor([[0.5, 0.25], [0.5, 0.125], [0.25, 0.125], [0.75, 0.125]])
DROPPED = torch.tensor([[False, True], [False, False], [False, False], [True, True]])


def rows_of(recorder: RoutingRecorder) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = recorder.trace(HEADER).validate().table.to_pylist()
    return rows


def test_a_row_says_everything_about_one_choice() -> None:
    recorder = RoutingRecorder()
    recorder.routed("3", a_step(index=9), EXPERTS, PROBS, DROPPED, 8)
    rows = rows_of(recorder)
    assert len(rows) == 8
    assert rows[5] == {
        "step": 9,
        "sequence": 7,
        "position": 0,
        "token_id": 12,
        "layer": "3",
        "slot": 1,
        "expert": 5,
        "weight": 0.125,
        "domain": "prose",
        "dropped": False,
        "residency": None,
    }
    assert [row["expert"] for row in rows] == list(range(8))
    assert [row["slot"] for row in rows] == [0, 1] * 4
    assert [row["dropped"] for row in rows] == DROPPED.flatten().tolist()


@given(st.lists(st.booleans(), min_size=4, max_size=4))
def test_padding_is_left_out(real: list[bool]) -> None:
    recorder = RoutingRecorder()
    recorder.routed("1", a_step(real=real), EXPERTS, PROBS, DROPPED, 8)
    kept = [token for token in range(4) if real[token]]
    rows = rows_of(recorder)
    assert [row["token_id"] for row in rows] == [10 + token for token in kept for _ in range(2)]
    assert [row["expert"] for row in rows] == [expert for token in kept for expert in EXPERTS[token].tolist()]
    assert [row["weight"] for row in rows] == [prob for token in kept for prob in PROBS[token].tolist()]
    assert [num_rows for _, _, num_rows, _ in recorder.steps] == [4]


def test_layers_and_steps_follow_in_the_order_in_which_they_decided() -> None:
    recorder = RoutingRecorder()
    for index, domain in [(0, "prose"), (1, "code")]:
        for layer in ("1", "3"):
            recorder.routed(layer, a_step(index, domain), EXPERTS, PROBS, DROPPED, 8)
    rows = rows_of(recorder)
    found = [(row["step"], row["domain"], row["layer"]) for row in rows[::8]]
    assert found == [(0, "prose", "1"), (0, "prose", "3"), (1, "code", "1"), (1, "code", "3")]
    assert [(layer, step.index, num_rows) for layer, step, num_rows, _ in recorder.steps] == [
        ("1", 0, 4),
        ("3", 0, 4),
        ("1", 1, 4),
        ("3", 1, 4),
    ]


def test_the_rows_that_layers_computed_are_kept_by_layer_and_step() -> None:
    recorder = RoutingRecorder()
    for index, layer, num_rows in [(0, "1", 40), (0, "3", 44), (2, "1", 8)]:
        recorder.routed(layer, a_step(index), EXPERTS, PROBS, DROPPED, num_rows)
    found = [(layer, step.index, expert_rows) for layer, step, _, expert_rows in recorder.steps]
    assert found == [("1", 0, 40), ("3", 0, 44), ("1", 2, 8)]


def test_a_trace_has_the_columns_and_types_of_the_design_even_when_empty() -> None:
    recorder = RoutingRecorder()
    assert recorder.trace(HEADER).table.schema.equals(COLUMNS)
    recorder.routed("1", a_step(), EXPERTS, PROBS, DROPPED, 8)
    assert recorder.trace(HEADER).table.schema.equals(COLUMNS)


def test_a_single_choice_in_low_precision_is_recorded_too() -> None:
    recorder = RoutingRecorder()
    recorder.routed("1", a_step(), EXPERTS[:, :1], PROBS[:, :1].bfloat16(), DROPPED[:, :1], 8)
    assert [row["weight"] for row in rows_of(recorder)] == [0.5, 0.5, 0.25, 0.75]


def test_the_entropy_of_the_gates_is_summed_over_real_tokens_in_nats() -> None:
    gates_TE = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.5, 0.25, 0.25], [0.9, 0.05, 0.05]])
    recorder = RoutingRecorder()
    recorder.scored("1", a_step(real=[True, True, True, False]), gates_TE)
    recorder.scored("3", a_step(real=[False] * 4), gates_TE)
    recorder.scored("1", a_step(index=1, domain="code"), gates_TE[:1].expand(4, 3))
    prose, code = recorder.entropies()
    assert (prose.layer, prose.domain, prose.tokens) == ("1", "prose", 3)
    assert prose.total == pytest.approx(math.log(2) + 0 + 1.5 * math.log(2))
    assert prose.mean == pytest.approx(2.5 / 3 * math.log(2))
    assert (code.layer, code.domain, code.tokens) == ("1", "code", 4)
    assert code.mean == pytest.approx(math.log(2))


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
def test_a_softmax_that_is_not_finite_is_named_with_layer_and_step(poison: float) -> None:
    recorder = RoutingRecorder()
    recorder.routed("3", a_step(index=7), EXPERTS, PROBS.clone().fill_(poison), DROPPED, 8)
    with pytest.raises(MoeprofError, match=r"layer 3, score step 7: the router's softmax is not finite") as caught:
        recorder.trace(HEADER)
    assert str(caught.value).count("\n") == 1
    assert caught.value.exit_code == 1
