"""Buffering over two real ranks: each rank buffers its own experts for the tokens of both, and a replay says what they did."""

from pathlib import Path

from parallel.ranks import over_ranks

from moeprof.parallel.group import Group
from moeprof.records.recipe_files import load_recipe
from moeprof.records.run import Run
from moeprof.records.variant import Variant
from moeprof.studies.passes.loads import measure_loads
from moeprof.studies.passes.outputs import check_outputs
from moeprof.studies.passes.routing import record_routing
from moeprof.studies.passes.slots import sweep_slots
from moeprof.studies.replay.source import read_source
from moeprof.studies.study import Study

from .runs import DYNAMIC, Micro, values

BUFFERED = Variant("dynamic", "loop", "buffered", slots=2, eviction="inactive-first+lifo", buffered="all")
LABEL = BUFFERED.label


def study(group: Group, recipe: str, out: Path) -> tuple[bool, list[str]]:
    """One rank's part."""
    passes = (record_routing, check_outputs, measure_loads, sweep_slots)
    made = Study("optimize", (DYNAMIC, BUFFERED), lambda _: passes, (DYNAMIC,))
    overrides = ["model.experts=8", "parallel.ranks=2", "load.batches=2", "measure.rounds=5", "data.domains=['imbari']"]
    run = made.run(load_recipe(recipe, overrides), out, group=group)
    return run.record.valid, run.record.reasons


def test_outputs_hits_and_bytes_are_right_on_both_ranks(micro: Micro, tmp_path: Path) -> None:
    over_ranks(2, study, str(micro("mt")), tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert run.record.valid
    assert set(values(run, "output_tokens_differing", "phase", variant=LABEL).values()) == {0}
    loads = run.loads
    assert {(rank, expert // 4) for rank, expert in zip(loads.column("rank"), loads.column("expert"), strict=True)} == {
        (0, 0),
        (1, 1),
    }
    (note,) = read_source(run.path).notes[:1]
    counts = {phase: len(own) for (phase,), own in loads.groups("phase")}
    assert all(f"{count:,} in {phase}" in note for phase, count in counts.items())
    for phase in ("encode", "decode"):
        own = loads.of(phase=phase)
        assert run.value("bytes_loaded", phase=phase, variant=LABEL) == own.column("bytes").sum()
        assert run.value("miss_rate", phase=phase, variant=LABEL) == (~own.column("hit")).mean()
        assert run.value("miss_rate", phase=phase, variant=LABEL, point="slots=2") == (~own.column("hit")).mean()
        assert run.value("load_time", phase=phase, variant=LABEL, domain="imbari") is not None
    for step, layer in {*zip(loads.column("step").tolist(), loads.column("layer").tolist(), strict=True)}:
        traces = [trace for trace in run.traces if trace.header.variant == LABEL and layer in trace.header.layers]
        chosen = {
            int(expert)
            for trace in (one.select(layer=layer) for one in traces)
            for at, expert in zip(trace.column("step"), trace.column("expert"), strict=True)
            if at == step
        }
        assert chosen == set(loads.of(step=step, layer=layer).column("expert").tolist())
