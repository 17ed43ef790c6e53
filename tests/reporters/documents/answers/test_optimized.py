"""The answer of a comparison of variants: a speed-up is claimed only if the rounds show it."""

from pathlib import Path

import pytest

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.variant import STATIC, Variant
from moeprof.records.run.run import Run, RunRecord
from moeprof.records.run.writer import RunWriter
from moeprof.reporters.documents.answer import RunAnswer
from moeprof.reporters.documents.answers.registry import answer_of
from moeprof.reporters.documents.verdict import verdict
from moeprof.reporters.sections.variants import variant_table
from tests.records.run.runs import labelled

INTERVAL = ("", "_low", "_high")
MIB = 2**20


def speed_up(kind: str, *values: float, phase: str = "score") -> list[MetricRow]:
    """A speed-up of dynamic gating over static gating, with its interval if three values are given."""
    at = {"workload": "lm", "phase": phase, "variant": "dynamic", "category": "static"}
    return [MetricRow(f"speedup_{kind}{end}", value, **at) for end, value in zip(INTERVAL, values, strict=False)]


def outputs(differing: int, phase: str = "score") -> list[MetricRow]:
    at = {"workload": "lm", "phase": phase, "variant": "dynamic"}
    return [
        MetricRow("output_tokens_compared", 80, **at),
        MetricRow("output_tokens_differing", differing, **at),
        MetricRow("output_max_abs_diff", 0.5, **at),
    ]


def answer(path: Path, rows: list[MetricRow]) -> RunAnswer:
    variants = labelled(STATIC, Variant("dynamic"))
    writer = RunWriter(path, RunRecord(command="optimize", recipe=load_recipe("lm-tiny"), variants=variants))
    writer.add_metrics(rows)
    run = writer.finish()
    return answer_of(run, RunMetrics.of(run))


def test_the_best_batches_decide_and_equal_batches_would_change_it(tmp_path: Path) -> None:
    found = answer(tmp_path / "run", [*speed_up("max_throughput", 6, 5, 7), *speed_up("equal_batch", 4, 3, 5), *outputs(0)])
    assert found.sentence == "Dynamic gating is 6x (scoring) as fast as static gating; outputs are equal."
    assert found.would_change == ["The batch: 6x [5x to 7x] scoring at each variant's best batch, 4x [3x to 5x] at batch 8."]
    assert (found.numbers[0].low, found.numbers[0].high) == (5, 7)
    assert found.light.level == "good"


def test_an_interval_that_holds_one_is_no_speed_up(tmp_path: Path) -> None:
    found = answer(tmp_path / "run", [*speed_up("equal_batch", 1.1, 0.9, 1.3), *outputs(0)])
    assert found.sentence == "Dynamic gating shows no measurable difference from static gating in scoring; outputs are equal."
    assert found.numbers[0].remark == "no measurable difference"


def test_phases_that_differ_are_told_apart(tmp_path: Path) -> None:
    decode = speed_up("equal_batch", 1, 0.9, 1.1, phase="decode")
    found = answer(tmp_path / "run", [*speed_up("equal_batch", 4, 3, 5), *decode, *outputs(0)])
    assert found.sentence == (
        "Dynamic gating is 4x (scoring) as fast as static gating, with no measurable difference in decoding; outputs are equal."
    )


def test_too_few_rounds_have_no_interval_and_that_is_said(tmp_path: Path) -> None:
    found = answer(tmp_path / "run", [*speed_up("equal_batch", 4), *outputs(0)])
    assert found.sentence == "Dynamic gating is 4x (scoring, no interval) as fast as static gating; outputs are equal."
    assert found.light.level == "doubtful"
    assert found.light.reasons == ["The speed-up (score) has no interval: fewer than 6 rounds."]


def test_outputs_that_differ_are_the_first_reason_of_a_bad_light(tmp_path: Path) -> None:
    found = answer(tmp_path / "run", outputs(20))
    assert found.sentence == "Dynamic gating: no speed-up is reported; outputs differ in scoring."
    assert found.light.level == "bad"
    assert found.light.reasons[0] == "Outputs (score) differ on 20 of 80 compared tokens."
    share = next(one for one in found.numbers if one.name == "equal outputs, scoring")
    assert share.value == pytest.approx(0.75)


def test_a_peak_stands_beside_the_weights_that_it_cannot_go_below(tmp_path: Path) -> None:
    sizes = [MetricRow("memory_static", 10 * MIB, "lm", variant="dynamic")]
    for variant, size in (("static", 50), ("dynamic", 12)):
        sizes.append(MetricRow("memory_total_peak", size * MIB, "lm", "score", variant=variant))
    (found,) = answer(tmp_path / "run", sizes).numbers
    assert (found.value, found.bound, found.remark) == (12 * MIB, ("weights", 10 * MIB), "static: 50 MiB")


def test_best_batches_of_a_saw_tooth_are_undecided_and_equal_batches_are_stated(tmp_path: Path) -> None:
    at = {"workload": "lm", "phase": "score", "variant": "dynamic"}
    curve = [
        MetricRow("throughput", rate, **at, point=f"batch={batch}") for batch, rate in ((1, 10), (2, 30), (4, 15), (64, 40))
    ]
    rows = [*speed_up("max_throughput", 0.408, 0.335, 0.645), *speed_up("equal_batch", 1.6, 1.5, 1.7), *curve]
    found = answer(tmp_path / "run", rows)
    assert found.sentence.startswith("Dynamic gating is 1.6x (scoring) as fast as static gating; ")
    assert found.light.level == "doubtful"
    assert found.light.reasons == [
        "The best batches (score) are undecided, so no speed-up at them is stated. "
        "Dynamic gating: throughput falls by 50% at batch 4 and rises again."
    ]
    run = Run.open(tmp_path / "run")
    assert verdict(run, RunMetrics.of(run))[0] == (
        "Scoring: dynamic gating is 1.6x [1.5x to 1.7x] as fast as static gating at batch 8; undecided at best batches "
        "(dynamic gating: throughput falls by 50% at batch 4 and rises again)."
    )
    cells = {row[0]: row[1:] for row in variant_table(run, RunMetrics.of(run), "score").rows}
    assert cells["vs static, best batch"] == ["-", "undecided"]
