"""Studies over two real ranks say what one rank says that does the same local batches."""

from collections import Counter
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from parallel.ranks import over_ranks

from moeprof.models.build import build_model
from moeprof.parallel.group import Group
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.variant import STATIC
from moeprof.records.run.run import Run
from moeprof.studies.passes.memory import measure_memory
from moeprof.studies.passes.outputs import check_outputs
from moeprof.studies.passes.quality import measure_quality
from moeprof.studies.passes.sweep import measure_sweep
from moeprof.studies.study import Study
from moeprof.workloads.registry import Workload
from tests.records.run.runs import value_of

from .runs import DYNAMIC, Micro, early_ends, values, with_weights

PASSES = (check_outputs, measure_quality, measure_memory)
ALIKE = ("waste_factor", "dropped_fraction", "dropped_tokens", "load_max_over_mean", "load_cv", "dead_experts", "gate_entropy")
"""What depends on all tokens together, however they are spread over steps and ranks."""

DOMAINS = {"lm": "data.domains=['prose', 'code']", "mt": "data.domains=['imbari', 'dorvek']"}


class Ways(NamedTuple):
    """The same text on one rank and on two."""

    one: Run
    two: Run


def passes(*, sweep: bool, workload: Workload) -> list[object]:
    return [*PASSES, *([partial(measure_sweep, workload)] if sweep else [])]


def study(group: Group, recipe: str, out: Path, overrides: list[str], *, sweep: bool = False) -> tuple[bool, list[str]]:
    """One rank's part; whether the run is valid, and why not."""
    made = Study("optimize", (STATIC, DYNAMIC), lambda workload: passes(sweep=sweep, workload=workload), (STATIC,))
    run = made.run(load_recipe(recipe, [*overrides, f"parallel.ranks={group.size}"]), out, group=group)
    return run.record.valid, run.record.reasons


@pytest.fixture(scope="module", params=["lm", "mt"])
def ways(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Ways:
    from conftest import MICRO

    folder = tmp_path_factory.mktemp(request.param)
    recipe = folder / "micro.toml"
    recipe.write_text(MICRO[request.param])
    weights = with_weights(recipe, folder / "weights.safetensors", early_ends)
    sets = [
        weights,
        DOMAINS[request.param],
        "gating.padding=fixed",
    ]  # else the batches of a step have one shape on two ranks only
    study(Group(), str(recipe), folder / "one", [*sets, "load.batches=4"])
    over_ranks(2, study, str(recipe), folder / "two", [*sets, "load.batches=2"])
    return Ways(Run.open(folder / "one"), Run.open(folder / "two"))


def test_both_are_valid_and_the_second_has_two_traces_of_everything(ways: Ways) -> None:
    assert ways.one.record.valid
    assert ways.two.record.valid
    headers = [trace.header for trace in ways.two.traces]
    assert len(headers) == 2 * len(ways.one.traces)
    assert {(header.rank, header.variant) for header in headers} == {
        (rank, variant) for rank in (0, 1) for variant in ("static", "dynamic+loop")
    }


def decisions(run: Run, phase: str, variant: str) -> list[tuple[int, ...]]:
    """Every choice of every token, on whatever rank."""
    traces = [trace for trace in run.traces if (trace.header.phase, trace.header.variant) == (phase, variant)]
    columns = ("sequence", "position", "slot", "expert", "token_id", "dropped")
    return sorted(
        (*row, layer)
        for trace in traces
        for layer in trace.header.layers
        for row in zip(*(trace.select(layer=layer).column(name).tolist() for name in columns), strict=True)
    )


def test_the_routers_decide_the_same_about_every_token(ways: Ways) -> None:
    for phase in ways.one.record.recipe.phases:
        for variant in ("static", "dynamic+loop"):
            assert decisions(ways.two, phase, variant) == decisions(ways.one, phase, variant) != []


@pytest.mark.parametrize("metric", ALIKE)
def test_what_all_tokens_say_together_is_the_same(ways: Ways, metric: str) -> None:
    for phase in ways.one.record.recipe.phases:
        found = values(ways.two, metric, "layer", "domain", phase=phase, variant="static")
        expected = values(ways.one, metric, "layer", "domain", phase=phase, variant="static")
        if metric == "waste_factor" and phase == "decode":
            expected = {key: value * rows(ways.one, key[1], 2) / rows(ways.one, key[1], 1) for key, value in expected.items()}
        assert found == pytest.approx(expected)
        assert expected


def rows(one: Run, domain: str, ranks: int) -> int:
    """Rows of a domain's decoding steps if so many ranks decode a batch each, until the last sequence of all of them has ended."""
    size, tokens = one.record.recipe.load.batch_size, Counter[int]()
    for trace in one.traces:
        if (trace.header.phase, trace.header.variant) == ("decode", "static"):
            part = trace.select(layer=trace.header.layers[0], domain=domain or None)
            tokens.update(part.column("sequence")[part.column("slot") == 0].tolist())
    together = sorted({sequence // size // ranks for sequence in tokens})
    return sum(ranks * size * max(tokens[one] for one in tokens if one // size // ranks == group) for group in together)


def test_ranks_wait_for_each_others_sequences(ways: Ways) -> None:
    """The sentences end after different numbers of steps, so that the ranks have padding that one rank does not have."""
    if ways.one.record.recipe.workload == "mt":
        assert rows(ways.one, "", 2) > rows(ways.one, "", 1)
    else:
        assert rows(ways.one, "", 2) == rows(ways.one, "", 1)


def test_quality_is_that_of_all_ranks_texts(ways: Ways) -> None:
    metric, phase = {"lm": ("perplexity", "score"), "mt": ("chrf", "decode")}[ways.one.record.recipe.workload]
    found, expected = (values(run, metric, "variant", "domain", phase=phase) for run in ways)
    assert found == pytest.approx(expected)
    assert expected


def test_outputs_are_compared_on_every_rank(ways: Ways) -> None:
    """The first batch of every domain on each: those that one rank has as its first and second."""
    for phase in ways.one.record.recipe.phases:
        compared, lost, differing = (
            values(ways.two, f"output_tokens_{what}", phase=phase, variant=DYNAMIC.label)[()]
            for what in ("compared", "lost", "differing")
        )
        firsts = {
            (int(row[0]), int(row[1])) for row in decisions(ways.two, phase, "static") if on_first_batch(ways.two, row[0])
        }
        assert compared + lost == len(firsts)
        assert differing == 0


def on_first_batch(run: Run, sequence: int) -> bool:
    """Whether both ranks took it in their first step of its domain; there are two steps of every domain."""
    load = run.record.recipe.load
    return sequence // (2 * load.batch_size) % load.batches == 0


def test_peak_memory_is_that_of_the_worst_rank_and_weights_are_a_share(ways: Ways) -> None:
    for phase in ways.one.record.recipe.phases:
        ranks = values(ways.two, "memory_total_peak", "rank", phase=phase, variant="static")
        assert set(ranks) == {("",), ("0",), ("1",)}
        assert ranks[("",)] == max(ranks[("0",)], ranks[("1",)])
    held = build_model(ways.two.record.recipe, group=Group(1, 2))
    assert value_of(ways.two, "memory_static", variant="static") == sum(parameter.nbytes for parameter in held.parameters())


def test_ranks_find_the_same_batches_in_a_sweep(micro: Micro, tmp_path: Path) -> None:
    sets = ["load.phases=['score']", "budget.memory=64KiB", "gating.capacity_fraction=1.0", "data.domains=['prose']"]
    found = over_ranks(2, partial(study, sweep=True), str(micro("lm")), tmp_path / "run", sets)
    assert found[0] == (True, [])
    run = Run.open(tmp_path / "run")
    for variant in ("static", DYNAMIC.label):
        largest = values(run, "max_batch", phase="score", variant=variant)[()]
        memory = values(run, "memory_total_peak", "point", phase="score", variant=variant)
        fits = values(run, "fits", "point", phase="score", variant=variant)
        assert (
            memory[f"batch={largest:.0f}",]
            <= 64 * 1024
            < min(memory[point] for point, fit in fits.items() if not fit and point in memory)
        )
    assert values(run, "speedup_max_throughput", "variant", "category", phase="score")
