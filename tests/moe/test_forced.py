"""Forced decisions: drawn from a distribution by token alone, or replayed from a trace, and then final."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from moeprof.instrument.probe import observed_by
from moeprof.instrument.routing import RoutingRecorder
from moeprof.instrument.step import Step
from moeprof.moe.forced import RecordedSource, ZipfSource, make_forced_routing
from moeprof.records.arrays import Ints
from moeprof.records.errors import MoeprofError, UsageError
from moeprof.records.recipe.routing_source import parse_routing_source
from moeprof.records.traces.routing_trace import RoutingTrace, TraceHeader

from .drawn import Drawn, decided, drawn, make_layer, make_recipe, tokens, unhurried

CPU = torch.device("cpu")


def step_of(places: list[tuple[int, int]], *, phase: str = "score", index: int = 0, real: list[bool] | None = None) -> Step:
    """A step of tokens at these (sequence, position)."""
    sequence_T, position_T = (np.array(column, np.int32) for column in zip(*places, strict=True))
    real_T = None if real is None else torch.tensor(real)
    token_T = np.zeros(len(places), np.int32)
    return Step(real_T, None, phase, index, "prose", sequence_T, position_T, token_T)


def grid(num_sequences: int, num_positions: int) -> Step:
    """Every position of every sequence."""
    return step_of([(sequence, position) for sequence in range(num_sequences) for position in range(num_positions)])


def drawn_by(text: str, step: Step, *, num_experts: int, top_k: int = 2, layer: str = "1") -> Ints:
    """Decisions (T, K) of a source such as `zipf:1.2`."""
    experts_TK, probs_TK = ZipfSource(parse_routing_source(text), num_experts, top_k).draw(layer, step)
    assert probs_TK is None
    return experts_TK


def zipf(num_experts: int, exponent: float) -> npt.NDArray[np.float64]:
    """Probabilities by rank."""
    weights = np.array([1 / rank**exponent for rank in range(1, num_experts + 1)])
    return weights / weights.sum()


def fits(counts: Ints, probabilities: npt.NDArray[np.float64]) -> bool:
    """A chi-square test at one in ten thousand; the draws are pinned by their seeds, so that it never flickers."""
    return bool(stats.chisquare(counts, probabilities * counts.sum()).pvalue > 1e-4)


# Distributions


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_uniform_first_choices_are_uniform_over_experts(seed: int) -> None:
    experts_TK = drawn_by(f"uniform:seed={seed}", grid(200, 100), num_experts=64, top_k=1)
    assert fits(np.bincount(experts_TK[:, 0], minlength=64), np.full(64, 1 / 64))


@pytest.mark.parametrize("exponent", [0.5, 1.2, 2.0])
def test_zipf_first_choices_fall_with_the_power_of_the_rank(exponent: float) -> None:
    experts_TK = drawn_by(f"zipf:{exponent},sorted", grid(200, 100), num_experts=16)
    assert fits(np.bincount(experts_TK[:, 0], minlength=16), zipf(16, exponent))


def test_the_second_choice_is_drawn_like_the_first_from_the_experts_that_are_left() -> None:
    experts_TK = drawn_by("zipf:1,sorted", grid(300, 100), num_experts=6)
    for first in range(6):
        left = zipf(6, 1.0)
        left[first] = 0
        seconds = experts_TK[experts_TK[:, 0] == first, 1]
        counts = np.bincount(seconds, minlength=6)
        assert counts[first] == 0
        others = np.arange(6) != first
        assert fits(counts[others], left[others] / left.sum())


def test_an_exponent_of_zero_is_uniform() -> None:
    step = grid(20, 20)
    assert np.array_equal(drawn_by("zipf:0,seed=4", step, num_experts=9), drawn_by("uniform:seed=4", step, num_experts=9))


def test_sorted_ids_stand_in_order_of_heat() -> None:
    loads = np.bincount(drawn_by("zipf:1.5,sorted", grid(100, 100), num_experts=8).reshape(-1), minlength=8)
    assert all(hotter > colder for hotter, colder in pairwise(loads))


def test_unsorted_ids_are_a_permutation_of_the_heat_that_changes_with_layer_and_seed() -> None:
    step = grid(100, 100)
    orders = [
        np.argsort(-np.bincount(drawn_by(text, step, num_experts=8, layer=layer)[:, 0], minlength=8), kind="stable").tolist()
        for text, layer in [("zipf:2", "1"), ("zipf:2", "3"), ("zipf:2,seed=1", "1")]
    ]
    assert all(sorted(order) == list(range(8)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


@unhurried
@given(
    st.integers(1, 40),
    st.integers(1, 4),
    st.sampled_from(["uniform", "zipf:3", "zipf:1,sorted,sticky=0.5"]),
    st.integers(0, 99),
)
def test_the_choices_of_a_token_are_distinct_experts(num_experts: int, top_k: int, text: str, seed: int) -> None:
    top_k = min(top_k, num_experts)
    separator = "," if ":" in text else ":"
    experts_TK = drawn_by(f"{text}{separator}seed={seed}", grid(3, 5), num_experts=num_experts, top_k=top_k)
    assert experts_TK.shape == (15, top_k)
    assert experts_TK.min() >= 0
    assert experts_TK.max() < num_experts
    assert all(len(set(row)) == top_k for row in experts_TK.tolist())


def test_a_steep_distribution_over_many_experts_still_gives_distinct_choices() -> None:
    experts_TK = drawn_by("zipf:50,sorted", grid(10, 10), num_experts=512, top_k=4)
    assert (experts_TK == [0, 1, 2, 3]).all()


# Stickiness


@pytest.mark.parametrize("sticky", [0.0, 0.3, 0.9])
def test_a_token_keeps_the_experts_of_the_one_before_it_with_that_probability(sticky: float) -> None:
    experts = drawn_by(f"uniform:sticky={sticky}", grid(100, 200), num_experts=128).reshape(100, 200, 2)
    kept = (experts[:, 1:] == experts[:, :-1]).all(axis=2).mean()
    assert kept == pytest.approx(sticky, abs=0.01)


def test_stickiness_leaves_the_distribution_as_it_is() -> None:
    experts_TK = drawn_by("zipf:1.2,sorted,sticky=0.5", grid(20_000, 2), num_experts=16)
    seconds = experts_TK.reshape(20_000, 2, 2)[:, 1, 0]
    assert fits(np.bincount(seconds, minlength=16), zipf(16, 1.2))


def test_fully_sticky_sequences_never_change_and_differ_from_each_other() -> None:
    experts = drawn_by("uniform:sticky=1", grid(50, 30), num_experts=64).reshape(50, 30, 2)
    assert (experts == experts[:, :1]).all()
    assert len({tuple(first) for first in experts[:, 0].tolist()}) > 40


# Independence


@pytest.mark.parametrize("text", ["uniform:seed=3", "zipf:1.2", "zipf:1,sorted,sticky=0.7"])
@unhurried
@given(places=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 19)), min_size=1, max_size=12))
def test_a_token_gets_the_same_experts_whatever_the_batch_around_it(text: str, places: list[tuple[int, int]]) -> None:
    everywhere = drawn_by(text, grid(10, 20), num_experts=32).reshape(10, 20, 2)
    found = drawn_by(text, step_of(places, phase="decode", index=7), num_experts=32)
    assert found.tolist() == [everywhere[place].tolist() for place in places]


@pytest.mark.parametrize("phase", ["score", "decode"])
def test_a_model_that_is_forced_decides_by_token_even_where_steps_look_alike(phase: str) -> None:
    """Two batches of one sweep may share phase, index and number of rows, and still hold other tokens."""
    forced = make_forced_routing(make_recipe(experts=64, source="uniform"))
    assert forced is not None
    four_by_three = step_of([(sequence, position) for sequence in range(4) for position in range(3)], phase=phase)
    three_by_four = step_of([(sequence, position) for sequence in range(3) for position in range(4)], phase=phase)
    for step in (four_by_three, three_by_four):
        experts_TK, _ = forced.decide("1", step, CPU)
        assert experts_TK.tolist() == drawn_by("uniform", step, num_experts=64).tolist()


def test_layers_and_seeds_draw_independently() -> None:
    step = grid(100, 100)
    draws = [
        drawn_by(text, step, num_experts=16, top_k=1, layer=layer)[:, 0]
        for text, layer in [("uniform", "1"), ("uniform", "3"), ("uniform:seed=1", "1")]
    ]
    for one, other in [(0, 1), (0, 2), (1, 2)]:
        pairs = np.bincount(draws[one] * 16 + draws[other], minlength=256)
        assert fits(pairs, np.full(256, 1 / 256))


def test_neighbouring_tokens_draw_independently() -> None:
    experts = drawn_by("uniform", grid(100, 101), num_experts=16, top_k=1).reshape(100, 101)
    for one, other in [(experts[:, :-1], experts[:, 1:]), (experts[:-1], experts[1:])]:
        pairs = np.bincount((one * 16 + other).reshape(-1), minlength=256)
        assert fits(pairs, np.full(256, 1 / 256))


def test_the_draws_are_the_same_on_every_machine_and_in_every_version() -> None:
    uniform = [[368, 208], [28, 456], [157, 31], [508, 5], [386, 335], [311, 204]]
    assert drawn_by("uniform", grid(2, 3), num_experts=512).tolist() == uniform
    zipf = [[330, 75], [337, 326], [228, 509], [337, 509], [337, 509], [337, 509]]
    assert drawn_by("zipf:1.2,sticky=0.5,seed=7", grid(2, 3), num_experts=512).tolist() == zipf


def test_timed_rounds_only_look_decisions_up() -> None:
    forced = make_forced_routing(make_recipe(experts=8, source="uniform"))
    assert forced is not None
    step = grid(2, 3)
    first, _ = forced.decide("1", step, CPU)
    again, _ = forced.decide("1", step, CPU)
    assert first is again


def test_the_model_itself_decides_where_nothing_is_forced() -> None:
    assert make_forced_routing(make_recipe(experts=8, source="model")) is None


@pytest.mark.parametrize(("batch_size", "bound"), [(48, 96), (96, 128)])
def test_statement_24_a_decode_step_reaches_at_most_k_experts_per_sequence(batch_size: int, bound: int) -> None:
    """MT-like: 128 experts, top-2; with 48 sequences at least a quarter of the experts is inactive by arithmetic."""
    for position in range(20):
        step = step_of([(sequence, position) for sequence in range(batch_size)], phase="decode", index=position)
        active = len(np.unique(drawn_by("uniform", step, num_experts=128)))
        assert active <= bound
        assert 1 - active / 128 >= 1 - bound / 128


# Replay of a trace


def header_of(num_experts: int, top_k: int, phase: str = "score") -> TraceHeader:
    return TraceHeader(workload="lm", phase=phase, variant="static", num_experts=num_experts, top_k=top_k, layers=["0"])


def at_places(case: Drawn, *, phase: str = "score", width: int = 4) -> Step:
    """The case's tokens in sequences of `width` positions."""
    places = [(token // width, token % width) for token in range(case.num_tokens)]
    return step_of(places, phase=phase, real=case.mask)


def recorded(case: Drawn, *, phase: str = "score") -> RoutingTrace:
    """What the routing pass keeps of a layer that decides as the case says."""
    recipe = make_recipe(experts=case.num_experts, top_k=case.top_k, capacity_fraction=0.5)
    layer, recorder = make_layer(recipe), RoutingRecorder()
    layer.router.forced = decided(case)
    with observed_by(recorder):
        layer(tokens(case.num_tokens, 4), at_places(case, phase=phase))
    return recorder.trace(header_of(case.num_experts, case.top_k, phase))


@unhurried
@given(drawn())
def test_the_replay_of_a_trace_gives_the_decisions_it_was_recorded_with(case: Drawn) -> None:
    source = RecordedSource([recorded(case)], case.num_experts, case.top_k)
    experts_TK, probs_TK = source.draw("0", at_places(case))
    assert probs_TK is not None
    for token in range(case.num_tokens):
        if case.real[token]:
            assert experts_TK[token].tolist() == case.experts[token]
            assert probs_TK[token].tolist() == case.probs[token]


def test_a_replayed_layer_gives_the_same_bits_as_the_recorded_one(tmp_path: Path) -> None:
    """Through the file that a run directory keeps."""
    recipe = make_recipe(experts=8, capacity_fraction=0.2)
    step, x_TD, layer, recorder = grid(4, 5), tokens(20, 4), make_layer(recipe), RoutingRecorder()
    with observed_by(recorder):
        own_TD = layer(x_TD, step)
    trace = recorder.trace(header_of(8, 2))
    (tmp_path / "routing").mkdir()
    trace.write(tmp_path / "routing" / trace.file_name)
    for path in (tmp_path, tmp_path / "routing" / trace.file_name):
        replayed = make_layer(recipe)
        replayed.router.weight.zero_()
        replayed.router.forced = make_forced_routing(make_recipe(experts=8, source=f"trace:{path}"))
        assert torch.equal(replayed(x_TD, step), own_TD)


def test_a_replay_finds_tokens_in_batches_of_another_shape() -> None:
    case = Drawn([[float(token == expert) for expert in range(12)] for token in range(12)], None, 2)
    source = RecordedSource([recorded(case)], 12, 2)
    experts_TK, _ = source.draw("0", step_of([(2, 1), (0, 3), (2, 1)], index=5))
    assert experts_TK.tolist() == [case.experts[9], case.experts[3], case.experts[9]]


def test_padding_needs_no_decision_in_the_trace() -> None:
    case = Drawn([[0.5, 0.25, 1.0]] * 4, [True, True, True, False], 2)
    experts_TK, _ = RecordedSource([recorded(case)], 3, 2).draw("0", at_places(case))
    assert experts_TK[:3].tolist() == [[2, 0]] * 3
    assert len(experts_TK) == 4


def test_probabilities_that_a_trace_does_not_know_count_alike() -> None:
    case = Drawn([[0.5, 0.25]], None, 2)
    trace = recorded(case)
    unknown = trace.table.set_column(7, "weight", pa.array([float("nan")] * 2, pa.float32()))
    _, probs_TK = RecordedSource([RoutingTrace(trace.header, unknown)], 2, 2).draw("0", at_places(case))
    assert probs_TK is not None
    assert probs_TK.tolist() == [[0.5, 0.5]]


CASE = Drawn([[0.5, 0.25, 1.0]] * 4, None, 2)


@pytest.mark.parametrize(
    ("step", "where"),
    [
        (step_of([(0, 0), (0, 1), (9, 1)]), "layer 0, phase score, sequence 9, position 1"),
        (step_of([(0, 4)]), "layer 0, phase score, sequence 0, position 4"),
        (step_of([(0, 0)], phase="decode"), "layer 0, phase decode, sequence 0, position 0"),
    ],
)
def test_a_token_that_the_trace_does_not_hold_is_named(step: Step, where: str) -> None:
    with pytest.raises(MoeprofError, match=f"no decision for {where}\n") as caught:
        RecordedSource([recorded(CASE)], 3, 2).draw("0", step)
    assert str(caught.value).count("\n") == 1


def test_a_layer_that_the_trace_does_not_hold_is_named() -> None:
    with pytest.raises(MoeprofError, match="no decision for layer 5, phase score, sequence 0, position 0"):
        RecordedSource([recorded(CASE)], 3, 2).draw("5", grid(1, 1))


@pytest.mark.parametrize(("num_experts", "top_k"), [(4, 2), (3, 1), (128, 8)])
def test_a_trace_of_another_gating_is_refused_with_both_numbers(num_experts: int, top_k: int) -> None:
    with pytest.raises(UsageError, match=f"3 experts and top_k 2, the recipe {num_experts} and {top_k}") as caught:
        RecordedSource([recorded(CASE)], num_experts, top_k)
    assert str(caught.value).count("\n") == 1


def test_a_trace_with_half_of_a_tokens_choices_is_refused() -> None:
    trace = recorded(CASE)
    for rows in (trace.table.slice(1), trace.table.slice(1, 6)):
        with pytest.raises(UsageError, match="choices"):
            RecordedSource([RoutingTrace(trace.header, rows)], 3, 2)


@pytest.mark.parametrize("top_k", [1, 2])
def test_a_trace_that_holds_a_token_twice_is_refused(top_k: int) -> None:
    """Its choices would mix: which of the two was meant, nobody can say."""
    one, other = (recorded(Drawn([gates] * 4, None, top_k)) for gates in ([0.5, 0.25, 1.0], [1.0, 0.25, 0.5]))
    twice = RoutingTrace(one.header, pa.concat_tables([one.table, other.table]).unify_dictionaries())
    with pytest.raises(UsageError, match="choices"):
        RecordedSource([twice], 3, top_k)


def test_a_trace_whose_token_chose_one_expert_twice_is_refused() -> None:
    """Dispatch counts on distinct choices."""
    trace = recorded(CASE)
    repeated = trace.table.set_column(6, "expert", pa.array([0] * 8, pa.int32()))
    with pytest.raises(UsageError, match="choices"):
        RecordedSource([RoutingTrace(trace.header, repeated)], 3, 2)


def test_a_folder_without_a_trace_and_a_missing_file_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a folder without run\.json"):
        make_forced_routing(make_recipe(experts=3, source=f"trace:{tmp_path}"))
    with pytest.raises(UsageError, match="no such file"):
        make_forced_routing(make_recipe(experts=3, source=f"trace:{tmp_path / 'absent.parquet'}"))
