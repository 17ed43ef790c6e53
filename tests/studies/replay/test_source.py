"""Whatever can be replayed is read and checked; whatever cannot is two lines for the user."""

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moeprof.records.errors import UsageError
from moeprof.records.recipe.files import load_recipe
from moeprof.records.run.raw_tables import STEPS as STEPS_TABLE
from moeprof.records.run.run import RunRecord
from moeprof.records.run.writer import RunWriter
from moeprof.records.traces.formats import read_routing
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.routing_trace import RoutingTrace
from moeprof.studies.replay import checks
from moeprof.studies.replay.loads import read_loads
from moeprof.studies.replay.source import execution_order, read_source
from moeprof.studies.replay.study import CacheOptions, replay_caches
from tests.analysis.traces import Row, trace_of
from tests.records.run.runs import fault
from tests.studies.replay.logs import EXPERT_BYTES, route_log, run_of_shape

STEPS = [[0, 1], [2, 1], [0, 3]]


def test_a_route_log_says_how_large_its_experts_are(tmp_path: Path) -> None:
    source = read_source(route_log(tmp_path / "talk.route.csv", STEPS, prefill=[[1, 2]], layers=2))
    assert source.trace.name == "talk"
    assert source.trace.expert_bytes == {"0": EXPERT_BYTES, "1": 2 * EXPERT_BYTES}
    assert (source.trace.num_experts, source.trace.top_k, source.trace.layers) == (4, 2, ["0", "1"])
    assert list(source.selection.traces) == ["prefill", "decode"]
    assert source.selection.file.as_logged
    assert source.trace.weight_bytes is None
    assert source.notes == []


def test_a_run_says_it_by_its_recipe(tmp_path: Path) -> None:
    source = read_source(run_of_shape(tmp_path / "run", "mt-54b", steps=2))
    assert set(source.trace.expert_bytes.values()) == {2 * 33_564_672}  # paper 1.1: 33,564,672 parameters in two bytes
    assert list(source.trace.expert_bytes) == [f"dec.{index}" for index in (3, 7, 11, 15, 19, 23)]
    assert source.trace.weight_bytes is not None
    assert source.trace.weight_bytes / 2 == pytest.approx(54.50e9, rel=1e-3)
    assert not source.selection.file.as_logged


def test_a_file_of_a_run_finds_the_runs_recipe_and_any_other_file_has_none(tmp_path: Path) -> None:
    run = run_of_shape(tmp_path / "run", "mt-54b", steps=2)
    file = next((run / "routing").iterdir())
    assert read_source(file).trace.expert_bytes == read_source(run).trace.expert_bytes
    assert read_source(file).trace.decisions == read_source(run).trace.decisions
    alone = file.rename(tmp_path / file.name)
    source = read_source(alone)
    assert source.trace.expert_bytes == {}
    assert source.notes[-1] == "expert size unknown: bytes, times and memory are omitted (set --expert-bytes SIZE)"


def test_a_run_that_was_timed_says_how_long_a_step_took(tmp_path: Path) -> None:
    run = run_of_shape(tmp_path / "run", "mt-54b", steps=2)
    assert read_source(run).trace.step_ns == {}
    header = "workload,phase,domain,variant,point,rank,layer,region,category,metric,unit,kind,value\n"
    row = "mt,{},{},static,,,,,,step_latency,ns,timed,{}\n"
    (run / "metrics.csv").write_text(header + row.format("encode", "", 9) + row.format("decode", "prose", 7))
    assert read_source(run).trace.step_ns == {"decode": 7}
    (run / "metrics.csv").write_text(header + row.format("decode", "prose", 7) + row.format("decode", "", 8))
    assert read_source(run).trace.step_ns == {"decode": 8}


def test_the_size_of_an_expert_can_be_said(tmp_path: Path) -> None:
    source = read_source(route_log(tmp_path / "talk.route.csv", STEPS, layers=2, sizes=False), expert_bytes=77)
    assert source.trace.expert_bytes == {"0": 77, "1": 77}


def test_a_guessed_number_of_experts_is_a_remark_and_can_be_set(tmp_path: Path) -> None:
    log = route_log(tmp_path / "talk.route.csv", [[0, 1], [2, 1]])
    assert "states 4 experts" in fault(lambda: read_source(log, options=ImportOptions(experts=8)))
    assert read_source(log, options=ImportOptions(experts=4)).trace.num_experts == 4
    log.write_text(log.read_text().replace("# n_expert=4\n", ""))
    source = read_source(log)
    assert source.trace.num_experts == 3
    assert source.notes[1:] == ["number of experts not stated in the trace: taken as 3 from its highest id (set --experts N)"]
    stated = read_source(log, options=ImportOptions(experts=4))
    assert stated.trace.num_experts == stated.selection.cache_inputs.stream.num_experts == 4
    assert stated.notes == source.notes[:1]
    assert "expert 2 is not below 2" in fault(lambda: read_source(log, options=ImportOptions(experts=2)))


def test_one_phase_can_be_asked_for(tmp_path: Path) -> None:
    log = route_log(tmp_path / "talk.route.csv", STEPS, prefill=[[1, 2]])
    assert list(read_source(log, "decode").selection.traces) == ["decode"]
    assert list(read_source(log, "decode").trace.decisions) == ["decode/imported"]


def test_a_trace_without_decode_steps_says_so_or_is_refused(tmp_path: Path) -> None:
    log = route_log(tmp_path / "talk.route.csv", [], prefill=STEPS)
    assert read_source(log).notes == ["no decode steps in the trace: all results are of prefill alone"]
    assert "no choices in phase decode" in fault(lambda: read_source(log, "decode"))


def test_the_variant_is_static_gatings_unless_another_is_asked_for(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", RunRecord(command="optimize", recipe=load_recipe("lm-tiny")))
    for variant, expert in (("dynamic", 1), ("static", 2)):
        trace = trace_of([Row(0, expert), Row(0, 3, slot=1)], num_experts=32, layers=("1", "3"))
        writer.add_trace(type(trace)(trace.header.model_copy(update={"variant": variant}), trace.table))
    writer.finish()
    assert read_source(tmp_path / "run").selection.variant == "static"
    assert read_source(tmp_path / "run", variant="dynamic").selection.traces["decode"][0].column("expert").tolist() == [1, 3]
    assert "no variant 'tutel'" in fault(lambda: read_source(tmp_path / "run", variant="tutel"))


def test_encoders_come_before_decoders_and_numbers_count_as_numbers() -> None:
    layers = ["dec.11", "12", "enc.7", "dec.3", "3", "enc.11"]
    assert sorted(layers, key=execution_order) == ["3", "enc.7", "enc.11", "12", "dec.3", "dec.11"]


# What is wrong with a trace


def test_a_layer_of_which_nothing_was_recorded_is_named(tmp_path: Path) -> None:
    log = route_log(tmp_path / "talk.route.csv", STEPS, layers=3)
    log.write_text("".join(line for line in log.read_text().splitlines(keepends=True) if ",1," not in line[5:9]))
    source = read_source(log, "decode")
    assert source.trace.layers == ["0", "2"]
    assert source.notes == ["no choices recorded in layer 1, so it is left out"]


def test_a_layer_that_misses_some_steps_is_named(tmp_path: Path) -> None:
    log = route_log(tmp_path / "talk.route.csv", STEPS, layers=2)
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(line for line in lines if not line.startswith("0,1,2,1,")))
    run = replay_caches(read_source(log), CacheOptions(slots=[2], policies=["lru"]), tmp_path / "run")
    assert run.record.notes[1:] == ["decode: layers with fewer than the 3 steps of the phase: 1 (2)"]


def test_a_layer_whose_expert_has_no_size_is_an_error(tmp_path: Path) -> None:
    log = route_log(tmp_path / "talk.route.csv", STEPS, layers=2)
    log.write_text("".join(line for line in log.read_text().splitlines(keepends=True) if "layer=1" not in line))
    assert "expert size of layer 1 unknown" in fault(lambda: read_source(log))
    assert read_source(log, expert_bytes=5).trace.expert_bytes == {"0": 5, "1": 5}


def test_unknown_weights_change_nothing(tmp_path: Path) -> None:
    log = route_log(tmp_path / "nan.route.csv", STEPS)
    known = tmp_path / "known.route.csv"
    known.write_text(log.read_text().replace(",nan,", ",0.5,"))
    assert read_source(log).trace.decisions == read_source(known).trace.decisions


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text.replace("expert,", "exprt,"), "line 4: column 'expert' is not in the header"),
        (lambda text: text.replace("0,1,1,0,0,2,", "0,1,1,0,0,4,"), "expert 4 is not below 4"),
        (lambda text: text.replace("0,1,1,0,0,2,", "0,1,1,0,0,-1,"), "expert -1 is negative"),
        (lambda text: text + text.splitlines()[-1] + "\n", "occurs twice"),
        (lambda text: text.replace("0,1,1,0,0,2,", "0,1,1,0,0,two,"), "column 'expert'"),
        (lambda text: "".join(line for line in text.splitlines(keepends=True) if line[0] in "#t"), "no choices"),
    ],
)
def test_a_damaged_log_is_two_lines(tmp_path: Path, damage: Callable[[str], str], reason: str) -> None:
    log = route_log(tmp_path / "talk.route.csv", STEPS)
    changed = damage(log.read_text())
    assert changed != log.read_text()
    log.write_text(changed)
    assert reason in fault(lambda: read_source(log))


def test_an_archive_that_ends_early_is_two_lines(tmp_path: Path) -> None:
    log = route_log(tmp_path / "talk.route.csv", STEPS * 50)
    packed = tmp_path / "talk.route.csv.gz"
    packed.write_bytes(gzip.compress(log.read_bytes()))
    assert len(read_source(packed).selection.traces["decode"][0]) == 300
    packed.write_bytes(packed.read_bytes()[:-20])
    assert fault(lambda: read_source(packed)) == f"trace {packed}: truncated gzip file"


def parquet(path: Path, rows: list[Row], **header: Any) -> Path:
    """A routing file, written without any check."""
    trace = trace_of(rows)
    document = json.loads(trace.header.model_dump_json()) | header
    pq.write_table(trace.table.replace_schema_metadata({b"moeprof": json.dumps(document).encode()}), path)
    return path


def test_a_damaged_routing_file_is_two_lines(tmp_path: Path) -> None:
    twice = parquet(tmp_path / "twice.parquet", [Row(0, 1), Row(0, 2)])
    assert "slot 0 occurs twice in step 0 of layer 1 (sequence 0, position 0)" in fault(lambda: read_source(twice))
    foreign = parquet(tmp_path / "foreign.parquet", [Row(0, 3)], num_experts=3)
    assert "expert 3 is outside 0 to 2" in fault(lambda: read_source(foreign))
    empty = parquet(tmp_path / "empty.parquet", [])
    assert "no choices in it" in fault(lambda: read_source(empty))
    phase = parquet(tmp_path / "phase.parquet", [Row(0, 1)], phase="train")
    assert "unknown phase 'train'" in fault(lambda: read_source(phase))
    columns = tmp_path / "columns.parquet"
    pq.write_table(pa.table({"step": [1]}), columns)
    assert "routing trace" in fault(lambda: read_source(columns))


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([Row(0, 1), Row(0, 2, 1), Row(1, 3)], "a token has 1 of 2 choices in step 1 of layer 1 (sequence 0, position 0)"),
        ([Row(0, 1), Row(0, 1, 1)], "expert 1 occurs twice among a token's choices in step 0 of layer 1"),
        ([Row(0, 1), Row(0, 2, 1), Row(-1, 1), Row(-1, 2, 1)], "step -1 is negative"),
        ([Row(0, 1, position=-3), Row(0, 2, 1, position=-3)], "position -3 is negative"),
    ],
)
def test_incomplete_and_repeated_choices_are_refused_in_every_format(tmp_path: Path, rows: list[Row], reason: str) -> None:
    trace = trace_of(rows)
    file = tmp_path / "one.parquet"
    trace.write(file)
    writer = RunWriter(tmp_path / "run", RunRecord(command="characterize", recipe=load_recipe("lm-tiny")))
    writer.add_trace(trace)
    for path in (file, writer.finish().path):
        assert f"trace {path}: decode: {reason}" in fault(lambda path=path: read_source(path))
        assert reason in fault(lambda path=path: read_routing(path))


def test_a_log_that_ends_inside_a_token_is_refused(tmp_path: Path) -> None:
    log = route_log(tmp_path / "talk.route.csv", STEPS)
    log.write_text(log.read_text().rstrip("\n").rpartition("\n")[0] + "\n")
    assert "decode: a token has 1 of 2 choices in step 2 of layer 0" in fault(lambda: read_source(log))


def test_missing_steps_are_a_remark(tmp_path: Path) -> None:
    log = route_log(tmp_path / "talk.route.csv", [*STEPS, *STEPS], prefill=[[1, 2]])
    whole = log.read_text().splitlines(keepends=True)
    assert not any("missing" in note for note in read_source(log).notes)
    log.write_text("".join(line for line in whole if not line.startswith(("0,1,2,", "0,1,3,", "0,1,5,"))))
    assert "steps missing in the trace: 3, the first after step 1; the others are replayed" in read_source(log).notes


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("# n_expert=8\n", "n_expert is both 4 and 8"),
        ("# n_expert_used=5\n", "a token has 5 choices, but there are 4 experts"),
        ("# n_expert_used=3\n", "a token has 2 of 3 choices in step 0 of layer 0"),
        ("# n_expert_used=1\n", "slot 1 is not below 1"),
        ("# n_expert_used=-2\n", "n_expert_used=-2 is not a whole number"),
    ],
)
def test_what_a_log_states_is_held_against_its_choices(tmp_path: Path, line: str, reason: str) -> None:
    log = route_log(tmp_path / "talk.route.csv", STEPS)
    log.write_text(line + log.read_text())
    assert reason in fault(lambda: read_source(log))


def test_matrices_of_placements_that_do_not_fit_in_memory_are_refused_before_they_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4 experts in 2 steps of a layer: 5 matrices of 4 x 4 numbers and 3 of 4 x 2, in 8 bytes each."""
    path = parquet(tmp_path / "t.parquet", [Row(0, 1), Row(1, 2)])
    monkeypatch.setattr(checks, "free_memory", lambda: 8 * (5 * 16 + 3 * 8))
    assert read_loads(path).trace.num_experts == 4
    monkeypatch.setattr(checks, "free_memory", lambda: 8 * (5 * 16 + 3 * 8) - 1)
    needed = "4 experts in 2 steps of 1 layers need matrices of 832 B, but 831 B of memory are free"
    assert fault(lambda: read_loads(path)) == f"trace {path}: {needed}"


def run_of_two_ranks(path: Path, ranks: Sequence[int] = (0, 1), **header: Any) -> Path:
    """A run of two ranks with a trace of each of `ranks`."""
    writer = RunWriter(path, RunRecord(command="characterize", recipe=load_recipe("lm-tiny", ["parallel.ranks=2"])))
    trace = trace_of([Row(0, 1), Row(0, 3, slot=1)], num_experts=32, layers=("1", "3"))
    for rank in ranks:
        writer.add_trace(RoutingTrace(trace.header.model_copy(update={"rank": rank} | header), trace.table))
    return writer.finish().path


def test_every_rank_of_a_run_has_one_trace(tmp_path: Path) -> None:
    run = run_of_two_ranks(tmp_path / "run")
    assert [one.header.rank for one in read_source(run).selection.traces["decode"]] == [0, 1]
    file = run / "routing" / "decode-static-rank1.parquet"
    assert "the file holds the choices of rank 1 alone, of 2 ranks of the run" in read_source(file).notes
    assert not any("alone, of" in note for note in read_source(run).notes)
    copy = file.with_name("decode-static-rank1 (copy).parquet")
    copy.write_bytes(file.read_bytes())
    assert "decode, static: ranks 0, 1, 1; each of 0 to 1 is needed once" in fault(lambda: read_source(run))
    copy.rename(file.with_name("._decode-static-rank1.parquet"))
    assert len(read_source(run).selection.traces["decode"]) == 2
    file.unlink()
    assert "decode, static: ranks 0; each of 0 to 1 is needed once" in fault(lambda: read_source(run))
    assert "ranks 0, 2; each" in fault(lambda: read_source(run_of_two_ranks(tmp_path / "other", ranks=(0, 2))))


def test_a_phase_that_was_recorded_has_its_traces(tmp_path: Path) -> None:
    run = run_of_two_ranks(tmp_path / "run")
    cells = {"variant": "static", "domain": "prose", "layer": "1", "step": 0, "rows": 1, "tokens": 1}
    steps = [cells | {"phase": phase, "rank": 0, "expert_rows": 1, "judged": True} for phase in ("score", "decode")]
    pq.write_table(pa.Table.from_pylist(steps, schema=STEPS_TABLE.schema), run / STEPS_TABLE.file_name)
    assert "traces of score, static: ranks none; each of 0 to 1 is needed once" in fault(lambda: read_source(run))


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"num_experts": 8}, "experts 8; the run's recipe has 32"),
        ({"layers": ["1", "2"]}, "layers 1, 2; the run's recipe has 1, 3"),
        ({"top_k": 3}, "top_k 3; the run's recipe has 2"),
    ],
)
def test_the_experts_and_layers_of_a_runs_traces_are_those_of_its_recipe(
    tmp_path: Path, header: dict[str, Any], reason: str
) -> None:
    run = run_of_two_ranks(tmp_path / "run")
    file = run / "routing" / "decode-static-rank1.parquet"
    trace = RoutingTrace.read(file)
    table = trace.table
    if "top_k" in header:
        extra = trace_of([Row(0, 1), Row(0, 3, slot=1), Row(0, 5, slot=2)], num_experts=32, layers=("1", "3"))
        table = extra.table
    RoutingTrace(trace.header.model_copy(update=header), table).write(file)
    assert reason in fault(lambda: read_source(run))
    assert reason in fault(lambda: read_source(file))


def test_the_inputs_that_were_replayed_wrongly_are_refused(shared_data: Path) -> None:
    cases = shared_data.parent / "cases"
    found = {
        "two_ranks_rank1_lost": "ranks 0; each of 0 to 1",
        "last_token_cut.route.csv": "a token has 1 of 2 choices in step 2",
        "duplicate_expert.parquet": "expert 6 occurs twice among a token's choices in step 0",
    }
    for name, reason in found.items():
        if (cases / name).exists():
            assert reason in fault(lambda name=name: read_source(cases / name))


def test_what_is_no_trace_at_all_is_two_lines(tmp_path: Path) -> None:
    assert "no such file or directory" in fault(lambda: read_source(tmp_path / "absent.route.csv"))
    assert fault(lambda: read_source(tmp_path)).endswith("a folder without run.json, so not a run directory")
    log = route_log(tmp_path / "talk.route.csv", STEPS)
    replayed = replay_caches(read_source(log), CacheOptions(slots=[2], policies=["lru"]), tmp_path / "run")
    assert "it ran no model and has no trace of its own" in fault(lambda: read_source(replayed.path))
    bare = RunWriter(tmp_path / "bare", RunRecord(command="characterize", recipe=load_recipe("lm-tiny"))).finish()
    assert "no choices in it" in fault(lambda: read_source(bare.path))


def test_a_name_from_a_file_is_a_plain_folder_name(tmp_path: Path) -> None:
    run = run_of_shape(tmp_path / "run", "mt-54b", steps=1)
    text = (run / "run.json").read_text().replace('"name": "', '"name":"')
    (run / "run.json").write_text(text.replace('"name":"mt-54b"', '"name":"two words"'))
    assert read_source(run).trace.name == "two_words"
    (run / "run.json").write_text(text.replace('"name":"mt-54b"', '"name":"../up"'))
    with pytest.raises(UsageError, match="is not a valid name"):
        read_source(run)
