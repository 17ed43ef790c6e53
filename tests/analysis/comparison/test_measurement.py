"""A side of a comparison as it comes from run directories: numbers, rounds, processes, and what decides about comparing."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from moeprof.analysis.comparison.measurement import decisions_hash, measurement_of, read_measurements, settings_of
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.recipe.files import load_recipe
from moeprof.records.run.run import Environment, Run, RunRecord
from moeprof.records.run.writer import RunWriter
from moeprof.records.traces.columns import NAMES
from moeprof.records.traces.routing_trace import COLUMNS, RoutingTrace
from tests.records.run.runs import CHOICES, fault, run_of, trace_of

SPEED = MetricRow("throughput", 0, "lm", "score", variant="static").address
MEMORY = MetricRow("memory_static", 0, "lm").address
DROPPED = MetricRow("dropped_fraction", 0, "lm", "score", variant="static").address


# One run


def test_a_run_becomes_its_numbers_with_the_rounds_of_throughput_and_what_they_depend_on(tmp_path: Path) -> None:
    subject = measurement_of([run_of(tmp_path / "run")])
    assert (subject.recipe, subject.command, subject.valid, subject.reasons) == ("lm-tiny", "characterize", True, ())
    assert [(one.address[-1], one.unit, one.kind, one.value, one.samples) for one in subject.numbers] == [
        ("throughput", "tokens/s", "timed", 1000, ((900, 1000, 1100),)),
        ("memory_static", "bytes", "exact", 4096, ()),
        ("dropped_fraction", "fraction", "routed", 0.25, ()),
        ("step_latency", "ns", "timed", 7, ()),
    ]
    assert list(subject.by_address)[:3] == [SPEED, MEMORY, DROPPED]
    assert subject.machine == {"cpu": "Example 9000", "cores": "2", "threads": "1", "gpu": "", "driver": ""}
    assert (subject.packages, subject.texts, subject.weights) == ({"torch": "2.13.0"}, {"prose": "a" * 64}, "c" * 64)
    assert subject.routing == {"score/static": decisions_hash(trace_of())}


def test_rounds_come_in_their_order_and_belong_to_their_own_address(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", RunRecord(command="characterize", recipe=load_recipe("lm-tiny")))
    rows = [MetricRow("throughput", 5, "lm", phase, variant="static") for phase in ("score", "decode")]
    writer.add_metrics(rows)
    writer.add_samples(rows[1], [7, 9, 8])
    writer.add_samples(rows[0], [3, 1, 2])
    writer.samples.reverse()
    subject = measurement_of([writer.finish()])
    assert [one.samples for one in subject.numbers] == [((3, 1, 2),), ((7, 9, 8),)]


def test_rounds_of_a_part_are_not_kept_because_nothing_is_decided_by_them(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", RunRecord(command="characterize", recipe=load_recipe("lm-tiny")))
    whole, domain, point = (
        MetricRow("throughput", 5, "lm", "score", variant="static", **part)
        for part in ({}, {"domain": "code"}, {"point": "batch=2"})
    )
    for row in (whole, domain, point):
        writer.add_metrics([row])
        writer.add_samples(row, [3, 1, 2])
    assert [one.samples for one in measurement_of([writer.finish()]).numbers] == [((3, 1, 2),), (), ()]


def test_an_invalid_run_is_an_invalid_subject_with_its_reasons(tmp_path: Path) -> None:
    subject = measurement_of([run_of(tmp_path / "run", reasons=["interrupted", "too few rounds"])])
    assert (subject.valid, subject.reasons) == (False, ("interrupted", "too few rounds"))


def test_a_run_that_was_never_finished_is_read_and_not_valid(tmp_path: Path) -> None:
    RunWriter(tmp_path / "run", RunRecord(command="characterize", recipe=load_recipe("lm-tiny")))
    (subject,) = read_measurements(tmp_path / "run")
    assert (subject.valid, subject.reasons, subject.numbers) == (False, ("not finished",), ())


@pytest.mark.parametrize("rounds", [[900, 0], [900, -1], [900, float("nan")], [900, float("inf")]])
def test_rounds_that_no_clock_measured_are_refused(tmp_path: Path, rounds: list[float]) -> None:
    run = run_of(tmp_path / "run", rounds)
    assert fault(lambda: measurement_of([run])).startswith(f"run {tmp_path}/run: samples.0.1: must be ")


@pytest.mark.parametrize("value", ["fast", b"\xff", [1.0]])
def test_rounds_that_are_no_numbers_are_refused(tmp_path: Path, value: Any) -> None:
    run = run_of(tmp_path / "run")
    table = run.samples.astype({"value": object}).assign(value=[value] * len(run.samples))
    table.to_parquet(tmp_path / "run" / "samples.parquet")
    assert fault(lambda: measurement_of([Run.open(tmp_path / "run")])).startswith(f"run {tmp_path}/run: ")


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        (",exact,", ",guessed,", "kind: must be 'exact'"),
        ("memory_static,bytes,exact", "step_latency,ns,timed", "step_latency is recorded twice at one address"),
    ],
)
def test_a_table_that_breaks_what_every_run_keeps_is_refused(tmp_path: Path, old: str, new: str, what: str) -> None:
    file = run_of(tmp_path / "run").path / "metrics.csv"
    text = file.read_text().replace(old, new)
    file.write_text(text.replace("lm,,,,,,,,,step", "lm,score,,static,,,,,,step"))
    assert what in fault(lambda: measurement_of([Run.open(tmp_path / "run")]))


# Several processes


def test_of_processes_a_time_is_the_median_and_every_round_is_kept(tmp_path: Path) -> None:
    for index, (value, rounds) in enumerate([(1000, [990, 1010]), (1300, [1290, 1310, 1300]), (1100, [1100])]):
        run_of(tmp_path / "runs" / f"process-{index}", rounds, value=value)
    (subject,) = read_measurements(tmp_path / "runs")
    speed = subject.by_address[SPEED]
    assert (speed.value, speed.samples) == (1100, ((990, 1010), (1290, 1310, 1300), (1100,)))
    assert (subject.by_address[MEMORY].value, subject.by_address[DROPPED].value) == (4096, 0.25)


def test_a_number_that_only_some_processes_have_is_kept(tmp_path: Path) -> None:
    run_of(tmp_path / "runs" / "0")
    later = run_of(tmp_path / "runs" / "1")
    (later.path / "metrics.csv").write_text((later.path / "metrics.csv").read_text() + "lm,,,,,,,,,capacity,slots,exact,7\n")
    (subject,) = read_measurements(tmp_path / "runs")
    assert [one.value for one in subject.numbers if one.address[-1] == "capacity"] == [7]


def test_one_invalid_process_makes_the_subject_invalid(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / "a"), run_of(tmp_path / "b", reasons=["interrupted"])]
    assert (measurement_of(runs).valid, measurement_of(runs).reasons) == (False, ("interrupted",))


def test_processes_that_disagree_on_an_exact_number_are_refused(tmp_path: Path) -> None:
    runs = [run_of(tmp_path / "a"), run_of(tmp_path / "b", memory=4097)]
    assert fault(lambda: measurement_of(runs)) == f"run {tmp_path}/b: memory_static differs from {tmp_path}/a"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"overrides": ["load.batch_size=3"]}, "recipe"),
        ({"text_hashes": {"prose": "0" * 64}}, "text"),
        ({"weights_hash": "0" * 64}, "checkpoint"),
        ({"environment": Environment(cpu="Example 1", cores=2, threads=1)}, "machine"),
    ],
)
def test_runs_that_did_not_do_the_same_are_no_processes_of_one_subject(
    tmp_path: Path, changes: dict[str, Any], what: str
) -> None:
    runs = [run_of(tmp_path / "a"), run_of(tmp_path / "b", **changes)]
    assert fault(lambda: measurement_of(runs)) == f"run {tmp_path}/b: different {what} than {tmp_path}/a"


def test_processes_whose_routers_disagree_have_the_routing_of_neither(tmp_path: Path) -> None:
    other = trace_of([*CHOICES[:-1], (1, 0, 2, "3", 0, 3)])
    runs = [run_of(tmp_path / "a"), run_of(tmp_path / "b"), run_of(tmp_path / "c", traces=[other])]
    assert measurement_of(runs[:2]).routing == measurement_of(runs[:1]).routing
    assert measurement_of(runs).routing["score/static"] not in (decisions_hash(trace_of()), decisions_hash(other))


def test_runs_of_several_recipes_and_commands_are_several_subjects(tmp_path: Path) -> None:
    run_of(tmp_path / "runs" / "b" / "deep")
    run_of(tmp_path / "runs" / "a", recipe="mt-tiny")
    run_of(tmp_path / "runs" / "c", command="optimize")
    found = [(subject.recipe, subject.command) for subject in read_measurements(tmp_path / "runs")]
    assert found == [("mt-tiny", "characterize"), ("lm-tiny", "characterize"), ("lm-tiny", "optimize")]


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_what_holds_no_run_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    what = fault(lambda: read_measurements(tmp_path / name))
    assert what == f"{tmp_path}/{name}: not a run directory, folder of runs, or baseline file"


# What decides whether two may be compared


def test_settings_hold_what_a_recipe_asks_for_and_no_path(tmp_path: Path) -> None:
    trace_of().write(tmp_path / "score-static-rank0.parquet")
    paths = [f"data.files={{prose='{tmp_path}/prose.txt'}}", f"routing.source=trace:{tmp_path}", "model.checkpoint=''"]
    settings = settings_of(load_recipe("lm-tiny", paths))
    assert str(tmp_path) not in str(settings)
    assert (settings["data"]["files"], settings["schema"], settings["name"]) == (["prose"], 1, "lm-tiny")
    assert "checkpoint" not in settings["model"]
    assert not {"train", "description"} & set(settings)
    assert settings_of(load_recipe("lm-tiny", ["routing.source=zipf:1.2"]))["routing"]["source"] == "zipf:1.2"


def test_settings_change_with_the_load_and_with_who_decides() -> None:
    usual = settings_of(load_recipe("lm-tiny"))
    assert settings_of(load_recipe("lm-tiny", ["load.batch_size=3"])) != usual
    assert settings_of(load_recipe("lm-tiny", ["routing.source=uniform"])) != usual
    for key in ("train.steps=1", "measure.rounds=40", "parallel.timeout_s=9.5"):
        assert settings_of(load_recipe("lm-tiny", [key])) == usual


def test_the_hash_of_decisions_changes_with_a_single_expert_step_position_or_layer() -> None:
    step, sequence, position, layer, slot, expert = CHOICES[-1]
    changed = [
        (step, sequence, position, layer, slot, expert + 1),
        (step + 1, sequence, position, layer, slot, expert),
        (step, sequence + 1, position, layer, slot, expert),
        (step, sequence, position + 1, layer, slot, expert),
        (step, sequence, position, "1", slot, expert),
        (step, sequence, position, layer, slot + 1, expert),
    ]
    hashes = {decisions_hash(trace_of([*CHOICES[:-1], one])) for one in [CHOICES[-1], *changed]}
    assert len(hashes | {decisions_hash(trace_of(CHOICES[:-1])), decisions_hash(trace_of([]))}) == 9


def test_the_hash_of_decisions_does_not_change_with_what_was_dropped_weighed_or_hit() -> None:
    others = [{"dropped": True}, {"weight": 0.25}, {"residency": 1}, {"domain": "law"}]
    assert {decisions_hash(trace_of(**one)) for one in others} == {decisions_hash(trace_of())}  # type: ignore[arg-type]


def test_the_hash_of_decisions_is_the_same_however_the_file_keeps_the_names_of_layers(tmp_path: Path) -> None:
    trace = trace_of()
    trace.write(tmp_path / "trace.parquet")
    place = COLUMNS.names.index("layer")
    codes = [{"9": 0, "3": 1, "1": 2}[name] for name in trace.table["layer"].to_pylist()]
    column = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(["9", "3", "1"])).cast(NAMES)
    other = RoutingTrace(trace.header, trace.table.set_column(place, COLUMNS.field(place), column))
    assert other.table["layer"].to_pylist() == trace.table["layer"].to_pylist()
    assert decisions_hash(RoutingTrace.read(tmp_path / "trace.parquet")) == decisions_hash(trace) == decisions_hash(other)


def test_the_routing_of_a_phase_is_that_of_all_its_ranks(tmp_path: Path) -> None:
    ranks = [trace_of(), trace_of(CHOICES[:2], rank=1)]
    changed = [trace_of(CHOICES[:3]), trace_of(CHOICES[:2], rank=1)]
    routing = [
        measurement_of([run_of(tmp_path / str(index), traces=traces)]).routing for index, traces in enumerate([ranks, changed])
    ]
    assert list(routing[0]) == list(routing[1]) == ["score/static"]
    assert routing[0] != routing[1]
