"""The timeline of a real model: one trace per contender, with the regions of every layer, and never a number."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from moeprof.studies.session import Session, load_models, new_record

from moeprof.instrument.timeline import ROUNDS, SUFFIX
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.variant import DENSE, STATIC
from moeprof.records.run.writer import RunWriter
from moeprof.studies import session as studies_session
from moeprof.studies.passes import timeline
from moeprof.studies.progress import Silent
from moeprof.workloads.registry import make_workload

VARIANTS = (STATIC, DENSE)


@pytest.mark.parametrize(("phase", "steps"), [("score", 1), ("decode", 2)])
def test_every_contender_leaves_a_trace_with_its_regions(
    micro: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str, steps: int
) -> None:
    monkeypatch.setattr(studies_session, "FEW_STEPS", 2)
    recipe = load_recipe(str(micro("lm")))
    workload = make_workload(recipe)
    writer = RunWriter(tmp_path / "run", new_record("characterize", recipe, VARIANTS, workload, []))
    with torch.inference_mode():
        session = Session(recipe, writer, lambda: 0, Silent(), load_models(recipe, VARIANTS, Silent()))
        episodes = workload.episodes(phase)
        for episode in episodes:
            episode.settle(session.contenders[STATIC])
        timeline.trace_timeline(session, phase, episodes)
    traces = {path.name.partition(".")[0]: ranges(path) for path in (tmp_path / "run" / "timeline").iterdir()}
    assert set(traces) == {f"{phase}-static", f"{phase}-dense"}
    assert traces[f"{phase}-static"].count("moeprof::experts[1]") == steps * ROUNDS
    assert "moeprof::experts[1]" not in traces[f"{phase}-dense"]
    assert not writer.metrics.rows
    assert not writer.samples


def ranges(path: Path) -> list[str]:
    assert path.name.endswith(SUFFIX)
    return [event.get("name", "") for event in json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]]
