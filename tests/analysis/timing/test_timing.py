"""From rounds to throughput, speed-ups over every baseline, and how sure they are."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprof.analysis.timing.timing import (
    Timing,
    equal_batch_rows,
    noisy_rounds,
    slowdown_rows,
    speedup_rows,
    spread,
    summed,
    throughput_rows,
    time_rows,
    timing_rows,
    timings_of,
)
from moeprof.records.metrics.registry import METRICS, MetricRow
from moeprof.records.metrics.row import Address
from moeprof.records.run.raw_tables import ROUNDS, TIME, TRAFFIC
from moeprof.records.run.run import Run
from tests.records.run.runs import raw_run

STATIC_NS = [400, 420, 380, 800, 410, 390, 405, 395, 415, 385]
DYNAMIC_NS = [100, 105, 95, 400, 205, 130, 81, 79, 83, 77]
RATIOS = [4, 4, 4, 2, 2, 3, 5, 5, 5, 5]


def timed(variant: str, round_ns: list[int], domain: str = "", steps: int = 1, tokens: int = 60) -> Timing:
    return Timing(variant, domain, round_ns, steps, tokens)


def by_variant(**rounds: list[int]) -> dict[str, Timing]:
    return {variant: timed(variant, round_ns) for variant, round_ns in rounds.items()}


def told(rows: list[MetricRow]) -> dict[tuple[str, str, str], float]:
    """Values by variant, baseline and metric."""
    return {(row.variant, row.category, row.metric): row.value for row in rows}


def speedups(timings: dict[str, Timing], baselines: list[str], *excluded: str) -> dict[tuple[str, str, str], float]:
    rows = speedup_rows("speedup_equal_batch", Address(workload="lm", phase="score"), timings, baselines, excluded)
    return told(list(rows))


def test_throughput_is_tokens_over_the_median_round_beside_every_round_and_the_ends_of_its_interval() -> None:
    timing = timed("static", [100, 200, 300, 400, 500, 600], tokens=60)
    rows = list(throughput_rows("max_throughput", timing, Address(variant="static", phase="score")))
    assert [(row.metric, row.variant, row.phase) for row, _ in rows] == [
        ("max_throughput", "static", "score"),
        ("max_throughput_low", "static", "score"),
        ("max_throughput_high", "static", "score"),
    ]
    assert [row.value for row, _ in rows] == pytest.approx([60e9 / 350, 60e9 / 600, 60e9 / 100])
    assert [values for _, values in rows] == [pytest.approx([60e9 / ns for ns in timing.round_ns]), [], []]


def test_few_rounds_have_a_throughput_but_no_interval() -> None:
    rows = list(throughput_rows("throughput", timed("static", [100, 200, 300]), {}))
    assert [row.metric for row, _ in rows] == ["throughput"]


def test_a_speed_up_is_the_median_ratio_of_paired_rounds_and_not_the_ratio_of_the_medians() -> None:
    found = speedups(by_variant(static=[100, 200, 400], dynamic=[50, 50, 50]), ["static"])
    assert found == {("dynamic", "static", "speedup_equal_batch"): 4.0}
    found = speedups(by_variant(static=[100, 900, 101], dynamic=[100, 300, 50]), ["static"])
    assert found["dynamic", "static", "speedup_equal_batch"] == pytest.approx(2.02)  # of 1, 3 and 2.02; medians: 1.01


def test_its_interval_is_that_of_the_paired_ratios() -> None:
    assert [one / other for one, other in zip(STATIC_NS, DYNAMIC_NS, strict=True)] == pytest.approx(RATIOS, rel=0.01)
    found = speedups(by_variant(static=STATIC_NS, dynamic=DYNAMIC_NS), ["static"])
    ratios = sorted(one / other for one, other in zip(STATIC_NS, DYNAMIC_NS, strict=True))
    assert found == {
        ("dynamic", "static", "speedup_equal_batch"): pytest.approx(median(ratios)),
        ("dynamic", "static", "speedup_equal_batch_low"): pytest.approx(ratios[1]),  # the second of ten
        ("dynamic", "static", "speedup_equal_batch_high"): pytest.approx(ratios[8]),  # the ninth
    }


def test_every_baseline_has_a_column_and_none_is_compared_with_itself() -> None:
    timings = by_variant(static=[800], tutel=[400], dynamic=[100])
    assert speedups(timings, ["static", "tutel"]) == {
        ("static", "tutel", "speedup_equal_batch"): 0.5,
        ("tutel", "static", "speedup_equal_batch"): 2.0,
        ("dynamic", "static", "speedup_equal_batch"): 8.0,
        ("dynamic", "tutel", "speedup_equal_batch"): 4.0,
    }


def test_the_dense_twin_is_a_baseline_and_never_sped_up() -> None:
    timings = by_variant(static=[800], dense=[50], dynamic=[100])
    assert speedups(timings, ["dense", "static"]) == {
        ("static", "dense", "speedup_equal_batch"): 0.0625,
        ("dynamic", "dense", "speedup_equal_batch"): 0.5,
        ("dynamic", "static", "speedup_equal_batch"): 8.0,
    }


def test_a_variant_that_computes_something_else_has_no_speed_up_and_is_no_baseline() -> None:
    timings = by_variant(static=[800], tutel=[400], dynamic=[100])
    assert set(speedups(timings, ["static", "tutel"], "dynamic")) == {
        ("static", "tutel", "speedup_equal_batch"),
        ("tutel", "static", "speedup_equal_batch"),
    }
    assert set(speedups(timings, ["static", "tutel"], "tutel")) == {("dynamic", "static", "speedup_equal_batch")}
    assert speedups(timings, ["static"], "tutel", "dynamic") == {}


def test_a_baseline_that_was_not_timed_gives_no_row() -> None:
    assert speedups(by_variant(dynamic=[100]), ["static"]) == {}


@given(st.lists(st.tuples(st.integers(1, 10**9), st.integers(1, 10**9)), min_size=1, max_size=20))
def test_a_variant_and_its_baseline_are_sped_up_by_reciprocal_rounds(rounds: list[tuple[int, int]]) -> None:
    static, dynamic = (list(column) for column in zip(*rounds, strict=True))
    found = speedups(by_variant(static=static, dynamic=dynamic), ["static", "dynamic"])
    ratios = sorted(one / other for one, other in rounds)
    assert found["dynamic", "static", "speedup_equal_batch"] == pytest.approx(median(ratios))
    assert found["static", "dynamic", "speedup_equal_batch"] == pytest.approx(median(1 / ratio for ratio in ratios))


def test_domains_are_added_up_round_by_round() -> None:
    parts = [
        timed("static", [10, 20], "prose", 1, 30),
        timed("dense", [1, 2], "prose", 1, 30),
        timed("static", [5, 50], "code", 2, 8),
    ]
    assert summed(parts) == [timed("static", [15, 70], "", 3, 38), timed("dense", [1, 2], "", 1, 30)]


def recorded(path: Path, *timings: Timing, pass_name: str = TIME, rank_ns: int = 0, baselines: Sequence[str] = ()) -> Run:
    """A run of two ranks: the second took `rank_ns` longer in odd rounds, the first in all others; tokens are halved."""
    rows = [
        {"pass": pass_name, "phase": "decode", "variant": timing.variant, "domain": timing.domain, "rank": rank}
        | {"round": index, "time_ns": time_ns - (rank_ns if index % 2 != rank else 0)}
        | {"steps": timing.steps, "tokens": timing.tokens // 2}
        for rank in (0, 1)
        for timing in timings
        for index, time_ns in enumerate(timing.round_ns)
    ]
    return raw_run(path, {ROUNDS: rows}, speedup_baselines=list(baselines))


PARTS = [timed("static", [10, 20, 30], "prose", 2, 40), timed("static", [40, 10, 20], "code", 2, 40)]


def test_latencies_are_per_step_and_throughputs_per_second() -> None:
    rows = {(row.metric, row.domain): row.value for row, _ in timing_rows("lm", "decode", [*PARTS, *summed(PARTS)])}
    assert rows == {
        ("step_latency", "prose"): 10.0,
        ("throughput", "prose"): 2e9,
        ("step_latency", "code"): 10.0,
        ("throughput", "code"): 2e9,
        ("step_latency", ""): 12.5,  # 50, 30 and 50 in four steps
        ("throughput", ""): 1.6e9,
    }
    assert {metric for metric, _ in rows} <= set(METRICS)


def test_a_round_lasts_as_long_as_on_the_slowest_rank_and_counts_the_tokens_of_all(tmp_path: Path) -> None:
    run = recorded(tmp_path / "run", *PARTS, rank_ns=7)
    assert timings_of(run, TIME) == {("decode", ""): PARTS}
    assert timings_of(run, TRAFFIC) == {}


def test_the_rows_of_a_run_are_those_of_every_domain_and_of_all_of_them(tmp_path: Path) -> None:
    found = {(row.metric, row.domain): row.value for row, _ in time_rows(recorded(tmp_path / "run", *PARTS))}
    assert found == {(row.metric, row.domain): row.value for row, _ in timing_rows("lm", "decode", [*PARTS, *summed(PARTS)])}


def test_a_single_domain_has_rows_over_all_domains_too(tmp_path: Path) -> None:
    run = recorded(tmp_path / "run", PARTS[0], timed("dense", [5, 5, 5], "prose", 2, 40), baselines=["dense"])
    rows = [*time_rows(run), *equal_batch_rows(run)]
    found = {(row.metric, row.variant, row.domain): row.value for row, _ in rows}
    assert {domain for _, _, domain in found} == {"prose", ""}
    for (metric, variant, _), value in found.items():
        assert found[metric, variant, ""] == found[metric, variant, "prose"] == value


def test_speed_ups_are_those_of_every_domain_and_of_all_of_them(tmp_path: Path) -> None:
    others = [timed("dynamic", [5, 5, 5], "prose", 2, 40), timed("dynamic", [20, 20, 20], "code", 2, 40)]
    rows = equal_batch_rows(recorded(tmp_path / "run", *PARTS, *others, baselines=["static"]))
    assert {row.domain: row.value for row, _ in rows if not row.metric.endswith(("_low", "_high"))} == {
        "prose": 4.0,  # of 2, 4 and 6
        "code": 1.0,  # of 2, 0.5 and 1
        "": 2.0,  # of 50/25, 30/25 and 50/25
    }


def test_a_slowdown_needs_a_dense_twin_beside_it() -> None:
    timings = [timed("static", [80, 80], "prose"), timed("dense", [10, 30], "prose")]
    everything = [*timings, *summed(timings)]
    assert [(row.domain, row.variant, row.value) for row in slowdown_rows("lm", "score", everything)] == [
        ("prose", "static", pytest.approx((8 + 80 / 30) / 2)),
        ("", "static", pytest.approx((8 + 80 / 30) / 2)),
    ]
    assert list(slowdown_rows("lm", "score", timings[:1])) == []


def test_a_slowdown_has_the_interval_of_its_rounds_ratios() -> None:
    timings = [timed("static", [20, 40, 60, 80, 100, 120], "prose"), timed("dense", [10] * 6, "prose")]
    found = {row.metric: row.value for row in slowdown_rows("lm", "score", timings)}
    assert found == {"slowdown_vs_dense": 7, "slowdown_vs_dense_low": 2, "slowdown_vs_dense_high": 12}


def test_rounds_that_vary_by_more_than_a_tenth_are_noisy(tmp_path: Path) -> None:
    calm, wild = timed("static", [100, 101, 102, 103, 104]), timed("dynamic", [100, 120, 140, 160, 180], "code")
    assert spread(calm.round_ns) == pytest.approx(2 / 102)
    assert spread(wild.round_ns) == pytest.approx(40 / 140)
    assert spread([7]) == 0.0
    assert noisy_rounds(recorded(tmp_path / "run", calm, wild)) == ["decode, dynamic, code: rounds vary by 29%"]
    assert noisy_rounds(recorded(tmp_path / "other", calm, wild, pass_name=TRAFFIC)) == []
