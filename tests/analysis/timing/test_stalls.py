"""What loads cost and what hides them, by hand."""

from pathlib import Path
from typing import Any

import pytest

from moeprof.analysis.timing.stalls import Cost, Stalls, by_layer, cost, load_rows, over_ranks, stall_rows, stalls_of
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.run.raw_tables import LOADS, ROUNDS, SLOTS, STALLS
from moeprof.records.traces.expert_loads import ExpertUse, LayerLoads
from tests.records.run.runs import raw_run

AT = MetricRow("", 0, "lm", "decode", variant="dynamic+buffered")


def visit(loads: list[tuple[int, int]], stall_ns: int, span_ns: int) -> LayerLoads:
    return LayerLoads(
        [ExpertUse(1, True, -1, 0, 0, 0), *(ExpertUse(2, False, -1, 4096, *load) for load in loads)], stall_ns, span_ns
    )


@pytest.mark.parametrize(
    ("stall_ns", "span_ns", "hideable_ns"),
    [
        (0, 100, 30),  # other work of 100 covers all of the loads
        (20, 100, 30),
        (80, 100, 20),  # other work of 20 covers 20
        (30, 30, 0),  # nothing to hide behind
    ],
)
def test_as_much_can_hide_as_the_layers_other_work_takes(stall_ns: int, span_ns: int, hideable_ns: int) -> None:
    assert cost(visit([(0, 10), (10, 30)], stall_ns, span_ns)) == Cost(30, stall_ns, hideable_ns, 8192)


def test_what_could_hide_is_the_sum_of_what_could_in_every_layers_step_not_of_the_whole() -> None:
    """A layer with nothing else to do cannot hide its loads behind another layer's work."""
    idle, busy = visit([(0, 50)], 50, 50), visit([], 0, 500)
    assert by_layer([("1", idle), ("1", busy), ("3", busy)]) == {"1": Cost(50, 50, 0, 4096), "3": Cost(0, 0, 0, 0)}


def test_over_ranks_times_are_means_and_bytes_are_sums() -> None:
    found = over_ranks("code", 2, [[{"1": Cost(10, 4, 8, 100)}], [{"1": Cost(30, 0, 12, 300), "3": Cost(2, 2, 2, 2)}]])
    assert found.rounds == [{"1": Cost(20, 2, 10, 400), "3": Cost(1, 1, 1, 2)}]
    assert (found.domain, found.steps, found.num_ranks) == ("code", 2, 2)


def test_rows_are_per_step_medians_over_rounds_of_every_layer_domain_and_all() -> None:
    rounds = [{"1": Cost(20, 4, 16, 400), "3": Cost(20, 8, 16, 400)}, {"1": Cost(40, 8, 32, 400), "3": Cost(40, 24, 32, 400)}]
    rows = {
        (row.metric, row.domain, row.layer): (row.value, values)
        for row, values in stall_rows(AT, [Stalls("code", 2, rounds), Stalls("prose", 2, rounds)])
    }
    assert rows["load_time", "code", ""] == (30, [20, 40])
    assert rows["stall_time", "code", "3"] == (8, [])
    assert rows["load_time", "", ""] == (30, [20, 40])
    assert rows["step_bytes_loaded", "", ""][0] == 400
    assert rows["hidden_fraction", "", ""][1] == pytest.approx([(40 - 12) / 32, (80 - 32) / 64])
    assert rows["load_bandwidth", "code", ""][1] == pytest.approx([800 / 40e-9, 800 / 80e-9])


def test_where_nothing_was_loaded_nothing_is_said_of_pace_and_hiding() -> None:
    metrics = {row.metric for row, _ in stall_rows(AT, [Stalls("code", 1, [{"1": Cost(0, 0, 0, 0)}])])}
    assert metrics == {"load_time", "stall_time", "hideable_time", "step_bytes_loaded"}


def recorded(rank: int, domain: str, *layers: tuple[int, str, Cost]) -> list[dict[str, Any]]:
    """Rows of one rank: round, layer and cost."""
    cells = {"pass": LOADS, "phase": "decode", "variant": "dynamic+buffered", "domain": domain, "rank": rank}
    return [
        cells
        | {"round": index, "layer": layer, "load_ns": load_ns, "stall_ns": stall_ns}
        | {"hideable_ns": hideable_ns, "bytes": num_bytes}
        for index, layer, (load_ns, stall_ns, hideable_ns, num_bytes) in layers
    ]


def test_recorded_rounds_are_joined_over_ranks_and_a_round_without_loads_counts_as_none(tmp_path: Path) -> None:
    rows = [
        *recorded(0, "code", (0, "1", Cost(10, 4, 8, 100))),
        *recorded(1, "code", (0, "1", Cost(30, 0, 12, 300)), (0, "3", Cost(2, 2, 2, 2))),
    ]
    rounds = [
        {"pass": LOADS, "phase": "decode", "variant": "dynamic+buffered", "domain": "code", "rank": rank}
        | {"round": index, "steps": 2, "time_ns": 50}
        for rank in (0, 1)
        for index in (0, 1)
    ]
    run = raw_run(tmp_path / "run", {ROUNDS: rounds, STALLS: rows})
    ((where, (found,)),) = stalls_of(run, LOADS).items()
    assert where == ("decode", "dynamic+buffered", "")
    assert found == Stalls("code", 2, [{"1": Cost(20, 2, 10, 400), "3": Cost(1, 1, 1, 2)}, {}], num_ranks=2)
    assert stalls_of(run, SLOTS) == {}
    values = {(row.metric, row.domain, row.layer): values for row, values in load_rows(run)}
    assert values["load_time", "code", ""] == values["load_time", "", ""] == [10.5, 0]
    assert values["step_bytes_loaded", "", ""] == [201, 0]
