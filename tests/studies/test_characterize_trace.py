"""A trace of another engine, and counts, are characterized without a model: against published numbers, and by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.errors import UsageError
from moeprof.records.run.replay import TraceRequest
from moeprof.records.run.run import Run
from moeprof.records.traces.choice_counts import ChoiceCounts
from moeprof.records.traces.formats import NO_OPTIONS
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.routing_trace import RoutingTrace
from moeprof.reporters.documents.answers.traced import answer
from moeprof.reporters.formats.registry import render
from moeprof.studies.characterize_trace import RecordedRouting, characterize_trace, read_recorded
from moeprof.studies.recompute import recompute
from moeprof.studies.replay.loads import described_counts, inputs_of_counts
from tests.analysis.traces import Row, trace_of
from tests.studies.replay.logs import route_log, run_of_shape

STEPS = [[0, 1], [0, 1], [0, 2], [3, 1]]


def characterized(path: Path, out: Path, experts: int | None = None) -> Run:
    """The run of one trace."""
    return characterize_trace(read_recorded([path], options=ImportOptions(experts=experts)), out)


def numbers(run: Run, phase: str = "decode") -> RunMetrics:
    """The numbers of a phase."""
    metrics = RunMetrics.of(run)
    return metrics.at(phase=phase, variant=metrics.baseline)


def count_table(path: Path, counts: dict[str, list[list[int]]], top_k: int = 1) -> Path:
    """Published counts of as many layers as a domain has rows."""
    layers = list(range(len(next(iter(counts.values())))))
    path.write_text(json.dumps({"top_k": top_k, "layers": layers, "counts": counts}))
    return path


@pytest.fixture
def gemma(shared_data: Path, tmp_path: Path) -> Run:
    """The real trace of one prompt."""
    return characterized(shared_data / "traces" / "gemma.route.csv", tmp_path / "run")


def test_the_real_trace_agrees_with_the_published_accuracies(gemma: Run, shared_data: Path) -> None:
    known = json.loads((shared_data / "reference" / "prefetch.json").read_text())["gemma"]
    here = numbers(gemma)
    point = f"experts={known['k']}"
    assert here.value("active_overlap") == pytest.approx(0.357, abs=0.0005)
    found = {
        "random": here.value("step_coverage_by_chance", point=point),
        "temporal_prev_token": here.value("active_overlap"),
        "static_run_hottest": here.value("step_coverage", category="run", point=point),
        "static_prompt_only": here.value("step_coverage", category="prompt", point=point),
    }
    for name, share in found.items():
        assert 100 * share == pytest.approx(known[name], abs=0.2), name


def test_the_summary_of_the_real_trace_says_what_a_careful_reader_would_sign(gemma: Run) -> None:
    report = render(gemma, "markdown")
    assert "top-6; decode has 128 tokens in 128 steps; prefill has 29 tokens in 1 step." in report
    assert (
        "- Hot set (decode): yes. The set of 32 experts per layer that the first half of the tokens chose most serves 79.4%"
        in report
    )
    assert "25.0% by chance; the whole interval is above 50.0%, twice the value by chance." in report
    assert "- The trace has one sequence: another text may have other hot experts." in report
    assert "the step before used 35.7% of a step's experts" in report


def test_a_log_is_characterized_phase_by_phase(tmp_path: Path) -> None:
    run = characterized(route_log(tmp_path / "talk.route.csv", STEPS, prefill=[[1, 2], [1, 3]], layers=2), tmp_path / "run")
    assert (run.record.command, run.record.valid, run.record.name) == ("characterize", True, "talk")
    decode, prefill = numbers(run), numbers(run, "prefill")
    assert (decode.value("steps"), decode.value("step_tokens"), prefill.value("steps"), prefill.value("step_tokens")) == (
        4,
        1,
        1,
        2,
    )
    assert prefill.value("active_experts", layer="0") == 3
    assert decode.value("active_overlap") == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert decode.value("step_coverage", category="prompt", point="experts=2") == pytest.approx((1 + 1 + 1 + 1) / 8)
    assert decode.value("distinct_experts", point="tokens=2") == (2 + 4) / 2
    assert prefill.or_none("active_overlap") is None


def test_the_run_directory_holds_all_that_its_numbers_come_from(tmp_path: Path) -> None:
    log = route_log(tmp_path / "talk.route.csv", STEPS, prefill=[[1, 2], [1, 3]], layers=2)
    run = characterized(log, tmp_path / "run")
    log.unlink()
    before = (run.path / "metrics.csv").read_text()
    (run.path / "metrics.csv").unlink()
    assert recompute(Run.open(run.path)).num_derived == len(run.rows)
    assert (run.path / "metrics.csv").read_text() == before
    assert all((trace.column("token_id") == -1).all() for trace in run.traces)


def test_counts_give_loads_and_say_what_they_lack(tmp_path: Path) -> None:
    counts = {"news": [[4, 2, 1, 1], [0, 8, 0, 0]], "code": [[1, 1, 2, 4], [0, 8, 0, 0]]}
    run = characterized(count_table(tmp_path / "loads.json", counts), tmp_path / "run")
    here = numbers(run, "all")
    assert here.value("load_max_over_mean", layer="0", domain="news") == 2
    assert here.value("load_max_over_mean", layer="0") == 5 * 4 / 16
    assert here.value("dead_experts") == 3
    assert here.value("hot_set_share", layer="0", category="news", domain="code", point="experts=1") == 1 / 8
    assert here.value("hot_set_share", layer="1", category="news", domain="code", point="experts=1") == 1
    assert here.or_none("steps") is here.or_none("active_experts") is here.or_none("hot_set_share_low") is None
    report = render(run, "markdown")
    assert (
        "- Not known from counts: the order of choices: active experts of a step, locality, prediction, correlation" in report
    )
    assert "- Hot set of other texts (all): yes. The set of 1 expert per layer that one domain chose most serves" in report
    assert recompute(run).num_derived == len(run.rows)


def test_shuffled_tokens_of_a_count_table_are_drawn_without_replacement(tmp_path: Path) -> None:
    run = characterized(count_table(tmp_path / "loads.json", {"news": [[1, 1, 0]]}), tmp_path / "run")
    here = numbers(run, "all")
    assert here.value("distinct_experts_shuffled", point="tokens=2") == pytest.approx(2)
    assert here.value("distinct_experts_by_chance", point="tokens=2") == pytest.approx(3 * (1 - (2 / 3) ** 2))
    assert here.or_none("distinct_experts_shuffled", point="tokens=4") is None
    assert "Hot set: not judged, because counts of one domain have no second part" in render(run, "markdown")


@pytest.mark.parametrize("name", ["mixtral_8x7b_counts", "olmoe_counts_public"])
def test_published_counts_are_characterized(shared_data: Path, tmp_path: Path, name: str) -> None:
    path = shared_data / "loads" / f"{name}.json"
    table, run = json.loads(path.read_text()), characterized(path, tmp_path / "run")
    for domain, layers in table["counts"].items():
        for layer, counts in zip(table["layers"], layers, strict=True):
            hottest = numbers(run, "all").value("load_max_over_mean", layer=str(layer), domain=domain)
            assert hottest == pytest.approx(max(counts) * len(counts) / sum(counts))


def test_a_run_is_characterized_again_by_its_traces(tmp_path: Path) -> None:
    made = run_of_shape(tmp_path / "made", "mt-54b", steps=6)
    run = characterized(made, tmp_path / "run")
    assert run.record.characterized.trace.name == Run.open(made).record.name
    assert numbers(run).value("steps") == 6
    with pytest.raises(UsageError, match="no variant 'dynamic'"):
        read_recorded([made], "dynamic")


def test_what_read_a_trace_is_no_trace(tmp_path: Path) -> None:
    run = characterized(route_log(tmp_path / "talk.route.csv", STEPS), tmp_path / "run")
    with pytest.raises(UsageError, match="it ran no model and has no trace of its own"):
        read_recorded([run.path])


def test_the_number_of_experts_can_be_given(tmp_path: Path) -> None:
    log = route_log(tmp_path / "talk.route.csv", STEPS)
    log.write_text(log.read_text().replace("# n_expert=4\n", ""))
    guessed, given = characterized(log, tmp_path / "one"), characterized(log, tmp_path / "two", experts=8)
    assert "number of experts not stated in the trace" in guessed.record.notes[1]
    assert given.record.trace.num_experts == 8
    assert numbers(given).value("hot_set_by_chance", point="experts=2") == 2 / 8


def test_the_files_of_several_ranks_are_one_trace(tmp_path: Path) -> None:
    rows = [Row(step, (step + rank) % 4) for rank in range(2) for step in range(4)]
    files = []
    for rank in range(2):
        trace = trace_of(rows[4 * rank : 4 * rank + 4])
        files.append(tmp_path / f"rank{rank}.parquet")
        RoutingTrace(trace.header.model_copy(update={"rank": rank}), trace.table).write(files[-1])
    here = numbers(characterize_trace(read_recorded(files), tmp_path / "run"))
    assert (here.value("steps"), here.value("step_tokens"), here.value("sequences")) == (4, 2, 2)
    assert here.value("active_overlap") == 1 / 2


def test_counts_by_step_have_locality_and_no_tokens(tmp_path: Path) -> None:
    """Two passes of one layer use experts 0, 1 and then 1, 2."""
    counts = ChoiceCounts([0], {"all": np.array([[[3, 1, 0, 0]], [[0, 1, 1, 0]], [[0, 1, 1, 0]]])}, 1)
    (matrices,) = inputs_of_counts(counts).layers["all"]
    assert matrices[0].num_steps == 3
    trace, notes = described_counts(counts, "dump", tmp_path / "dump.pt", inputs_of_counts(counts), NO_OPTIONS)
    request = TraceRequest(trace=trace, variant="counts", counts_only=True)
    run = characterize_trace(RecordedRouting(request, counts=inputs_of_counts(counts), notes=notes), tmp_path / "run")
    here = numbers(run, "all")
    assert (here.value("steps"), here.value("active_experts"), here.value("active_overlap")) == (3, 2, 3 / 4)
    assert here.value("step_coverage", category="first half", point="experts=2") == 1 / 2
    assert here.or_none("dropped_fraction") is None
    report = render(run, "markdown")
    assert "- Not known from counts: which tokens made the choices, prompts, and an interval of any number here." in report
    assert "- Locality (all): the step before used 75.0% of a step's experts" in report


def test_counts_without_the_experts_of_a_token_are_reported_as_choices(tmp_path: Path) -> None:
    """8 choices in one step: nobody says of how many tokens they are."""
    path = tmp_path / "loads.json"
    path.write_text(json.dumps({"layers": [0], "counts": {"a": [[5, 1, 1, 1]]}}))
    report = render(run := characterized(path, tmp_path / "run"), "markdown")
    assert "4 experts in each of 1 layers; the experts of a token are not known" in report
    assert "top-1" not in report
    assert "choices/step" in report
    assert "tokens per step" not in report
    found = answer(run, RunMetrics.of(run))
    assert any("`--top-k K` states the experts of a token" in one for one in found.would_change)
    stated = characterize_trace(read_recorded([path], options=ImportOptions(top_k=2)), tmp_path / "stated")
    assert "top-2" in render(stated, "markdown")
    assert not any("--top-k" in one for one in answer(stated, RunMetrics.of(stated)).would_change)


def test_one_later_token_gives_no_interval(tmp_path: Path) -> None:
    """Of two decoded tokens the second half is one, whose two choices the first one made too."""
    log = route_log(tmp_path / "talk.route.csv", [[0, 1], [0, 1]], layers=2)
    log.write_text(log.read_text().replace("n_expert=4", "n_expert=8"))
    run = characterized(log, tmp_path / "run")
    found = answer(run, RunMetrics.of(run))
    share = next(one for one in found.numbers if one.name == "choices served by 2 hot experts")
    assert (share.value, share.low, share.high, share.remark) == (1, None, None, "no interval: 1 token")
    assert "The second half of decode has 1 token, fewer than 10." in found.light.reasons
    assert "serves 100.0% (no interval: 1 token) of the choices" in render(run, "markdown")
