"""A recommendation follows from the numbers of a replay, and says what would make it another one."""

import pytest

from moeprof.analysis.caching.advice import advise, size_for
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.policies.eviction.registry import DEFAULT
from moeprof.records.metrics.row import RecordedRow, row_key
from moeprof.records.run.replay import ReplayRequest, TraceSource
from moeprof.records.run.run import RunRecord


def replayed(rates: dict[str, dict[int, float]], knee: int | None = None, **other: float) -> RunMetrics:
    """A replay whose miss rates in decode are these; `other` metrics stand at every size of lru."""
    sizes = sorted(next(iter(rates.values())))
    trace = TraceSource(name="talk", path="", workload="lm", num_experts=16, top_k=2, layers=["1"], decisions={})
    replay = ReplayRequest(trace=trace, policies=list(rates), slots=sizes, access="sequential", phase="decode", bandwidth=1)
    curves = {("miss_rate", policy): curve for policy, curve in rates.items()}
    curves |= {(metric, "lru"): {size: value / size for size in sizes} for metric, value in other.items()}
    rows = [
        recorded(metric, value, point=f"policy={policy};slots={size}")
        for (metric, policy), curve in curves.items()
        for size, value in curve.items()
    ]
    rows += [recorded("knee_slots", knee)] if knee else []
    return RunMetrics.from_rows(RunRecord(command="replay", replay=replay), rows)


def recorded(metric: str, value: float, point: str = "") -> RecordedRow:
    """A number of the phase decode."""
    return RecordedRow(row_key(metric, workload="lm", phase="decode", point=point), "", "routed", value)


def test_the_best_policy_that_needs_no_future_is_recommended_at_the_knee() -> None:
    found = advise(
        replayed(
            {
                "min": {2: 0.5, 4: 0.1, 8: 0.1, 16: 0.1},
                "lru": {2: 0.9, 4: 0.3, 8: 0.2, 16: 0.1},
                "fifo": {2: 0.8, 4: 0.4, 8: 0.3, 16: 0.1},
                "lfu": {2: 0.9, 4: 0.5, 8: 0.15, 16: 0.1},
            },
            knee=4,
        ),
        "decode",
    )
    assert found is not None
    assert (found.policy, found.size, found.miss_rate, found.at_knee) == ("lru", 4, 0.3, True)
    assert (found.rival, found.rival_rate) == ("fifo", 0.4)
    assert found.better_below == (2, "fifo")
    assert found.better_above == (8, "lfu")


def test_where_nothing_bends_the_largest_size_is_taken() -> None:
    found = advise(replayed({"lru": {2: 0.9, 4: 0.7}}), "decode")
    assert found is not None
    assert (found.size, found.at_knee, found.rival, found.better_below, found.better_above) == (4, False, "", None, None)


def test_of_policies_that_miss_alike_the_papers_choice_comes_first() -> None:
    alike = {policy: {4: 0.25} for policy in ("lru", "fifo", DEFAULT)}
    found = advise(replayed(alike), "decode")
    assert found is not None
    assert (found.policy, found.rival, found.rival_rate) == (DEFAULT, "lru", 0.25)
    assert found.better_below is None


@pytest.mark.parametrize("policies", [["min"], ["min", "min-bypass", "inactive-first+min"]])
def test_policies_that_know_the_future_are_never_recommended(policies: list[str]) -> None:
    assert advise(replayed({policy: {4: 0.1} for policy in policies}), "decode") is None


def test_the_size_for_a_time_is_the_smallest_that_reaches_it() -> None:
    view = replayed({"lru": {2: 0.9, 4: 0.5, 8: 0.3}}, transfer_time=80.0)  # 40, 20 and 10 ns
    assert size_for(view, "decode", "lru", 20) == 4
    assert size_for(view, "decode", "lru", 19) == 8
    assert size_for(view, "decode", "lru", 9) is None
