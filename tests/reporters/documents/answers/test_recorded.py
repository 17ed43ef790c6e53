"""The answer of a recording: what was recorded, where it is, and which commands go on from it."""

from pathlib import Path

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.recipe.variant import OWN
from moeprof.reporters.documents.answers.registry import answer_of
from moeprof.reporters.formats.terminal import MIN_WIDTH
from moeprof.reporters.layout import wrapped
from tests.records.run.runs import labelled
from tests.reporters.documents.answers.test_characterized import run_of


def rows(phase: str, steps: float, tokens: float) -> list[MetricRow]:
    """Two layers, in which 3 of 2 x 32 experts are never used."""
    whole = {"steps": steps, "step_tokens": tokens, "dead_experts": 3, "inactive_fraction": 0.75, "active_bound": 8}
    layers = [
        MetricRow(metric, value, "lm", phase, variant="own", layer=layer)
        for layer, load in (("1", 2), ("3", 4))
        for metric, value in (("load_max_over_mean", load), ("active_experts", 8))
    ]
    return [*(MetricRow(metric, value, "lm", phase, variant="own") for metric, value in whole.items()), *layers]


def test_what_was_recorded_is_said_with_the_commands_that_go_on(tmp_path: Path) -> None:
    path = tmp_path / "my run"
    run = run_of(path, [*rows("score", 1, 4), *rows("decode", 7, 1)], command="record", variants=labelled(OWN))
    found = answer_of(run, RunMetrics.of(run))
    assert found.sentence == (
        "Recorded 1 scoring step (4 tokens) and 7 decoding steps (7 tokens) of lm-tiny: top-2 of 32 experts in 2 MoE layers."
    )
    assert [(one.name, one.value, one.remark) for one in found.numbers] == [
        ("hottest expert / mean load (score, layer 3)", 4, ""),
        ("idle experts per step, decoding", 0.75, ""),
        ("experts never used, decoding", 3, "of 64"),
        ("idle experts per step, scoring", 0.75, ""),
        ("experts never used, scoring", 3, "of 64"),
    ]
    assert [text.rpartition(": ")[2] for text in found.commands] == [
        f"`moeprof {command} '{path}'`" for command in ("characterize", "replay")
    ]
    assert all(wrapped(text, MIN_WIDTH)[-1].startswith("`moeprof ") for text in found.commands), "a command is in one piece"
