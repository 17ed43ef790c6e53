"""The answer of a characterization: time beside the dense twin, with the floors that numbers cannot pass."""

from pathlib import Path

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.metrics.number import Formula, origin_of
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.metrics.row import RowKey
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.variant import DENSE, STATIC
from moeprof.records.run.run import Run, RunRecord
from moeprof.records.run.writer import RunWriter
from moeprof.reporters.documents.answer import KeyNumber, RunAnswer
from moeprof.reporters.documents.answers.registry import answer_of
from tests.records.run.runs import labelled

IDLE = (("inactive_fraction", 0.63), ("active_bound", 16), ("step_tokens", 8))


def run_of(path: Path, rows: list[MetricRow], *, reasons: tuple[str, ...] = (), **record: object) -> Run:
    variants = labelled(STATIC, DENSE)
    usual: dict[str, object] = {"command": "characterize", "recipe": load_recipe("lm-tiny"), "variants": variants}
    writer = RunWriter(path, RunRecord.model_validate(usual | record))
    writer.add_metrics(rows)
    return writer.finish(*reasons)


def in_phase(phase: str, *values: tuple[str, float]) -> list[MetricRow]:
    return [MetricRow(metric, value, "lm", phase, variant="static") for metric, value in values]


def rows() -> list[MetricRow]:
    """Scoring takes 12 times the time of the twin, decoding 2.5 times; 32 experts, of which a step of 8 tokens reaches 16."""
    return [
        *in_phase("score", ("slowdown_vs_dense", 12), ("waste_factor", 12.8), ("inactive_fraction", 0)),
        *in_phase("decode", ("slowdown_vs_dense", 2.5), *IDLE),
        MetricRow("flops_per_token", 122, "lm", variant="static"),
        MetricRow("flops_per_token", 100, "lm", variant="dense"),
    ]


def answer(run: Run) -> RunAnswer:
    return answer_of(run, RunMetrics.of(run))


def number(found: RunAnswer, name: str) -> KeyNumber:
    return next(one for one in found.numbers if one.name == name)


def test_the_slowdown_is_said_beside_what_arithmetic_explains(tmp_path: Path) -> None:
    found = answer(run_of(tmp_path / "run", rows()))
    assert found.sentence == (
        "lm-tiny under static gating takes 12x (scoring) and 2.5x (decoding) the time of its dense twin; its FLOPs explain 1.22x."
    )
    assert number(found, "MoE / dense time, scoring").bound == ("FLOPs", 1.22)


def test_idle_experts_stand_beside_the_share_that_must_be_idle(tmp_path: Path) -> None:
    found = number(answer(run_of(tmp_path / "run", rows())), "idle experts per step, decoding")
    assert (found.value, found.bound) == (0.63, ("at least", 0.5))
    bound = origin_of(found.bound[1])
    assert isinstance(bound, Formula)
    assert isinstance(bound.right, Formula)
    assert isinstance(bound.right.left, RowKey)
    assert bound.right.left.metric == "active_bound"


def test_padding_and_small_batches_are_what_would_change_the_answer(tmp_path: Path) -> None:
    assert answer(run_of(tmp_path / "run", rows())).would_change == [
        "Another dispatch: `moeprof optimize --dynamic-gating` measures the model without its 12.8x padding (scoring).",
        "A larger batch: with 8 tokens x top-2, at least 50.0% of the experts must be idle when decoding.",
    ]


def test_without_a_twin_the_throughput_is_said_and_too_few_rounds_too(tmp_path: Path) -> None:
    found = answer(run_of(tmp_path / "run", in_phase("score", ("throughput", 1234))))
    assert found.sentence == "lm-tiny under static gating reaches 1,234 tokens/s (scoring)."
    assert number(found, "tokens/s, scoring").remark == "no interval: fewer than 6 rounds"


def test_a_run_that_is_not_valid_says_so_first(tmp_path: Path) -> None:
    found = answer(run_of(tmp_path / "run", rows(), reasons=("interrupted",)))
    assert found.sentence.startswith("NOT VALID: ")
    assert found.light.level == "bad"
    assert found.light.reasons[0] == "The run is not valid: interrupted."


def test_noise_and_forced_routing_make_the_numbers_doubtful(tmp_path: Path) -> None:
    assert answer(run_of(tmp_path / "quiet", rows())).light.level == "good"
    noisy = answer(run_of(tmp_path / "noisy", rows(), noisy=["score, static, prose: rounds vary by 20%"]))
    assert noisy.light.level == "doubtful"
    assert noisy.light.reasons[0].startswith("1 timing is noisy")
    forced = answer(run_of(tmp_path / "forced", rows(), recipe=load_recipe("lm-tiny", ['routing.source="uniform"'])))
    assert forced.light.reasons == ["Routing was forced (uniform): loads and drops are not those of this model."]


def test_a_run_without_numbers_has_an_answer(tmp_path: Path) -> None:
    found = answer(run_of(tmp_path / "run", []))
    assert found.sentence == "lm-tiny under static gating: no phase was timed."
    assert found.numbers == []
