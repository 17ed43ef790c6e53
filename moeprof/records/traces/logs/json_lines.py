"""JSON lines as a table: one object per line, of which the fields of a schema are read.

N lines, K choices.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from moeprof.records.system.inputs import InputFile, encoding_of, whole_lines
from moeprof.records.system.parsing import parsed_json, parsed_line
from moeprof.records.system.resources import num_cores
from moeprof.records.traces.choices import Ids
from moeprof.records.traces.columns import readable

MAX_LINE_BYTES = 2**21
"""The most bytes of a line. About half as many are parsed at once: larger blocks leave the processor's cache and take longer."""

WHOLE = "whole numbers from -2^31 to 2^31 - 1"
WORDS = {
    pa.string(): "text",
    pa.int64(): "a whole number",
    pa.list_(pa.int32()): f"a list of {WHOLE}",
    pa.list_(pa.float32()): "a list of numbers",
    pa.list_(pa.bool_()): "a list of true and false",
}
"""What a field must be, by its type."""

BOM = b"\xef\xbb\xbf"


def table_of_lines(file: InputFile, fields: Mapping[str, pa.DataType]) -> pa.Table:
    """The fields of every line, null where a line lacks one; other fields are ignored.

    ValueError with its number if a line is no JSON object, is longer than MAX_LINE_BYTES, or a field is of another type.
    """
    tables = list(tables_of(numbered(blocks_of(file)), fields))
    if not tables:
        raise ValueError("no lines in it")
    return pa.concat_tables(tables)


def numbered(blocks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """The blocks that are not blank, each with the number of its first line."""
    number = 1
    for content in blocks:
        if not content.isspace():
            yield number, content
        number += content.count(b"\n")


def tables_of(blocks: Iterable[tuple[int, bytes]], fields: Mapping[str, pa.DataType]) -> Iterator[pa.Table]:
    """The tables of blocks and their first lines, in this order; no more blocks are held than the cores can parse at once.

    pyarrow parses outside the interpreter's lock.
    """
    cores = num_cores()
    under_way: deque[Future[pa.Table]] = deque()
    with ThreadPoolExecutor(cores) as threads:
        for number, content in blocks:
            under_way.append(threads.submit(table_of, content, fields, number))
            if len(under_way) > cores:
                yield under_way.popleft().result()
        yield from (one.result() for one in under_way)


def blocks_of(file: InputFile) -> Iterator[bytes]:
    """Whole lines of the file in UTF-8, a block of them at once."""
    if encoding_of(file.head) != "utf-8":
        return whole_lines((text.encode() for text in file.texts()), b"\n")
    blocks = file.blocks()
    return whole_lines(chain([next(blocks, b"").removeprefix(BOM)], blocks), b"\n")


def table_of(content: bytes, fields: Mapping[str, pa.DataType], number: int) -> pa.Table:
    """The fields of lines, the first of which has a number; ValueError as in `table_of_lines`."""
    try:
        return parsed(content, fields)
    except pa.ArrowInvalid as error:
        place, line = first_refused(content, fields)
        raise ValueError(fault_of(number + place, line, fields)) from error


def parsed(content: bytes, fields: Mapping[str, pa.DataType]) -> pa.Table:
    """The fields of every line; pyarrow.ArrowInvalid if a line is wrong."""
    options = pa.json.ParseOptions(explicit_schema=pa.schema(list(fields.items())), unexpected_field_behavior="ignore")
    reading = pa.json.ReadOptions(block_size=min(MAX_LINE_BYTES, len(content) + 1), use_threads=False)
    return pa.json.read_json(pa.BufferReader(content), reading, options)


def is_parsed(content: bytes, fields: Mapping[str, pa.DataType]) -> bool:
    """Whether no line is wrong."""
    try:
        return not content.strip() or parsed(content, fields).num_rows > 0
    except pa.ArrowInvalid:
        return False


def first_refused(content: bytes, fields: Mapping[str, pa.DataType]) -> tuple[int, bytes]:
    """The place, from 0, and the text of the first wrong line, by halving the lines until one is left."""
    lines = content.splitlines(keepends=True)
    first, last = 0, len(lines)
    while last - first > 1:
        middle = (first + last) // 2
        first, last = (middle, last) if is_parsed(b"".join(lines[first:middle]), fields) else (first, middle)
    return first, lines[first]


def fault_of(number: int, line: bytes, fields: Mapping[str, pa.DataType]) -> str:
    """What is wrong with a line of this number that cannot be read; JsonError if it is not JSON."""
    if len(line) > MAX_LINE_BYTES:
        return f"line {number} has more than {MAX_LINE_BYTES:,} bytes"
    found = parsed_line(line.decode(errors="replace"), number)
    wrong = [name for name, kind in fields.items() if not is_parsed(line, {name: kind})]
    if not isinstance(found, dict) or not wrong or wrong[0] not in found:
        return f"line {number} is no JSON object, or has a value that JSON does not have"
    return f"line {number}: {wrong[0]} is {found[wrong[0]]!r:.60}, not {WORDS[fields[wrong[0]]]}"


def lines_of_type(table: pa.Table, kind: str) -> pa.Table:
    """The lines whose `type` is this; ValueError if there are none."""
    chosen_N = pc.equal(table["type"], kind).fill_null(False).to_numpy()
    if not chosen_N.any():
        raise ValueError(f"no line of type {kind} in it")
    first = int(np.argmax(chosen_N))
    return table.slice(first) if chosen_N[first:].all() else table.filter(pa.array(chosen_N))  # a slice copies nothing


def first_objects(file: InputFile, most: int = 8) -> Iterable[dict[str, object]]:
    """The objects in the first complete lines of a file, up to the first line that is none."""
    for line in file.head_text.split("\n")[:most]:
        try:
            found = parsed_json(line)
        except ValueError:
            return
        if not isinstance(found, dict):
            return
        yield found


def lists_of(table: pa.Table, name: str, what: str) -> npt.NDArray[Any]:
    """A column of lists of K values as (N, K); ValueError if a list is missing, empty, or of another length, or a value is missing."""
    length_N = pc.list_value_length(table[name]).fill_null(0).to_numpy()
    if len(wrong := np.flatnonzero((length_N != length_N[:1]) | (length_N == 0))):
        raise ValueError(f"{what} {int(wrong[0])} has {length_N[wrong[0]]} values in {name}, but the first has {length_N[0]}")
    values = pc.list_flatten(table[name])
    if values.null_count:
        raise ValueError(f"{name} has an empty value")
    return np.asarray(values.to_numpy()).reshape(-1, int(length_N[0]))


def optional_lists(table: pa.Table, name: str, like_NK: npt.NDArray[Any], missing: float | bool) -> npt.NDArray[Any] | None:
    """A column of lists as (N, K), with one value in rows that lack it; None if all do. ValueError if a list has another length."""
    has_N = table[name].is_valid().to_numpy()
    if not has_N.any():
        return None
    found = lists_of(table if has_N.all() else table.filter(pa.array(has_N)), name, "row")
    if found.shape[1] != like_NK.shape[1]:
        raise ValueError(f"a row has {like_NK.shape[1]} experts, but {found.shape[1]} values in {name}")
    if has_N.all():
        return found
    values_NK = np.full(like_NK.shape, missing, found.dtype)
    values_NK[has_N] = found
    return values_NK


def numbers_in(table: pa.Table, name: str, most: int = 2**31 - 1) -> Ids:
    """A column of whole numbers from 0, (N,); ValueError if one is missing or out of range."""
    column = table[name]
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise ValueError(f"row {row} lacks {name}")
    with readable(f"{name} is not of whole numbers"):
        values = column.cast(pa.int64()).to_numpy()
    if len(values) and not (values.min() >= 0 and values.max() <= most):
        raise ValueError(f"{name} {values[(values < 0) | (values > most)][0]} is not between 0 and {most:,}")
    return np.asarray(values)
