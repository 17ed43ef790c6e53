"""The format `sglang`: what SGLang's expert distribution recorder dumps, in any of its modes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from moeprof.records.system import torch_file
from moeprof.records.system.inputs import InputFile, reported
from moeprof.records.traces.count_arrays import counts_of, steps_added_up, with_dense_layers
from moeprof.records.traces.dumps.sglang_passes import check_ranks, rank_passes, read_per_pass
from moeprof.records.traces.dumps.sglang_records import records_of
from moeprof.records.traces.dumps.sglang_stat import read_stat
from moeprof.records.traces.dumps.sglang_tokens import read_per_token
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.trace_format import TraceFile, TraceFormat

REMEDY = "Give expert_distribution_recorder_*.pt as SGLang wrote it; the files of all ranks, and of one recording only."
KEYS = (b"average_utilization_rate_over_window", b"forward_pass_id", b"last_physical_to_logical_map")


def is_recorder_dump(file: InputFile) -> bool:
    """Whether the file is one of torch with the keys of SGLang's recorder."""
    return torch_file.is_torch_file(file) and any(key in file.head for key in KEYS)


def read_dump(files: Sequence[InputFile], options: ImportOptions) -> TraceFile:
    """The counts or choices in the files of all ranks; UsageError if they are damaged or do not belong together."""
    documents = []
    for source in files:
        with reported(f"SGLang dump {source.path}", REMEDY):
            document = torch_file.load(source)
            documents.append(document)
            if isinstance(document, dict) and "logical_count" in document:
                if len(files) > 1:
                    raise ValueError("its counts are of all ranks already, so it is the only file of a recording")
                return read_stat(source, document, options)
            rank_passes(source, document)
    with reported(f"SGLang dump {files[0].path}", REMEDY):
        ranks = [rank_passes(source, document) for source, document in zip(files, documents, strict=True)]
        check_ranks(ranks, options)
        return (read_per_token if ranks[0].per_token else read_per_pass)(ranks, options)


def write_dump(file: TraceFile, path: Path) -> None:
    """Writes choices as the mode `per_token` does, and counts as `stat`; UsageError if a token has more choices than it can hold."""
    if file.traces:
        document = records_of(file.traces, path, shared_steps=file.shared_steps)
    else:
        counts_SLE = with_dense_layers(steps_added_up(counts_of(file)), counts_of(file).layers)
        narrow = np.int32 if counts_SLE.max() < 2**31 else np.int64
        document = {"rank": 0, "logical_count": counts_SLE.astype(narrow), "average_utilization_rate_over_window": None}
    torch_file.save(path, document)


SGLANG = TraceFormat(
    "sglang",
    "a dump of SGLang's expert distribution recorder (*.pt)",
    recognise=is_recorder_dump,
    read=read_dump,
    write=write_dump,
    keeps=frozenset({"step", "position", "token_id", "phase"}),
    repeats=True,
    omits=frozenset({"top_k"}),
    either=True,
)
