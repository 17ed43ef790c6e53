"""Buffering over two real ranks: each rank buffers its own experts for the tokens of both, and a replay says what they did."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from parallel.ranks import over_ranks

from moeprof.parallel.group import Group
from moeprof.policies.cache import Cache
from moeprof.policies.eviction.registry import make_eviction
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.variant import Variant
from moeprof.records.run.run import Run
from moeprof.studies.passes.loads import measure_loads
from moeprof.studies.passes.outputs import check_outputs
from moeprof.studies.passes.slots import sweep_slots
from moeprof.studies.replay.source import read_source
from moeprof.studies.study import Study
from tests.records.run.runs import value_of

from .runs import DYNAMIC, values

BUFFERED = Variant("dynamic", "loop", "buffered", slots=2, eviction="inactive-first+lifo", buffered="all")
LABEL = BUFFERED.label
GREEDY = replace(BUFFERED, placement="greedy")
COPIED = replace(BUFFERED, placement="eplb-distinct", replicas=1)


def study(group: Group, recipe: str, out: Path) -> tuple[bool, list[str]]:
    """One rank's part."""
    passes = (check_outputs, measure_loads, sweep_slots)
    made = Study("optimize", (DYNAMIC, BUFFERED, GREEDY, COPIED), lambda _: passes, (DYNAMIC,))
    overrides = ["model.experts=8", "parallel.ranks=2", "load.batches=4", "measure.rounds=5", "data.domains=['imbari']"]
    run = made.run(load_recipe(recipe, overrides), out, group=group)
    return run.record.valid, run.record.reasons


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    from conftest import MICRO

    folder = tmp_path_factory.mktemp("buffered")
    (folder / "micro.toml").write_text(MICRO["mt"])
    over_ranks(2, study, str(folder / "micro.toml"), folder / "run")
    return Run.open(folder / "run")


def test_outputs_are_the_resident_ones_whoever_holds_the_experts(run: Run) -> None:
    """Behind slots, moved to other ranks, and copied to both."""
    assert run.record.valid
    differing = values(run, "output_tokens_differing", "phase", "variant")
    assert set(differing) == {(phase, one.label) for phase in ("encode", "decode") for one in (BUFFERED, GREEDY, COPIED)}
    assert set(differing.values()) == {0}


def test_a_rank_loads_its_own_experts_and_a_replay_says_which_of_them_were_there(run: Run) -> None:
    loads = run.loads.of(point="")
    for variant in (BUFFERED, GREEDY, COPIED):
        for phase in ("encode", "decode"):
            own = loads.of(phase=phase, variant=variant.label)
            homes = run.placement(phase, variant.label).homes(next(iter(own.column("layer").tolist())))
            assert all(rank in homes[expert] for rank, expert in zip(own.column("rank"), own.column("expert"), strict=True))
    notes = read_source(run.path).notes
    for note, variant in zip(notes, (BUFFERED, GREEDY, COPIED), strict=False):
        assert note.startswith(
            f"{variant.label} (inactive-first+lifo, 2 slots): the replay reproduces every hit and miss of the run"
        )
        counts = {phase: len(own) for (phase,), own in loads.of(variant=variant.label).groups("phase")}
        assert all(f"{count:,} in {phase}" in note for phase, count in counts.items())


def test_an_expert_that_is_copied_is_loaded_by_both_of_its_ranks(run: Run) -> None:
    own = run.loads.of(point="", phase="encode", variant=COPIED.label)
    (layer,) = set(own.column("layer").tolist())
    copied = {expert for expert, ranks in run.placement("encode", COPIED.label).homes(layer).items() if len(ranks) == 2}
    assert len(copied) == 2
    assert any(len(set(own.of(expert=expert).column("rank").tolist())) == 2 for expert in copied)


def test_numbers_are_those_of_the_loads(run: Run) -> None:
    for phase in ("encode", "decode"):
        own = run.loads.of(point="", phase=phase, variant=LABEL)
        assert value_of(run, "bytes_loaded", phase=phase, variant=LABEL) == own.column("bytes").sum()
        assert value_of(run, "miss_rate", phase=phase, variant=LABEL) == (~own.column("hit")).mean()
        assert value_of(run, "load_time", phase=phase, variant=LABEL, domain="imbari") is not None
        assert value_of(run, "moved_bytes", phase=phase, variant=GREEDY.label) == 0, "they come from behind the slots"


def test_each_step_uses_the_experts_that_both_ranks_chose(run: Run) -> None:
    loads = run.loads.of(point="", variant=LABEL)
    for step, layer in {*zip(loads.column("step").tolist(), loads.column("layer").tolist(), strict=True)}:
        traces = [trace for trace in run.traces if trace.header.variant == LABEL and layer in trace.header.layers]
        chosen = {
            int(expert)
            for trace in (one.select(layer=layer) for one in traces)
            for at, expert in zip(trace.column("step"), trace.column("expert"), strict=True)
            if at == step
        }
        assert chosen == set(loads.of(step=step, layer=layer).column("expert").tolist())


def test_a_sweep_of_slots_leaves_experts_where_the_placement_has_them(run: Run) -> None:
    """Of the later half, two batches, that alone is judged: a cache of each rank over the experts that this rank served."""
    for variant in (BUFFERED, GREEDY, COPIED):
        own = run.loads.of(point="", phase="encode", variant=variant.label)
        for slots in (1, 2, 4):
            misses = 0
            for rank in (0, 1):
                cache, mine = Cache(slots, make_eviction(variant.eviction)), own.of(rank=rank)
                for step in (2, 3):
                    misses += sum(not access.hit for access in cache.batch(mine.of(step=step).column("expert").tolist()))
            assert value_of(run, "misses", phase="encode", variant=variant.label, point=f"slots={slots}") == misses
