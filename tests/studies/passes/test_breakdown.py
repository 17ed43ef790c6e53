"""The breakdown of a real model with a clock that ticks once per reading: every number is known beforehand."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.variant import DENSE, STATIC
from moeprof.records.run.run import Run
from moeprof.studies.passes.breakdown import measure_breakdown
from moeprof.workloads.registry import make_workload
from tests.studies.runs import services_of

VARIANTS = (STATIC, DENSE)


class TickingClock:
    """One nanosecond passes with every reading: a region takes 1 where no other begins or ends inside it."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        self.now += 1
        return self.now


def broken_down(recipe_path: Path, out: Path, phase: str) -> Run:
    recipe, clock = load_recipe(str(recipe_path)), TickingClock()
    workload = make_workload(recipe)
    services = services_of(recipe, out, VARIANTS, clock)
    with torch.inference_mode():
        episodes = workload.episodes(phase)
        for episode in episodes:
            episode.settle(services.runner.select(STATIC))
        measure_breakdown(services, phase, episodes)
    return services.writer.finish()


MODEL = {"embed": 1, "attention": 2}
MOE = {"gate": 1, "dispatch": 1, "experts": 1, "combine": 1}


@pytest.mark.parametrize(
    ("workload", "phase", "regions"),
    [
        ("lm", "score", {"dense_ffn": 1, "head": 1}),
        ("lm", "decode", {"dense_ffn": 1, "head": 1}),
        ("mt", "encode", {"dense_ffn": 1}),
        ("mt", "decode", {"dense_ffn": 1, "head": 1, "cross_attention": 2}),
    ],
)
def test_regions_never_overlap_and_the_rest_of_the_step_is_other(
    micro: Callable[[str], Path], tmp_path: Path, workload: str, phase: str, regions: dict[str, int]
) -> None:
    run = broken_down(micro(workload), tmp_path / "run", phase)
    times = run.metrics.query("metric == 'region_time' and variant == 'static' and layer == ''")
    expected = MODEL | MOE | regions
    for _, rows in times.groupby("domain"):
        found = dict(zip(rows["region"], rows["value"], strict=True))
        other = found.pop("other")
        assert found == expected
        assert sum(expected.values()) < other <= sum(expected.values()) + 1  # one tick between regions, one more per round


def test_layers_have_their_own_times_and_the_twin_has_no_moe_layer(micro: Callable[[str], Path], tmp_path: Path) -> None:
    times = broken_down(micro("lm"), tmp_path / "run", "score").metrics.query("metric == 'region_time' and layer != ''")
    found = {variant: set(zip(rows["layer"], rows["region"], strict=True)) for variant, rows in times.groupby("variant")}
    assert found["static"] == {("0", "attention"), ("0", "dense_ffn"), ("1", "attention"), *(("1", name) for name in MOE)}
    assert found["dense"] == {("0", "attention"), ("0", "dense_ffn"), ("1", "attention"), ("1", "dense_ffn")}
    assert set(times["value"]) == {1.0}


def test_the_run_tells_its_own_overhead_from_unobserved_rounds_in_turns(micro: Callable[[str], Path], tmp_path: Path) -> None:
    run = broken_down(micro("lm"), tmp_path / "run", "score")
    rows = run.metrics.query("metric == 'overhead'")
    # Unobserved: one tick between the two readings. Observed: those of 9 (or, in the twin, 6) regions and of the round besides.
    assert dict(zip(rows["variant"], rows["value"], strict=True)) == {"static": 21.0, "dense": 15.0}
    assert set(rows["category"]) == {"breakdown"}
    assert len(run.samples.query("metric == 'overhead' and variant == 'static'")) == 3  # half of the time pass's 5


def test_shares_of_a_recorded_step_add_up_to_one(micro: Callable[[str], Path], tmp_path: Path) -> None:
    run = broken_down(micro("mt"), tmp_path / "run", "decode")
    for _, rows in run.metrics.query("metric == 'region_share'").groupby(["variant", "domain"]):
        assert rows["value"].sum() == pytest.approx(1)
