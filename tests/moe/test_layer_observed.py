"""What the layer tells its observer: regions, scores, decisions, drops, and the rows that it computed."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from moeprof.analysis.routing.capacity import StepSize, capacity_metrics
from moeprof.analysis.routing.metrics import routing_rows
from moeprof.instrument.probe import Probe, observed_by
from moeprof.instrument.routing import RoutingRecorder
from moeprof.instrument.step import Step, make_step
from moeprof.records.errors import MoeprofError
from moeprof.records.recipe.dispatch import DISPATCHES
from moeprof.records.recipe.gating import capacity
from moeprof.records.recipe.variant import Variant
from moeprof.records.traces.routing_trace import TraceHeader

from .drawn import (
    Decided,
    Drawn,
    drawn,
    forced_layer,
    fractions,
    make_layer,
    make_recipe,
    tokens,
    unhurried,
)

ALL_REAL = Step(real_T=None)
DIM = 4
every_dispatch = pytest.mark.parametrize("dispatch", DISPATCHES)


class DecisionRecorder(Probe):
    """Keeps what the layer reports: regions in order, and decisions."""

    def __init__(self) -> None:
        self.regions: list[str] = []
        self.inside = False
        self.scores: list[tuple[str, Step, Tensor]] = []
        self.reports: list[tuple[str, Step, Tensor, Tensor, Tensor, int]] = []

    @contextmanager
    def marked(self, name: str) -> Iterator[None]:
        assert not self.inside, "regions never nest"
        self.inside = True
        self.regions.append(name)
        yield
        self.inside = False

    def region(self, name: str, layer: str) -> AbstractContextManager[None]:
        return self.marked(f"{name} of {layer}")

    def scored(self, layer: str, step: Step, gates_TE: Tensor) -> None:
        self.scores.append((layer, step, gates_TE))

    def routed(self, layer: str, step: Step, experts_TK: Tensor, probs_TK: Tensor, dropped_TK: Tensor, num_rows: int) -> None:
        self.reports.append((layer, step, experts_TK, probs_TK, dropped_TK, num_rows))


@every_dispatch
def test_the_four_parts_are_regions_in_order_that_never_nest(dispatch: str) -> None:
    witness, layer = DecisionRecorder(), make_layer(make_recipe(experts=4))
    layer.variant = Variant(dispatch)
    with observed_by(witness):
        layer(tokens(5, DIM), ALL_REAL)
    assert witness.regions == ["gate of 0", "dispatch of 0", "experts of 0", "combine of 0"]


def rows_of(dispatch: str, case: Drawn, fraction: float) -> int:
    """By statement 2: E x ceil(C x S), E times the largest load, or k for every token that is no padding."""
    if dispatch == "dynamic":
        return case.top_k * case.num_real
    return case.num_experts * (max(*case.loads, 1) if dispatch == "tutel-dropless" else capacity(fraction, case.num_tokens))


@every_dispatch
@unhurried
@given(case=drawn(), fraction=fractions())
def test_statement_2_an_observer_learns_decisions_before_renormalising_what_was_dropped_and_how_many_rows(
    dispatch: str, case: Drawn, fraction: float
) -> None:
    layer, witness, step = forced_layer(case, fraction), DecisionRecorder(), case.step
    layer.variant = Variant(dispatch)
    with observed_by(witness):
        layer(tokens(case.num_tokens, DIM), step)
    ((name, seen, experts_TK, probs_TK, dropped_TK, num_rows),) = witness.reports
    assert (name, seen) == ("0", step)
    assert experts_TK.tolist() == case.experts
    assert probs_TK.tolist() == case.probs
    capped = dispatch in ("static", "tutel")
    assert dropped_TK.tolist() == (case.gated(capacity(fraction, case.num_tokens)) if capped else case.dropless).dropped
    assert num_rows == rows_of(dispatch, case, fraction)


@every_dispatch
@unhurried
@given(case=drawn(), fraction=fractions())
def test_the_waste_that_is_told_follows_from_the_rows_that_were_recorded(dispatch: str, case: Drawn, fraction: float) -> None:
    layer, recorder = forced_layer(case, fraction), RoutingRecorder()
    layer.variant = Variant(dispatch)
    with observed_by(recorder):
        layer(tokens(case.num_tokens, DIM), case.step)
    ((_, _, rows_seen, rows_computed),) = recorder.steps
    assert rows_computed == rows_of(dispatch, case, fraction)
    recipe = make_recipe(experts=case.num_experts, top_k=case.top_k, capacity_fraction=fraction)
    size = StepSize("prose", rows_seen, case.num_real, rows_computed)
    told = capacity_metrics(recipe, Variant(dispatch).label, [size])
    if case.num_real:
        assert told["expert_slots"] == rows_of(dispatch, case, fraction)
        assert told["waste_factor"] == rows_of(dispatch, case, fraction) / (case.top_k * case.num_real)
    else:
        assert told == {}


@unhurried
@given(drawn(), st.integers(1, 40))
def test_statement_4_the_logged_overflow_follows_from_the_loads(case: Drawn, percent: int) -> None:
    """Over a recorded trace: 100 x what is above capacity of the first and then of the second choices, per token."""
    fraction, layer, recorder = percent / 100, forced_layer(case, percent / 100), RoutingRecorder()
    place_T = np.arange(case.num_tokens, dtype=np.int32)
    with observed_by(recorder):
        layer(tokens(case.num_tokens, DIM), Step(case.step.real_T, None, "score", 0, "prose", place_T * 0, place_T, place_T))
    header = TraceHeader(
        workload="lm", phase="score", variant="static", num_experts=case.num_experts, top_k=case.top_k, layers=["0"]
    )
    logged = {row.metric: row.value for row in routing_rows(recorder.trace(header)) if (row.layer, row.domain) == ("0", "")}
    num_real, slots = sum(case.real), capacity(fraction, case.num_tokens)
    for choice in range(min(case.top_k, 2) if num_real else 0):
        loads = [[len(case.wants(rank, expert)) for rank in range(choice + 1)] for expert in range(case.num_experts)]
        over = sum(max(0, sum(load) - slots) - max(0, sum(load[:-1]) - slots) for load in loads)
        assert logged[f"overflow_expert{choice + 1}"] == pytest.approx(100 * over / num_real)


@pytest.mark.parametrize("forced", [False, True])
def test_an_observer_sees_the_routers_own_softmax_over_all_experts_once_per_step(forced: bool) -> None:
    layer, witness, x_TD = make_layer(make_recipe(experts=4)), DecisionRecorder(), tokens(5, DIM)
    if forced:
        layer.router.forced = Decided(torch.tensor([[0, 1]] * 5))
    with observed_by(witness):
        layer(x_TD, ALL_REAL)
    ((name, step, gates_TE),) = witness.scores
    assert (name, step) == ("0", ALL_REAL)
    torch.testing.assert_close(gates_TE, torch.softmax(x_TD @ layer.router.weight.T, dim=1))


@every_dispatch
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), float("-inf")])
def test_a_token_that_is_not_finite_is_named_with_layer_and_step_under_every_dispatch(dispatch: str, poison: float) -> None:
    layer, recorder, x_TD = make_layer(make_recipe(experts=4, dim=DIM)), RoutingRecorder(), tokens(6, DIM)
    layer.variant = Variant(dispatch)
    x_TD[4, 1] = poison
    step = make_step("score", 7, "prose", np.zeros((2, 3), np.int64), np.ones((2, 3), bool), np.array([0, 1]), 0, "cpu")
    with observed_by(recorder):
        layer(x_TD, step)
    header = TraceHeader(workload="lm", phase="score", variant=dispatch, num_experts=4, top_k=2, layers=["0"])
    with pytest.raises(MoeprofError, match=r"layer 0, score step 7: the router's softmax is not finite"):
        recorder.trace(header)


@every_dispatch
def test_an_observer_changes_no_bit_of_the_output(dispatch: str) -> None:
    layer, x_TD = make_layer(make_recipe(experts=4, capacity_fraction=0.3)), tokens(20, DIM)
    layer.variant = Variant(dispatch)
    alone = layer(x_TD, ALL_REAL)
    with observed_by(DecisionRecorder()):
        assert torch.equal(layer(x_TD, ALL_REAL), alone)
