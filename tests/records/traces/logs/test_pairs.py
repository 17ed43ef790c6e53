"""A trace that goes through any two formats with choices has the same choices."""

from itertools import permutations
from pathlib import Path

import pytest

from moeprof.records.system.inputs import InputFile
from moeprof.records.traces.formats import FORMATS, format_of, read_trace_file
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.layer_map import LayerMap
from moeprof.records.traces.trace_format import TraceFile
from tests.records.traces.logs.again import random_file

NAMES = ("route-csv", "sglang-api", "vllm", "cache-lab", "selections")
OPTIONS = ImportOptions(layers=LayerMap((2, 3), 4), top_k=2, experts=8)


def choices_of(file: TraceFile) -> list[tuple[int, ...]]:
    """All choices with their places, whatever the order of the rows."""
    names = ("sequence", "position", "slot", "expert")
    return sorted(
        tuple(int(row[name]) for name in ("layer", *names)) for trace in file.traces for row in trace.table.to_pylist()
    )


def through(file: TraceFile, name: str, folder: Path) -> TraceFile:
    """What is read of the file after it was written in a format."""
    entry = FORMATS[name]
    assert entry.write is not None
    entry.write(file, folder / name)
    assert format_of(InputFile(folder / name)).name == name
    return read_trace_file(folder / name, options=OPTIONS)


@pytest.mark.parametrize(("first", "second"), [*permutations(NAMES, 2)])
def test_any_two_formats_keep_the_choices(tmp_path: Path, first: str, second: str) -> None:
    of_prompts = "selections" in (first, second)
    file = random_file([5, 1, 4], 9 if of_prompts else 3, 2, 2, seed=3, first_layer=2)
    again = through(through(file, first, tmp_path), second, tmp_path)
    assert choices_of(again) == choices_of(file)
    assert {trace.header.phase for trace in again.traces} == {trace.header.phase for trace in file.traces}
    assert len(choices_of(file)) == 10 * 2 * 2
