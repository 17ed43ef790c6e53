"""From recorded sweeps to curves, largest and best batches, and throughput by the number of slots, by hand."""

from pathlib import Path
from typing import Any

from moeprof.analysis.timing.sweep_rows import (
    batch_rows,
    batch_throughput_rows,
    best_batch_rows,
    best_batch_speedup_rows,
    slot_rows,
)
from moeprof.records.recipe.variant import STATIC, Variant
from moeprof.records.run.raw_tables import AGREEMENT, BATCHES, BEST, ENERGY, ROUNDS, SLOTS, STALLS, SWEEP, TIME
from tests.records.run.runs import labelled, raw_run

DYNAMIC = Variant(dispatch="dynamic")
Row = dict[str, Any]


def tried(batch: int, memory_bytes: int | None, *, fits: bool, variant: str = "static") -> Row:
    cells = {"phase": "score", "variant": variant, "budget_bytes": 900, "reason": "" if fits else "over the budget"}
    return cells | {"batch": batch, "memory_bytes": memory_bytes, "fits": fits}


def rounds(name: str, point: str, *times_ns: int, tokens: int = 10, variant: str = "static", **cells: Any) -> list[Row]:
    about = {"pass": name, "phase": "score", "variant": variant, "point": point, "steps": 1, "tokens": tokens} | cells
    return [about | {"round": index, "time_ns": time_ns} for index, time_ns in enumerate(times_ns)]


def test_batches_tell_what_they_need_and_the_largest_that_fits(tmp_path: Path) -> None:
    rows = [
        *(tried(1, 300, fits=True), tried(2, 800, fits=True), tried(4, None, fits=False)),
        tried(1, 1000, fits=False, variant="dynamic"),
    ]
    found = [(row.metric, row.variant, row.point, row.value) for row, _ in batch_rows(raw_run(tmp_path / "r", {BATCHES: rows}))]
    assert found == [
        ("memory_budget", "", "", 900),
        ("fits", "static", "batch=1", 1),
        ("memory_total_peak", "static", "batch=1", 300),
        ("fits", "static", "batch=2", 1),
        ("memory_total_peak", "static", "batch=2", 800),
        ("fits", "static", "batch=4", 0),
        ("fits", "dynamic", "batch=1", 0),
        ("memory_total_peak", "dynamic", "batch=1", 1000),
        ("max_batch", "static", "", 2),
        ("max_batch", "dynamic", "", 0),
    ]


def test_the_best_batch_is_the_one_with_the_largest_throughput_over_ranks_and_the_smaller_of_equals(tmp_path: Path) -> None:
    """Tokens of both ranks over the slower one's median round: 20 / 40 ns, 40 / 40 ns and 80 / 80 ns."""
    rows = [
        *(*rounds(SWEEP, "batch=4", 60, 80, 90, tokens=40), *rounds(SWEEP, "batch=4", 70, 50, 10, tokens=40, rank=1)),
        *(*rounds(SWEEP, "batch=2", 40, 40, 40, tokens=20), *rounds(SWEEP, "batch=2", 30, 30, 30, tokens=20, rank=1)),
        *(*rounds(SWEEP, "batch=1", 40, 30, 50), *rounds(SWEEP, "batch=1", 40, 40, 40, rank=1)),
        *rounds(TIME, "", 1, 1, 1),
    ]
    found = [(row.metric, row.point, row.value) for row, _ in batch_throughput_rows(raw_run(tmp_path / "r", {ROUNDS: rows}))]
    assert found == [
        ("throughput", "batch=1", 0.5e9),
        ("throughput", "batch=2", 1e9),
        ("throughput", "batch=4", 1e9),
        ("best_batch", "", 2),
    ]


def test_every_variant_is_sped_up_at_its_own_best_batch_unless_it_computes_something_else(tmp_path: Path) -> None:
    """10 tokens in 100 ns against 40 in 200, 100 and 400 ns: 2, 4 and 1 times as many per second."""
    best = [
        *rounds(BEST, "batch=1", 100, 100, 100),
        *rounds(BEST, "batch=4", 200, 100, 400, tokens=40, variant="dynamic"),
    ]
    agreement = {"phase": "score", "variant": "dynamic", "compared": 9, "tokens": 9, "max_abs_diff": 0.0}
    record = {"variants": labelled(STATIC, DYNAMIC), "speedup_baselines": ["static"]}
    equal = raw_run(tmp_path / "equal", {ROUNDS: best, AGREEMENT: [agreement]}, **record)
    different = raw_run(tmp_path / "different", {ROUNDS: best, AGREEMENT: [agreement | {"differing": 1}]}, **record)
    for run, speedups in ((equal, [("speedup_max_throughput", "dynamic", "static", 2.0)]), (different, [])):
        rates = [(row.metric, row.variant, row.value) for row, _ in best_batch_rows(run)]
        assert rates == [("max_throughput", "static", 1e8), ("max_throughput", "dynamic", 2e8)]
        assert [(row.metric, row.variant, row.category, row.value) for row, _ in best_batch_speedup_rows(run)] == speedups


def test_points_of_slots_are_over_all_domains_with_stalls_and_energy_of_a_token(tmp_path: Path) -> None:
    """Two domains of 40 and 60 ns with 10 tokens each; 8 of 100 ns go to loads, 5 of which the layer waits for."""
    at = {"phase": "decode", "variant": "dynamic", "point": "slots=3"}
    times = [
        *rounds(SLOTS, "slots=3", 40, 40, 40, phase="decode", variant="dynamic", domain="prose"),
        *rounds(SLOTS, "slots=3", 60, 60, 60, phase="decode", variant="dynamic", domain="code"),
    ]
    stalls = [
        {"pass": SLOTS, **at, "domain": domain, "layer": "1", "round": index, "load_ns": load_ns, "stall_ns": stall_ns}
        for domain, load_ns, stall_ns in (("prose", 2, 1), ("code", 6, 4))
        for index in range(3)
    ]
    energy = [{**at, "tokens": 50, "energy_mj": 400.0, "rank": 0}, {**at, "tokens": 50, "energy_mj": 999.0, "rank": 1}]
    run = raw_run(tmp_path / "r", {ROUNDS: times, STALLS: stalls, ENERGY: energy})
    found = {row.metric: row.value for row, _ in slot_rows(run)}
    assert {row.address[:5] for row, _ in slot_rows(run)} == {("lm", "decode", "", "dynamic", "slots=3")}
    assert (found["throughput"], found["step_latency"], found["energy"]) == (20e9 / 100, 50, 8.0)
    assert (found["load_time"], found["stall_time"]) == (4, 2.5)
