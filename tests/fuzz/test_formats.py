"""Damaged files of the formats of every tool, and archives of them, end in a result or in two clear lines, soon."""

import gzip
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.cli import group
from moeprof.records.placement_formats.registry import PLACEMENT_FORMATS
from moeprof.records.system.inputs import InputFile
from moeprof.records.traces.formats import FORMATS, format_of

from .check import assert_survives, examples, new_folder
from .mutations import TENSORS, VALUES, damaged, with_other_bytes, with_other_values
from .samples import PLACEMENTS, SCORES, TORCH, TORCH_MAPS, TRACES, parquet_bytes, torch_bytes

STATED = ["--layers", "1-2", "--top-k", "2"]
WAYS: list[tuple[str, list[Any]]] = [
    *(("convert", ["--to", target, *STATED]) for target in ("counts", "route-csv", "sglang", "vllm")),
    ("convert", ["--to", "counts"]),
    ("convert", ["--to", "counts", "--physical", "--keep-padding", "--keep-warmup", *STATED[:2]]),
    ("characterize", STATED),
    ("replay", ["--balance", "--devices", "2", *STATED]),
]
"""What is done with a trace: a command and its options."""

COLUMNS = [[value] * 12 for value in (None, -1, 2**40, "x", [], [1], [-1, 0], [1, None], [0.5, float("nan")], ["a", "b"])]
"""Columns of a table."""


def assert_trace_survives(content: bytes, command: str, options: list[Any]) -> int:
    """Does something with a file, whose name says nothing."""
    with new_folder() as folder:
        (folder / "file").write_bytes(content)
        out = [folder / "out"] if command == "convert" else ["--quiet", "--out", folder / "out"]
        return assert_survives(folder, command, folder / "file", *out, *options)


def assert_placement_survives(content: bytes) -> int:
    """Shows a placement and converts it; the exit codes are the same."""
    with new_folder() as folder:
        (folder / "file").write_bytes(content)
        facts = ["--ranks", "2", "--layers", "1-2"]
        shown = assert_survives(folder, "placement", "show", folder / "file", *facts)
        assert_survives(folder, "convert", folder / "file", folder / "out", "--to", "placement", *facts)
        return shown


def test_there_is_a_file_of_every_format(tmp_path: Path) -> None:
    found = set()
    for name, content in TRACES.items():
        (tmp_path / "file").write_bytes(content)
        found.add(entry := format_of(InputFile(tmp_path / "file")).name)
        assert name.startswith(entry)
    assert found == {*FORMATS}
    assert {name.removesuffix("-document") for name in PLACEMENTS} == {*PLACEMENT_FORMATS}


@pytest.mark.parametrize("name", sorted(TRACES))
def test_a_whole_trace(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(TRACES[name])
    target = ["route-csv"] if name in ("route-csv-batch", "cache-lab-stages") else ["counts", *STATED]
    assert group.run(["convert", str(tmp_path / "file"), str(tmp_path / "out"), "--to", *target]) == 0


@pytest.mark.parametrize("name", sorted(name for name, content in {**TRACES, **PLACEMENTS}.items() if content[:1] in b"{["))
def test_json_that_was_cut_or_is_broken_is_said_to_be_with_its_place(name: str, tmp_path: Path) -> None:
    whole = (TRACES.get(name) or PLACEMENTS[name]).rstrip()
    middle = whole.index(b":" if b":" in whole else b",") + 1
    read = {"placement": PLACEMENTS, "characterize": TRACES}
    for content, what, remedy in (
        (whole[:-1], "truncated JSON: it ends at line ", "Copy or record the file again: a part of it is missing."),
        (
            whole[:middle] + b",," + whole[middle:],
            "broken JSON at line ",
            "Correct the file at this place, or record it again.",
        ),
    ):
        (tmp_path / "file").write_bytes(content)
        for command in (command for command, samples in read.items() if name in samples):
            said, shown = StringIO(), ["show"] * (command == "placement")
            with redirect_stderr(said):
                assert group.run([command, *shown, str(tmp_path / "file")]) == 2
            lines = said.getvalue().splitlines()
            assert what in lines[-2], lines
            assert lines[-1] == remedy


@pytest.mark.parametrize("name", sorted(TRACES))
@settings(**examples(2))
@given(data=st.data())
def test_a_damaged_trace(name: str, data: st.DataObject) -> None:
    content = data.draw(damaged(TRACES[name]), label="content")
    assert_trace_survives(content, *data.draw(st.sampled_from(WAYS), label="way"))


@pytest.mark.parametrize("name", sorted(TORCH))
@settings(**examples(3))
@given(data=st.data())
def test_other_values_in_a_file_of_torch(name: str, data: st.DataObject) -> None:
    document = data.draw(with_other_values(TORCH[name], [*VALUES, *TENSORS]), label="document")
    assert_trace_survives(torch_bytes(document), *data.draw(st.sampled_from(WAYS), label="way"))


@settings(**examples(6))
@given(data=st.data())
def test_other_columns_in_a_table_of_lists(data: st.DataObject) -> None:
    table = data.draw(with_other_values(SCORES, COLUMNS).filter(is_table), label="table")
    assert_trace_survives(parquet_bytes(table), *data.draw(st.sampled_from(WAYS), label="way"))


def is_table(columns: Any) -> bool:
    """Whether the columns can be those of a table."""
    try:
        return pa.table(columns).num_columns > 0
    except (pa.ArrowException, TypeError, ValueError, AttributeError):
        return False


@settings(**examples(6))
@given(data=st.data())
def test_a_damaged_archive(data: st.DataObject) -> None:
    whole = TRACES[data.draw(st.sampled_from(sorted(TRACES)), label="name")]
    pack = data.draw(st.sampled_from([gzip.compress, lambda content: pa.Codec("zstd").compress(content, asbytes=True)]))
    assert_trace_survives(data.draw(with_other_bytes(pack(whole)), label="content"), *WAYS[0])


@pytest.mark.parametrize("name", sorted(PLACEMENTS))
@settings(**examples(2))
@given(data=st.data())
def test_a_damaged_placement_of_a_tool(name: str, data: st.DataObject) -> None:
    assert assert_placement_survives(PLACEMENTS[name]) == 0
    assert_placement_survives(data.draw(damaged(PLACEMENTS[name]), label="content"))


@pytest.mark.parametrize("name", sorted(TORCH_MAPS))
@settings(**examples(3))
@given(data=st.data())
def test_other_values_in_a_placement_of_torch(name: str, data: st.DataObject) -> None:
    document = data.draw(with_other_values(TORCH_MAPS[name], [*VALUES, *TENSORS]), label="document")
    assert_placement_survives(torch_bytes(document))
