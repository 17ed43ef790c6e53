"""The rows of a recorded replay are derived again from the trace that it names: the same numbers, or an error that says why not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from moeprof.analysis.caching.replay_rows import CacheInputs, replay_rows
from moeprof.analysis.placement.balance_rows import balance_rows
from moeprof.records.run.run import Run
from moeprof.records.traces.import_options import ImportOptions
from moeprof.studies.replay.loads import read_loads
from moeprof.studies.replay.placements import PlacementOptions, replay_placements
from moeprof.studies.replay.recompute import recompute_inputs
from moeprof.studies.replay.source import read_source
from moeprof.studies.replay.study import CacheOptions, replay_caches
from tests.records.run.runs import fault
from tests.studies.replay.logs import route_log, run_of_shape

STEPS = [[step * 5 % 7 % 4, (step * 3 + 1) % 4] for step in range(24) if step * 5 % 7 % 4 != (step * 3 + 1) % 4]


def caches_of_a_log(folder: Path) -> Run:
    """Sizes that the log states; prefill and decode."""
    log = route_log(folder / "talk.route.csv", STEPS, prefill=[[1, 2], [1, 3]], layers=2)
    return replay_caches(read_source(log), CacheOptions(overlap_ns=1), folder / "replay")


def experts_of_a_log(folder: Path) -> Run:
    """A number of experts that the log does not state; two more than its highest id + 1."""
    log = route_log(folder / "talk.route.csv", STEPS)
    log.write_text(log.read_text().replace("# n_expert=4\n", ""))
    return replay_caches(read_source(log, options=ImportOptions(experts=6)), CacheOptions(policies=["lru"]), folder / "replay")


def budgets_of_a_log(folder: Path) -> Run:
    """A size of an expert that the log does not state."""
    log = route_log(folder / "talk.route.csv", STEPS, layers=2, sizes=False)
    options = CacheOptions(policies=["lru", "min"], budgets=[1000, 2500], access="batch", devices=2)
    return replay_caches(read_source(log, expert_bytes=100), options, folder / "replay")


def caches_of_a_run(folder: Path) -> Run:
    """One phase of a run directory, whose recipe gives the sizes."""
    source = read_source(run_of_shape(folder / "source", "mt-small", steps=3), "decode")
    return replay_caches(source, CacheOptions(phase="decode", policies=["lfu"]), folder / "replay")


def placements_of_a_log(folder: Path) -> Run:
    """With the bytes of a token, which no log states."""
    log = route_log(folder / "talk.route.csv", STEPS, prefill=[[1, 2], [1, 3]], layers=2)
    return replay_placements(read_loads(log, token_bytes=64), PlacementOptions(nodes=2), folder / "replay")


def placements_of_counts(folder: Path) -> Run:
    """Loads of two domains, without tokens."""
    table = {"top_k": 2, "layers": [0, 3], "counts": {"a": [[3, 1, 0, 9], [2, 2, 5, 1]], "b": [[0, 4, 4, 1], [4, 0, 1, 1]]}}
    (folder / "counts.json").write_text(json.dumps(table))
    return replay_placements(read_loads(folder / "counts.json"), PlacementOptions(devices=[2]), folder / "replay")


every_replay = pytest.mark.parametrize(
    "replay", [caches_of_a_log, experts_of_a_log, budgets_of_a_log, caches_of_a_run, placements_of_a_log, placements_of_counts]
)


@every_replay
def test_recomputed_rows_equal_the_recorded_ones(replay: Callable[[Path], Run], tmp_path: Path) -> None:
    run = Run.open(replay(tmp_path).path)
    inputs = recompute_inputs(run)
    rows = replay_rows(run.record, inputs) if isinstance(inputs, CacheInputs) else balance_rows(run.record, inputs)
    recorded = (run.path / "metrics.csv").read_text().splitlines()[1:]
    assert [",".join(row.cells()) for row in rows] == recorded
    assert len(recorded) > 20


@every_replay
def test_a_missing_source_is_an_error(replay: Callable[[Path], Run], tmp_path: Path) -> None:
    run = replay(tmp_path)
    path = Path(run.record.trace.path)
    path.rename(tmp_path / "elsewhere")
    assert fault(lambda: recompute_inputs(run)) == f"run {run.path}: the replayed trace {path} is missing"


def test_a_trace_with_other_decisions_is_an_error(tmp_path: Path) -> None:
    for replay in (caches_of_a_log, placements_of_a_log):
        folder = tmp_path / replay.__name__
        folder.mkdir()
        run = replay(folder)
        route_log(Path(run.record.trace.path), STEPS[::-1], prefill=[[1, 2], [1, 3]], layers=2)
        assert "its decisions differ" in fault(lambda run=run: recompute_inputs(run))  # type: ignore[misc]


def test_a_count_table_with_other_counts_is_an_error(tmp_path: Path) -> None:
    run = placements_of_counts(tmp_path)
    path = Path(run.record.trace.path)
    path.write_text(path.read_text().replace("9", "8"))
    assert "its decisions differ" in fault(lambda: recompute_inputs(run))


def test_a_rewritten_trace_with_the_same_decisions_is_the_same_trace(tmp_path: Path) -> None:
    run = caches_of_a_log(tmp_path)
    path = Path(run.record.trace.path)
    path.write_text(path.read_text().replace(",nan,", ",0.5,"))
    assert isinstance(recompute_inputs(run), CacheInputs)
