"""One registry of trace formats: one call makes a format known to replays of caches and placements and to forced routing."""

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from moeprof.instrument.step import Step
from moeprof.moe.forced import make_forced_routing
from moeprof.records.errors import UsageError
from moeprof.records.system.inputs import InputFile
from moeprof.records.traces.formats import FORMATS, format_of, read_routing, read_trace_file, register
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.layer_map import LayerMap
from moeprof.records.traces.native_formats import COUNT_TABLE, RUN_TRACE
from moeprof.records.traces.trace_format import TraceFile, TraceFormat, only
from moeprof.studies.replay.loads import read_loads
from moeprof.studies.replay.placements import PlacementOptions, replay_placements
from moeprof.studies.replay.source import read_source
from moeprof.studies.replay.study import CacheOptions, replay_caches
from tests.analysis.traces import Row, trace_of
from tests.moe.drawn import make_recipe
from tests.records.run.runs import fault, value_of
from tests.studies.replay.logs import route_log

COUNTS = {"top_k": 1, "layers": [0], "counts": {"a": [[3, 1]], "b": [[0, 4]]}}
CHOICES = [(0, 3), (1, 2), (2, 3), (0, 1)]
"""The experts of four tokens, first choice first."""


def read_made_up(files: Sequence[InputFile], options: ImportOptions) -> TraceFile:
    """Lines such as `0 3`: one token's experts, each token a step of a top-2 decode phase with four experts of 100 bytes."""
    file = only(files)
    rows = [
        Row(step, int(expert), slot, position=step, layer="0")
        for step, line in enumerate(file.text().splitlines()[1:])
        for slot, expert in enumerate(line.split())
    ]
    return TraceFile(file.path.stem, [trace_of(rows, layers=("0",))], expert_bytes={"0": 100})


MADE_UP = TraceFormat(
    "made-up",
    "a made-up log (*.made)",
    recognise=lambda file: file.head.startswith(b"made-up\n"),
    read=read_made_up,
)


@pytest.fixture
def made_up(tmp_path: Path) -> Iterator[Path]:
    """A file of a format that one call registers; its name gives nothing away."""
    register(MADE_UP)
    path = tmp_path / "talk.txt"
    path.write_text("made-up\n" + "".join(f"{first} {second}\n" for first, second in CHOICES))
    yield path
    del FORMATS[MADE_UP.name]


def test_a_replay_of_caches_reads_a_registered_format(made_up: Path, tmp_path: Path) -> None:
    run = replay_caches(read_source(made_up), CacheOptions(policies=["lru"], slots=[2]), tmp_path / "run")
    at = {"phase": "decode", "variant": "static", "point": "policy=lru;slots=2"}
    # experts in order of id: 0, 3 | 1, 2 | 2, 3 | 0, 1: only the second use of 2 hits
    assert value_of(run, "misses", **at) == 7
    assert value_of(run, "bytes_loaded", **at) == 700
    assert run.record.name == "talk"


def test_a_replay_of_placements_reads_a_registered_format(made_up: Path, tmp_path: Path) -> None:
    options = PlacementOptions(balancers=["contiguous"], devices=[2])
    run = replay_placements(read_loads(made_up), options, tmp_path / "run")
    at = {"phase": "decode", "variant": "static", "point": "balancer=contiguous;devices=2"}
    # test steps: experts 2 and 3 are both on device 1, experts 0 and 1 both on device 0
    assert value_of(run, "avg_max_load", **at) == 1


def test_forced_routing_reads_a_registered_format(made_up: Path) -> None:
    forced = make_forced_routing(make_recipe(experts=4, source=f"trace:{made_up}"))
    assert forced is not None
    sequence_T, position_T, token_T = (np.array(column, np.int32) for column in ([0, 0], [2, 0], [0, 0]))
    experts_TK, _ = forced.source.draw("0", Step(None, None, "decode", 0, "prose", sequence_T, position_T, token_T))
    assert experts_TK.tolist() == [[2, 3], [0, 3]]


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="'route-csv' is registered already"):
        register(FORMATS["route-csv"])


def test_every_format_is_recognised_by_its_content(tmp_path: Path) -> None:
    """Under a name that has nothing to do with the format."""
    log = route_log(tmp_path / "log.txt", [[0, 1]])
    (tmp_path / "packed.bin").write_bytes(gzip.compress(log.read_bytes()))
    (tmp_path / "counts.txt").write_text(json.dumps(COUNTS))
    trace_of([Row(0, 1)]).write(tmp_path / "trace.bin")
    names = {path.name: format_of(InputFile(path)).name for path in tmp_path.iterdir()}
    assert names == {"log.txt": "route-csv", "packed.bin": "route-csv", "counts.txt": "counts", "trace.bin": "run"}


def test_an_unknown_file_is_answered_with_where_the_formats_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("nothing of the kind\n")
    for read in (read_trace_file, read_routing, read_source, read_loads):
        with pytest.raises(UsageError) as caught:
            read(path)
        what, remedy = str(caught.value).splitlines()
        assert what == f"trace {path}: text that begins with 'nothing of the kind'"
        assert (
            remedy == "Give a routing trace or a table of counts; docs/traces.md lists the formats, --from FORMAT states one."
        )


def test_a_count_table_drives_neither_caches_nor_routers(tmp_path: Path) -> None:
    path = tmp_path / "counts.json"
    path.write_text(json.dumps(COUNTS))
    for read in (read_source, read_routing):
        found = fault(lambda read=read: read(path))  # type: ignore[misc]
        assert found == f"trace {path}: a count table (*.json) holds loads, and not the choices of tokens"
    assert read_trace_file(path, loads_only=True).counts is not None


def test_what_a_format_writes_it_reads_again(tmp_path: Path) -> None:
    trace = trace_of([Row(0, 1), Row(1, 2)])
    assert RUN_TRACE.write is not None
    RUN_TRACE.write(TraceFile("trace", [trace]), tmp_path / "trace.parquet")
    (read,) = read_routing(tmp_path / "trace.parquet")
    assert (read.header, read.table.to_pylist()) == (trace.header, trace.table.to_pylist())
    with pytest.raises(ValueError, match="there are 2 traces; name a folder"):
        RUN_TRACE.write(TraceFile("trace", [trace, trace]), tmp_path / "trace.parquet")


def test_counts_are_written_and_read_again_and_choices_are_not_counts(tmp_path: Path) -> None:
    path = tmp_path / "counts.json"
    path.write_text(json.dumps(COUNTS))
    assert COUNT_TABLE.write is not None
    COUNT_TABLE.write(read_trace_file(path, loads_only=True), again := tmp_path / "again.json")
    assert json.loads(again.read_text())["counts"] == COUNTS["counts"]
    with pytest.raises(ValueError, match="holds choices of tokens, not counts"):
        COUNT_TABLE.write(TraceFile("trace", [trace_of([Row(0, 1)])]), again)


def test_counts_take_the_number_of_choices_that_the_user_states_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "counts.json"
    path.write_text(json.dumps({key: value for key, value in COUNTS.items() if key != "top_k"}))
    unstated, stated = read_loads(path), read_loads(path, options=ImportOptions(top_k=2))
    assert (unstated.trace.top_k, stated.trace.top_k) == (1, 2)
    assert "choices of a token not stated: tokens are counted as choices (set --top-k K)" in unstated.notes
    assert not any("--top-k" in note for note in stated.notes)
    path.write_text(json.dumps(COUNTS))
    assert fault(lambda: read_loads(path, options=ImportOptions(top_k=2))) == (
        f"count table {path}: it states 1 choices of a token, but the options or the model's configuration 2"
    )


def test_layers_and_choices_that_a_user_states_must_be_those_of_a_file_of_moeprof(tmp_path: Path) -> None:
    (counts := tmp_path / "counts.json").write_text(json.dumps(COUNTS))
    trace_of([Row(0, 1, layer="0")], layers=("0",)).write(trace := tmp_path / "trace.parquet")
    for path in (counts, trace):
        for options, why in (
            (ImportOptions(layers=LayerMap((1, 2))), "layer 0 has choices, but no experts by the stated layers"),
            (ImportOptions(top_k=2), "it states 1 choices of a token, but the options or the model's configuration 2"),
        ):
            with pytest.raises(UsageError, match=why):
                read_trace_file(path, loads_only=True, options=options)
        assert read_trace_file(path, loads_only=True, options=ImportOptions(layers=LayerMap((0, 1)), top_k=1))


def test_a_missing_file_is_two_lines(tmp_path: Path) -> None:
    assert fault(lambda: read_routing(tmp_path / "absent.csv")) == f"trace {tmp_path}/absent.csv: no such file or directory"
