"""Random traces that are written and read again."""

from pathlib import Path
from typing import Any

import numpy as np

from moeprof.records.system.inputs import InputFile
from moeprof.records.traces.formats import format_of, read_trace_file
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.importing import Stated, imported
from moeprof.records.traces.trace_format import TraceFile, TraceFormat
from tests.records.traces.logged import logged, random_experts


def random_file(lengths: list[int], prompt: int, layers: int, top_k: int, seed: int, first_layer: int = 0) -> TraceFile:
    """Sequences of these lengths, each with a prompt, with token ids and weights."""
    drawn = np.random.default_rng(seed)
    sequence_T = np.repeat(np.arange(len(lengths)), lengths)
    position_T = np.concatenate([np.arange(length) for length in lengths])
    decode_T = position_T >= prompt
    begins_T = decode_T | (position_T == 0)
    choices = logged(
        random_experts(len(sequence_T), layers, top_k, seed=seed),
        layers=range(first_layer, first_layer + layers),
        step_T=np.cumsum(begins_T) - 1,
        sequence_T=sequence_T,
        position_T=position_T,
        decode_T=decode_T,
        token_id_T=drawn.integers(0, 9, len(sequence_T)),
        weights_TLK=drawn.random((len(sequence_T), layers, top_k)),
    )
    return imported(choices, Stated("made-up", "talk", experts=8), ImportOptions(keep_padding=True))


def assert_read_again(file: TraceFile, entry: TraceFormat, path: Path, **options: Any) -> None:
    """The columns that the format keeps are those of the file, and so are its phases, layers and numbers."""
    assert entry.write is not None
    entry.write(file, path)
    again = read_trace_file(path, options=ImportOptions(**options))
    assert format_of(InputFile(path)).name == entry.name
    assert [trace.header.phase for trace in again.traces] == [trace.header.phase for trace in file.traces]
    for one, other in zip(again.traces, file.traces, strict=True):
        facts = {"num_experts", "top_k", "layers", "workload"}
        assert one.header.model_dump(include=facts) == other.header.model_dump(include=facts)
        for name in {"step", "slot", "expert"} | entry.keeps - {"phase", "domain", "residency"}:
            assert np.array_equal(one.column(name), other.column(name), equal_nan=name == "weight"), name
