"""Statements of the paper that a whole run must bear out."""

from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from math import ceil
from pathlib import Path

import pytest

from moeprof.analysis.memory import peak_rows
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import STATIC
from moeprof.records.run.run import Run
from moeprof.studies.passes.quality import measure_quality
from moeprof.studies.train.study import train
from moeprof.workloads.registry import make_workload

from .runs import DYNAMIC, TUTEL, Micro, early_ends, studied, values, with_weights
from .train.lessons import Quiet, brief

GIB = 2**30


# Statement 2: static slots do not depend on the routing, dynamic rows are exactly those needed


def slots_of(recipe: Recipe, phase: str, domain: str) -> tuple[Fraction, Fraction]:
    """E x ceil(C x S) and k x tokens, mean over steps, of batches whose sizes are counted here."""
    fraction, gating = Fraction(str(recipe.gating.capacity_fraction)), recipe.gating
    steps = [
        (episode.batch.real_BL.size, int(episode.batch.real_BL.sum()))
        for episode in make_workload(recipe).episodes(phase)
        if domain in ("", episode.domain)
    ]
    slots = sum(recipe.model.experts * ceil(fraction * rows) for rows, _ in steps)
    needed = sum(gating.top_k * num_tokens for _, num_tokens in steps)
    return Fraction(slots, len(steps)), Fraction(needed, len(steps))


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("routing", ["model", "zipf:2,sorted", "uniform"])
@pytest.mark.parametrize(
    ("name", "phase", "sets"),
    [
        ("lm", "score", ("gating.capacity_fraction=0.05", "model.experts=16")),
        ("mt", "encode", ("gating.capacity_fraction=0.3",)),
        ("mt", "encode", ("gating.capacity_fraction=1.0", "gating.top_k=1", "gating.padding=fixed")),
    ],
)
def test_statement_2_through_a_whole_run(
    micro: Micro, tmp_path: Path, routing: str, name: str, phase: str, sets: tuple[str, ...]
) -> None:
    run = studied(
        micro(name),
        tmp_path / "run",
        f"load.phases=['{phase}']",
        f"routing.source={routing}",
        *sets,
        variants=(STATIC, TUTEL, DYNAMIC),
    )
    for domain in {*run.record.text_hashes, ""}:
        slots, needed = slots_of(run.record.recipe, phase, domain)
        where = {"phase": phase, "domain": domain}
        for variant in ("static", "tutel"):
            assert values(run, "expert_slots", variant=variant, **where)[()] == float(slots)
            assert values(run, "waste_factor", variant=variant, **where)[()] == pytest.approx(float(slots / needed), rel=1e-12)
        assert values(run, "expert_slots", variant=DYNAMIC.label, **where)[()] == float(needed)
        assert values(run, "waste_factor", variant=DYNAMIC.label, **where) == {(): 1.0}
        assert values(run, "dropped_fraction", variant=DYNAMIC.label, **where) == {(): 0.0}


@pytest.mark.usefixtures("device")
def test_statement_2_holds_for_every_decoded_token(micro: Micro, tmp_path: Path) -> None:
    """Where some sentences have ended: their padding has slots under static gating, and rows nowhere else."""
    sets = ("load.batch_size=12", "load.batches=1", "load.decode_steps=6", "gating.capacity_fraction=0.4")
    ending = with_weights(micro("mt"), tmp_path / "ending.safetensors", early_ends)
    run = studied(micro("mt"), tmp_path / "run", *sets, ending)
    trace = run.trace("decode", DYNAMIC.label)
    assert trace is not None
    tokens = Counter(trace.column("step").tolist())  # two choices each, in one layer
    assert len(set(tokens.values())) > 2
    assert values(run, "expert_slots", phase="decode", variant=DYNAMIC.label)[()] == pytest.approx(len(trace) / len(tokens))
    assert values(run, "waste_factor", phase="decode", variant=DYNAMIC.label) == {(): 1.0}
    assert values(run, "expert_slots", phase="decode", variant="static") == {(): 4 * 5}  # ceil(0.4 x 12), ended ones included
    waste = values(run, "waste_factor", phase="decode", variant="static")[()]
    assert waste == pytest.approx(4 * 5 * len(tokens) / len(trace))


# Statement 11: the memory ratio


def test_statement_11_the_papers_memory_ratio_follows_from_its_own_numbers() -> None:
    """LM, batch 8 on one node: 18.88 GiB in all, of which 6.29 dynamic under static gating and 1.28 under dynamic gating."""
    weights = 18.88 - 6.29

    def needed(dynamic_gib: float) -> dict[tuple[str, str], int]:
        return {("static", ""): round(weights * GIB), ("dynamic", ""): round(dynamic_gib * GIB)}

    rows = list(peak_rows("lm", "score", {"static": needed(6.29), "dynamic": needed(1.28)}, forced=False))
    totals = {row.variant: row.value for row in rows if row.metric == "memory_total_peak"}
    assert totals["static"] / GIB == pytest.approx(18.88)
    assert totals["dynamic"] / GIB == pytest.approx(18.88 - 6.29 + 1.28)
    assert round(totals["static"] / totals["dynamic"], 2) == 1.36
    dynamic = {row.variant: row.value for row in rows if row.metric == "memory_dynamic_peak"}
    assert 1 - dynamic["dynamic"] / dynamic["static"] == pytest.approx(0.796, abs=0.001)


# Equal outputs are equal quality


@pytest.fixture
def trained(micro: Micro, tmp_path: Path) -> Callable[..., Path]:
    """A brief training's checkpoint."""

    def make(name: str) -> Path:
        train(brief(micro, name), tmp_path / "micro.safetensors", Quiet())
        return tmp_path / "micro.safetensors"

    return make


def quality(run: Run, metric: str, phase: str) -> dict[str, list[float]]:
    """By variant, over all domains in order."""
    found = values(run, metric, "variant", "domain", phase=phase)
    return {label: [found[variant, domain] for variant, domain in found if variant == label] for label, _ in found}


@pytest.mark.parametrize(
    ("name", "phase", "metrics"), [("lm", "score", ("perplexity", "bits_per_byte")), ("mt", "decode", ("chrf",))]
)
def test_where_nothing_is_dropped_all_variants_are_of_one_quality(
    micro: Micro, tmp_path: Path, trained: Callable[..., Path], name: str, phase: str, metrics: tuple[str, ...]
) -> None:
    sets = (f"model.checkpoint={trained(name)}", "gating.capacity_fraction=1.0")
    run = studied(micro(name), tmp_path / "run", *sets, passes=[measure_quality], variants=(STATIC, TUTEL, DYNAMIC))
    assert run.record.valid
    for metric in metrics:
        found = quality(run, metric, phase)
        assert set(found) == {"static", "tutel", DYNAMIC.label}
        assert len(found["static"]) == len(run.record.text_hashes) + 1
        assert found["tutel"] == pytest.approx(found["static"], rel=1e-5)
        assert found[DYNAMIC.label] == pytest.approx(found["static"], rel=1e-5)


def test_drops_cost_quality_that_dynamic_gating_does_not_lose(
    micro: Micro, tmp_path: Path, trained: Callable[..., Path]
) -> None:
    sets, found = (f"model.checkpoint={trained('lm')}", "load.phases=['score']"), {}
    for fraction in (0.05, 1.0):
        capacity = f"gating.capacity_fraction={fraction}"
        run = studied(micro("lm"), tmp_path / f"run-{fraction}", capacity, *sets, passes=[measure_quality])
        found[fraction] = quality(run, "perplexity", "score")
    assert found[0.05][DYNAMIC.label] == pytest.approx(found[1.0][DYNAMIC.label], rel=1e-6)
    assert found[0.05]["static"] != pytest.approx(found[1.0]["static"], rel=1e-4)
