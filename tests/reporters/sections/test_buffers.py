"""What a report says of expert buffering: two operating points, told apart, and who was in a slot when."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.variant import STATIC, Variant
from moeprof.records.run.run import Run, RunRecord
from moeprof.records.run.writer import RunWriter
from moeprof.records.traces.expert_loads import COLUMNS, ExpertLoads, joined
from moeprof.reporters.documents.document import Curves, Details, HeatMap, Paragraph, Table
from moeprof.reporters.documents.verdict import verdict
from moeprof.reporters.formats.registry import FORMATS, render
from moeprof.reporters.sections.buffers import buffer_blocks, residency, residency_map

GIB, MS = 2**30, 10**6
LABEL = "dynamic+buffered"


def loads_of(*steps: list[tuple[int, int]]) -> ExpertLoads:
    """Experts and their victims, step by step; an expert that nobody left for is a hit where it was there before."""
    rows: list[dict[str, Any]] = []
    there: set[int] = set()
    for step, uses in enumerate(steps):
        for expert, victim in uses:
            hit = expert in there
            there = (there | {expert}) - {victim}
            rows.append(
                {"variant": LABEL, "point": "", "phase": "decode", "domain": "code", "step": step, "layer": "dec.3", "rank": 0}
                | {"expert": expert, "hit": hit, "victim": victim, "bytes": 0 if hit else 1, "start_ns": 0, "end_ns": 0}
            )
    return joined([pa.Table.from_pylist(rows, schema=COLUMNS)])


LOADS = loads_of([(0, -1), (1, -1)], [(1, -1), (2, 0)], [(0, 1)])


def run_of(path: Path, *, swept: bool) -> Run:
    """The paper's shape at ten slots of sixteen: 2.25 GiB saved, 12.9%, 1.148x; one slot 5.63 GiB, 32.2%, 1.474x."""
    recipe = load_recipe("mt-54b", ["parallel.ranks=8", "measure.device=cpu"])
    variants = [STATIC, Variant("dynamic"), Variant("dynamic", store="buffered", slots=10, eviction="lru", buffered="decoder")]
    told: list[dict[str, str | bool | int]] = [{"label": one.label, "slots": one.slots} for one in variants]
    writer = RunWriter(path, RunRecord(command="optimize", recipe=recipe, variants=told))
    at = {"workload": "mt", "variant": LABEL}
    here = {"memory_saved": 2.2507 * GIB, "memory_saved_share": 0.1287, "memory_reduction": 1.148}
    there = {"memory_saved": 5.6267 * GIB, "memory_saved_share": 0.3217, "memory_reduction": 1.474}
    writer.add_metrics(MetricRow(name, value, **at) for name, value in (here | {"expert_slots_per_layer": 10}).items())
    for point, values in (("slots=10", here | {"memory_static": 15 * GIB}), ("slots=1", there | {"memory_static": 12 * GIB})):
        writer.add_metrics(MetricRow(name, value, **at, point=point) for name, value in values.items())
    phase = {
        "expert_accesses": 5,
        "misses": 4,
        "miss_rate": 0.8,
        "worst_miss_rate": 0.8,
        "step_latency": 90 * MS,
        "load_time": 40 * MS,
        "hideable_time": 20 * MS,
        "stall_time": 25 * MS,
        "hidden_fraction": 0.75,
    }
    writer.add_metrics(MetricRow(name, value, **at, phase="decode") for name, value in phase.items())
    writer.add_metrics([MetricRow("miss_rate", 0.8, **at, phase="decode", layer="dec.3")])
    if swept:
        for slots, rate, latency in ((1, 1.0, 400), (10, 0.8, 90)):
            point = at | {"phase": "decode", "point": f"slots={slots}"}
            writer.add_metrics([MetricRow("miss_rate", rate, **point), MetricRow("step_latency", latency * MS, **point)])
    writer.add_loads(LOADS)
    return writer.finish()


@pytest.fixture(params=[True, False], ids=["swept", "not swept"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    return run_of(tmp_path / "run", swept=request.param)


def test_the_chosen_slots_and_the_single_slot_are_two_operating_points(run: Run) -> None:
    paragraph = next(block for block in buffer_blocks(run, RunMetrics.of(run), "decode") if isinstance(block, Paragraph))
    swept = "at a 100.0% miss rate" in paragraph.text
    assert paragraph.text == (
        "Dynamic gating with buffered experts: 10 slots for a layer's 16 experts on each rank save 2.25 GiB (12.9% of a rank's weights, "
        "1.15x reduction); 80.0% of accesses miss. Upper bound: 1 slot saves 5.63 GiB (32.2% of a rank's weights, 1.47x reduction)"
        f"{', at a 100.0% miss rate' if swept else ''}."
    )


def test_latency_over_memory_has_a_point_for_every_number_of_slots_that_was_measured(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", swept=True)
    blocks = list(buffer_blocks(run, RunMetrics.of(run), "decode"))
    (curves,) = (block for block in blocks if isinstance(block, Curves))
    assert curves.curves == [(LABEL, [(12 * 1024, 400 * MS), (15 * 1024, 90 * MS)])]
    swept = next(block for block in blocks if isinstance(block, Table) and block.columns[0] == "slots")
    assert [row[0] for row in swept.rows] == ["1", "10"]


def test_the_verdict_reports_memory_saved_misses_and_stalls(run: Run) -> None:
    assert (
        "Buffering (decode): saves 2.25 GiB of expert weights per rank; 80.0% of accesses miss. Each 90 ms step waits 25 ms for expert "
        "loads; 75.0% of the load time that can overlap was hidden behind compute."
    ) in verdict(run, RunMetrics.of(run))


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_shows_it(run: Run, form: str) -> None:
    assert "buffered" in render(run, form)


def test_who_is_in_a_slot_is_what_the_loads_and_the_victims_leave() -> None:
    """By hand: 0 and 1 come, 2 takes the place of 0, and 0 that of 1; 3 never comes."""
    expected = [[True, False, True], [True, True, False], [False, True, True], [False, False, False]]
    assert residency(LOADS, 4).tolist() == expected


def test_the_map_has_a_row_for_every_expert_that_ever_had_a_slot() -> None:
    found = residency_map(LOADS, "dec.3", 4)
    assert found.labels == ["0", "1", "2"]
    assert found.values == [[1, 0, 1], [1, 1, 0], [0, 1, 1]]


def test_experts_and_steps_that_are_too_many_share_a_cell() -> None:
    """64 experts, each used in one step of 96 and gone in the next."""
    steps = [[(step % 64, (step - 1) % 64 if step else -1)] for step in range(96)]
    found = residency_map(loads_of(*steps), "dec.3", 64)
    assert (len(found.labels), {len(row) for row in found.values}) == (16, {48})
    assert found.labels[0] == "0-3"
    assert np.array(found.values).sum() * 4 * 2 == pytest.approx(96)


def test_nothing_is_said_where_no_expert_is_loaded(run: Run) -> None:
    assert list(buffer_blocks(run, RunMetrics.of(run), "encode")) == []


def test_the_map_of_every_layer_is_folded(run: Run) -> None:
    (details,) = (block for block in buffer_blocks(run, RunMetrics.of(run), "decode") if isinstance(block, Details))
    assert [type(block) for block in details.blocks] == [Table, HeatMap]
