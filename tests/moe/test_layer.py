"""The layer as a whole: static gating beside the dropless reference, what it costs, and what it tells its observer."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from moeprof.analysis.routing import routing_rows
from moeprof.instrument.probe import Probe, observed_by
from moeprof.instrument.routing import RoutingRecorder
from moeprof.instrument.step import Step
from moeprof.moe.dispatch import static
from moeprof.moe.layer import MoELayer, force_routing, moe_layers, use_variant
from moeprof.records.gating import capacity
from moeprof.records.routing_trace import TraceHeader
from moeprof.records.variant import STATIC

from . import plain
from .drawn import (
    Decided,
    Drawn,
    WaveStore,
    decided,
    drawn,
    fractions,
    make_layer,
    make_recipe,
    parameters_of,
    rows_that_differ,
    tokens,
    unhurried,
)

ALL_REAL = Step(real_T=None)
DIM = 4


def forced_layer(case: Drawn, capacity_fraction: float = 1.0, masking: float = 0.0) -> MoELayer:
    """A layer of the case's shape that decides as the case says."""
    recipe = make_recipe(
        experts=case.num_experts, top_k=case.top_k, capacity_fraction=capacity_fraction, dim=DIM, masking=masking
    )
    layer = make_layer(recipe)
    layer.router.forced = decided(case)
    return layer


def static_and_dropless(layer: MoELayer, x_TD: Tensor, step: Step) -> tuple[Tensor, Tensor]:
    """The outputs of the same weights under static gating and of the reference."""
    use_variant(layer, STATIC)
    y_TD = layer(x_TD, step)
    use_variant(layer, None)
    return y_TD, layer(x_TD, step)


@unhurried
@given(drawn(max_tokens=8), fractions(), st.sampled_from([0.0, 0.2]))
def test_static_gating_is_the_plain_layer_with_its_drops(case: Drawn, fraction: float, masking: float) -> None:
    layer, x_TD = forced_layer(case, fraction, masking), tokens(case.num_tokens, DIM)
    weights = case.gated(capacity(fraction, case.num_tokens)).weights
    expected = plain.layer(x_TD.double().numpy(), case.experts, weights, parameters_of(layer), "relu", 1 - masking)
    torch.testing.assert_close(layer(x_TD, case.step), torch.tensor(expected).float(), rtol=1e-4, atol=1e-4)


@unhurried
@given(drawn())
def test_statement_3_with_room_for_everybody_static_and_dropless_agree(case: Drawn) -> None:
    layer = forced_layer(case, capacity_fraction=1.0)
    static_TD, dropless_TD = static_and_dropless(layer, tokens(case.num_tokens, DIM), case.step)
    torch.testing.assert_close(static_TD, dropless_TD, rtol=1e-5, atol=1e-5)


@unhurried
@given(drawn(), fractions())
def test_statement_3_outputs_differ_on_exactly_the_tokens_that_lost_a_choice(case: Drawn, fraction: float) -> None:
    layer = forced_layer(case, fraction)
    static_TD, dropless_TD = static_and_dropless(layer, tokens(case.num_tokens, DIM), case.step)
    assert rows_that_differ(static_TD, dropless_TD) == case.gated(capacity(fraction, case.num_tokens)).losers


def skewed(num_tokens: int = 256, num_experts: int = 16) -> list[list[int]]:
    """First choices in turns; of the second ones each of eight hot experts gets 26 and each of eight cold ones 6."""
    firsts = [token % num_experts for token in range(num_tokens)]
    seconds: list[int] = []
    left = {expert: 26 if expert < 8 else 6 for expert in range(num_experts)}
    for first in firsts:
        second = max((expert for expert in left if expert != first), key=lambda expert: left[expert])
        left[second] -= 1
        seconds.append(second)
    assert set(left.values()) == {0}
    return [list(pair) for pair in zip(firsts, seconds, strict=True)]


@pytest.mark.parametrize(("fraction", "slots", "lost"), [(0.1, 416, 128), (0.25, 1024, 0), (1.0, 4096, 0)])
def test_statement_3_with_the_papers_numbers(fraction: float, slots: int, lost: int) -> None:
    """S = 256, E = 16: at C = 0.1 experts with 42 of 512 choices take 26, so that 128 tokens lose one, and those differ."""
    experts, probs = skewed(), [[0.5, 0.25]] * 256
    layer = make_layer(make_recipe(experts=16, capacity_fraction=fraction, dim=DIM))
    layer.router.forced = Decided(torch.tensor(experts), torch.tensor(probs))
    x_TD = tokens(256, DIM)
    sent = static.dispatch(x_TD, layer.router(x_TD, ALL_REAL), fraction)
    assert len(sent.rows.rows_RD) == slots
    static_TD, dropless_TD = static_and_dropless(layer, x_TD, ALL_REAL)
    losers = plain.gated(experts, probs, [True] * 256, 16, slots // 16).losers
    assert len(losers) == lost
    assert set(sent.dropped_TK.any(dim=1).nonzero().flatten().tolist()) == losers
    assert rows_that_differ(static_TD, dropless_TD) == losers


@pytest.mark.parametrize("sizes", [[16], [8, 8], [5, 5, 6], [1] * 16])
def test_experts_in_waves_give_the_layer_the_same_output(sizes: list[int]) -> None:
    layer = make_layer(make_recipe(experts=16, capacity_fraction=0.1, dim=DIM))
    x_TD = tokens(64, DIM)
    resident_TD = layer(x_TD, ALL_REAL)
    layer.store = WaveStore(layer.experts.weights, sizes)
    torch.testing.assert_close(layer(x_TD, ALL_REAL), resident_TD)


def test_expert_outputs_shrink_by_the_share_that_training_masked() -> None:
    """NLLB multiplies expert outputs by 1 - 0.2 at inference, under static gating as in the reference."""
    x_TD = tokens(8, DIM)
    whole = static_and_dropless(make_layer(make_recipe(experts=4)), x_TD, ALL_REAL)
    masked = static_and_dropless(make_layer(make_recipe(experts=4, masking=0.2)), x_TD, ALL_REAL)
    for y_TD, shrunk_TD in zip(whole, masked, strict=True):
        torch.testing.assert_close(shrunk_TD, 0.8 * y_TD)


def test_the_same_input_gives_the_same_bits_again() -> None:
    layer, x_TD = make_layer(make_recipe(experts=8, capacity_fraction=0.2)), tokens(50, DIM)
    assert torch.equal(layer(x_TD, ALL_REAL), layer(x_TD, ALL_REAL))


def test_a_bfloat16_layer_stays_near_the_float32_one() -> None:
    layer, x_TD = make_layer(make_recipe(experts=8, dim=DIM)), tokens(50, DIM).bfloat16()
    routing = layer.router(x_TD, ALL_REAL)
    exact_TD = layer(x_TD.float(), ALL_REAL)
    layer.experts.bfloat16()
    y_TD = layer(x_TD, ALL_REAL)
    assert y_TD.dtype == torch.bfloat16
    assert routing.probs_TK.dtype == torch.float32
    torch.testing.assert_close(y_TD.float(), exact_TD, rtol=0.05, atol=0.2)


# What it costs


def meta_layer(num_tokens: int, *, fraction: float, **shape: int) -> tuple[MoELayer, Tensor]:
    """A layer and tokens with shapes and no values."""
    with torch.device("meta"):
        layer = MoELayer("1", make_recipe(capacity_fraction=fraction, **shape)).requires_grad_(False)
        return layer, torch.empty(num_tokens, shape["dim"])


def flops(num_tokens: int, **shape: int | float) -> tuple[int, int]:
    """Of the products with masks (the gate's taken off), and of the experts' products, as torch counts them."""
    fraction, sizes = float(shape.pop("fraction")), {name: int(size) for name, size in shape.items()}
    layer, x_TD = meta_layer(num_tokens, fraction=fraction, **sizes)
    with FlopCounterMode(display=False) as counter:
        layer(x_TD, ALL_REAL)
    counts = counter.get_flop_counts()["Global"]
    gate = 2 * num_tokens * sizes["dim"] * sizes["experts"]
    return counts[torch.ops.aten.mm] - gate, counts[torch.ops.aten.baddbmm]


LM = {"experts": 512, "dim": 1024, "ffn_dim": 4096, "fraction": 0.05}
MT = {"experts": 128, "dim": 2048, "ffn_dim": 8192, "fraction": 1.0}


@pytest.mark.parametrize(
    ("shape", "num_tokens", "dispatch_gflop", "ffn_gflop", "ratio_to_useful"),
    [
        (LM, 2048, 221.2, 884.8, 6.44),
        (LM, 4096, 880.5, 1760.9, 12.81),
        (MT, 512, 137.4, 4398.0, 4.00),
        (MT, 2048, 2199.0, 17592.0, 16.0),
    ],
)
def test_the_flops_of_the_anchor_table(
    shape: dict[str, float], num_tokens: int, dispatch_gflop: float, ffn_gflop: float, ratio_to_useful: float
) -> None:
    masks, experts = flops(num_tokens, **shape)
    useful = 2 * num_tokens * 4 * shape["dim"] * shape["ffn_dim"]
    assert masks / 2 / 1e9 == pytest.approx(dispatch_gflop, abs=0.05)
    assert experts / 1e9 == pytest.approx(ffn_gflop, rel=1e-4)
    assert masks / useful == pytest.approx(ratio_to_useful, abs=0.006)


def test_statement_9_doubling_the_capacity_fraction_doubles_the_flops_of_the_experts() -> None:
    shape = {"experts": 512, "dim": 64, "ffn_dim": 256}
    (masks, experts), (more_masks, more_experts) = (flops(640, **shape, fraction=fraction) for fraction in (0.05, 0.1))
    assert more_experts == 2 * experts
    assert more_masks == 2 * masks


def test_the_layer_of_lm_15b_runs_on_fake_tensors_without_looking_at_a_value() -> None:
    """4096 tokens, 512 experts, c = 205: FakeTensorMode refuses every operation whose result depends on the data."""
    recipe = make_recipe(experts=512, capacity_fraction=0.05, dim=768, ffn_dim=3072, activation="gelu")
    with FakeTensorMode(allow_non_fake_inputs=False):
        layer = MoELayer("1", recipe).requires_grad_(False)
        for name, parameter in list(layer.experts.named_parameters()):
            setattr(layer.experts, name, nn.Parameter(parameter.bfloat16(), requires_grad=False))
        step = Step(real_T=torch.ones(4096, dtype=torch.bool))
        witness = Witness()
        with observed_by(witness):
            y_TD = layer(torch.empty(4096, 768, dtype=torch.bfloat16), step)
    assert (tuple(y_TD.shape), y_TD.dtype) == ((4096, 768), torch.bfloat16)
    assert witness.reports[0][-1].shape == (4096, 2)


# What it tells its observer


class Witness(Probe):
    """Keeps what the layer reports: regions in order, and decisions."""

    def __init__(self) -> None:
        self.regions: list[str] = []
        self.inside = False
        self.scores: list[tuple[str, Step, Tensor]] = []
        self.reports: list[tuple[str, Step, Tensor, Tensor, Tensor]] = []

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

    def routed(self, layer: str, step: Step, experts_TK: Tensor, probs_TK: Tensor, dropped_TK: Tensor) -> None:
        self.reports.append((layer, step, experts_TK, probs_TK, dropped_TK))


def test_the_four_parts_are_regions_in_order_that_never_nest() -> None:
    witness = Witness()
    with observed_by(witness):
        make_layer(make_recipe(experts=4))(tokens(5, DIM), ALL_REAL)
    assert witness.regions == ["gate of 0", "dispatch of 0", "experts of 0", "combine of 0"]


@unhurried
@given(drawn(), fractions())
def test_an_observer_learns_decisions_before_renormalising_and_what_was_dropped(case: Drawn, fraction: float) -> None:
    layer, witness, step = forced_layer(case, fraction), Witness(), case.step
    with observed_by(witness):
        layer(tokens(case.num_tokens, DIM), step)
    ((name, seen, experts_TK, probs_TK, dropped_TK),) = witness.reports
    assert (name, seen) == ("0", step)
    assert experts_TK.tolist() == case.experts
    assert probs_TK.tolist() == case.probs
    assert dropped_TK.tolist() == case.gated(capacity(fraction, case.num_tokens)).dropped


@unhurried
@given(drawn(), st.integers(1, 40))
def test_statement_4_the_logged_overflow_follows_from_the_loads(case: Drawn, percent: int) -> None:
    """Over a recorded trace: 100 x what is above capacity of the first and then of the second choices, per token."""
    fraction, layer, recorder = percent / 100, forced_layer(case, percent / 100), RoutingRecorder()
    place_T = np.arange(case.num_tokens, dtype=np.int32)
    with observed_by(recorder):
        layer(tokens(case.num_tokens, DIM), Step(case.step.real_T, "score", 0, "prose", place_T * 0, place_T, place_T))
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
    layer, witness, x_TD = make_layer(make_recipe(experts=4)), Witness(), tokens(5, DIM)
    if forced:
        layer.router.forced = Decided(torch.tensor([[0, 1]] * 5))
    with observed_by(witness):
        layer(x_TD, ALL_REAL)
    ((name, step, gates_TE),) = witness.scores
    assert (name, step) == ("0", ALL_REAL)
    torch.testing.assert_close(gates_TE, torch.softmax(x_TD @ layer.router.weight.T, dim=1))


def test_an_observer_changes_no_bit_of_the_output() -> None:
    layer, x_TD = make_layer(make_recipe(experts=4, capacity_fraction=0.3)), tokens(20, DIM)
    alone = layer(x_TD, ALL_REAL)
    with observed_by(Witness()):
        assert torch.equal(layer(x_TD, ALL_REAL), alone)


# Layers of a model


def test_variants_and_forced_decisions_reach_every_layer_of_a_model_and_can_be_taken_back() -> None:
    model = nn.Sequential(
        nn.Linear(2, 2), nn.Sequential(make_layer(make_recipe(experts=4))), make_layer(make_recipe(experts=4))
    )
    layers = moe_layers(model)
    assert layers == [model[1][0], model[2]]
    forced = Decided(torch.zeros(1, 2, dtype=torch.int64))
    use_variant(model, None)
    force_routing(model, forced)
    assert [(layer.variant, layer.router.forced) for layer in layers] == [(None, forced)] * 2
    use_variant(model, STATIC)
    force_routing(model, None)
    assert [(layer.variant, layer.router.forced) for layer in layers] == [(STATIC, None)] * 2
