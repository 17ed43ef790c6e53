"""The timeline of a real model: one trace per contender, with the regions of every layer, and never a number."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from moeprof.instrument.timeline import ROUNDS, SUFFIX
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.variant import DENSE, STATIC
from moeprof.studies import selection
from moeprof.studies.passes import timeline
from moeprof.workloads.registry import make_workload
from tests.studies.runs import services_of

VARIANTS = (STATIC, DENSE)


@pytest.mark.parametrize(("phase", "steps"), [("score", 1), ("decode", 2)])
def test_every_contender_leaves_a_trace_with_its_regions(
    micro: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str, steps: int
) -> None:
    monkeypatch.setattr(selection, "FEW_STEPS", 2)
    recipe = load_recipe(str(micro("lm")))
    workload = make_workload(recipe)
    services = services_of(recipe, tmp_path / "run", VARIANTS, lambda: 0)
    with torch.inference_mode():
        episodes = workload.episodes(phase)
        for episode in episodes:
            episode.settle(services.runner.select(STATIC))
        timeline.trace_timeline(services, phase, episodes)
    traces = {path.name.partition(".")[0]: ranges(path) for path in (tmp_path / "run" / "timeline").iterdir()}
    assert set(traces) == {f"{phase}-static", f"{phase}-dense"}
    assert traces[f"{phase}-static"].count("moeprof::experts[1]") == steps * ROUNDS
    assert "moeprof::experts[1]" not in traces[f"{phase}-dense"]
    assert not services.writer.tables, "a timeline is for viewing and never for a number"


def ranges(path: Path) -> list[str]:
    assert path.name.endswith(SUFFIX)
    return [event.get("name", "") for event in json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]]
