"""The format `score-lists`: Parquet with the lists `indices` and `scores` of every token and layer.

A row is one token of one layer, named in columns `token` (or `position`, `token_idx`) and `layer`, with an optional `sequence`. Without
a column of layers, each file of a recording is one layer, whose number is the last one in the file's name, and its rows are tokens.
"""

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from moeprof.records.limits import MAX_LAYERS
from moeprof.records.name import name_from
from moeprof.records.system.inputs import InputFile, reported
from moeprof.records.traces.choices import Ids
from moeprof.records.traces.columns import MAGIC, read_table, readable
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.importing import Stated, imported
from moeprof.records.traces.layer_map import check_numbers
from moeprof.records.traces.logs.json_lines import lists_of, numbers_in, optional_lists
from moeprof.records.traces.logs.rows import ChoiceRows, choices_of, joined
from moeprof.records.traces.trace_format import TraceFile, TraceFormat

NAME = "score-lists"
TOKENS = ("position", "token_position", "token_idx", "token_index", "token")
LAYERS = ("layer", "layer_id", "layer_idx")
SEQUENCES = ("sequence", "sequence_id", "prompt", "sample")
NO_PHASES = "the file does not state which tokens were decoded: each is taken as a step of decoding"


def is_score_lists(file: InputFile) -> bool:
    """Whether the file is Parquet with lists of experts."""
    if not file.head.startswith(MAGIC):
        return False
    with file.opened() as opened:
        try:
            with readable("not Parquet"):
                schema = pq.read_schema(opened)
        except ValueError:
            return False
    return "indices" in schema.names and b"moeprof" not in (schema.metadata or {})


def read_score_lists(files: Sequence[InputFile], options: ImportOptions) -> TraceFile:
    """The tokens of all files; UsageError if one is damaged or does not say its layer."""
    parts = []
    for file in files:
        with reported(
            f"score lists {file.path}", "Give Parquet with the lists indices and scores, and the columns token and layer."
        ):
            parts.append(rows_of(read_table(file), file))
    with reported(f"score lists {files[0].path}", "Give the files of one recording, with the layers of the model."):
        rows = joined(parts)
        check_numbers(np.unique(rows.layer_R).tolist(), options.layers)
        name = name_from(files[0].path.name.partition(".")[0], "trace")
        return imported(choices_of(rows), Stated(NAME, name, by_layer=True, notes=[NO_PHASES]), options)


def rows_of(table: pa.Table, file: InputFile) -> ChoiceRows:
    """The rows of one file; ValueError if a column is missing or of another type."""
    if not table.num_rows:
        raise ValueError("no choices in it")
    if not pa.types.is_integer(kind := kind_of_list(table, "indices")):
        raise ValueError(f"indices holds values of type {kind}, not whole numbers")
    if "scores" in table.column_names and not pa.types.is_floating(kind := kind_of_list(table, "scores")):
        raise ValueError(f"scores holds values of type {kind}, not fractions")
    experts_RK = lists_of(table, "indices", "row").astype(np.int64)
    weights_RK = optional_lists(table, "scores", experts_RK, np.nan) if "scores" in table.column_names else None
    layer_R = column(table, LAYERS, MAX_LAYERS - 1)
    position_R = column(table, TOKENS)
    if layer_R is None:
        layer_R = np.full(table.num_rows, layer_in(file.path.name))
    elif position_R is None:
        raise ValueError(f"no column of tokens: {', '.join(TOKENS)}")
    sequence_R = column(table, SEQUENCES)
    return ChoiceRows(
        np.zeros(table.num_rows, np.int64) if sequence_R is None else sequence_R,
        np.arange(table.num_rows) if position_R is None else position_R,
        np.ones(table.num_rows, bool),
        layer_R,
        experts_RK,
        None if weights_RK is None else weights_RK.astype(np.float32),
    )


def kind_of_list(table: pa.Table, name: str) -> pa.DataType:
    """The type of the values in a column of lists; ValueError if it is none."""
    kind = table.schema.field(name).type
    if not pa.types.is_list(kind) and not pa.types.is_large_list(kind):
        raise ValueError(f"{name} is of type {kind}, not a list per token and layer")
    return kind.value_type


def column(table: pa.Table, names: Sequence[str], most: int = 2**31 - 1) -> Ids | None:
    """The first of several columns that is there; None if none is."""
    found = next((name for name in names if name in table.column_names), None)
    return None if found is None else numbers_in(table, found, most)


def layer_in(name: str) -> int:
    """The last number in the name of a file; ValueError if it has none."""
    numbers = re.findall(r"\d+", name.partition(".")[0])
    if not numbers or len(numbers[-1]) > len(str(MAX_LAYERS)) or int(numbers[-1]) >= MAX_LAYERS:
        raise ValueError(f"neither a column {', '.join(LAYERS)} nor a number in the file's name says its layer")
    return int(numbers[-1])


SCORE_LISTS = TraceFormat(
    NAME, "Parquet with lists of experts and scores (*.parquet)", recognise=is_score_lists, read=read_score_lists
)
