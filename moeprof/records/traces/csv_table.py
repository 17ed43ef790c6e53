"""Text of comma-separated values with one header line; blank lines and lines with `#` may be anywhere."""

import csv
import re
from collections.abc import Mapping
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.csv

OTHER = re.compile(r"\n(?:[ \t]*+#[^\n]*|[ \t]++(?=\n|\Z))")
"""The end of a line, and behind it a line with `#` or of white space. The fixed first character makes the search quick."""

MAX_OTHERS = 2**20
"""The most such lines: far more than a log has layers."""

MAX_HEADER = 2**16
"""The most characters of the header line."""


def comments_of(text: str) -> str:
    """The lines with `#` or of white space; ValueError if there are more than MAX_OTHERS, before others are read."""
    if not has_others(text):
        return ""
    found = [match[0] for match in islice(OTHER.finditer("\n" + text), MAX_OTHERS + 1)]
    if len(found) > MAX_OTHERS:
        raise ValueError(f"more than {MAX_OTHERS:,} lines with # or of white space")
    return "".join(found)


def header_of(text: str) -> list[str]:
    """The names in the header line, quoted or not; [] if there is none. ValueError if the line is longer than MAX_HEADER."""
    line = header_line(without_others(text))
    return [name.strip() for name in next(csv.reader([line], skipinitialspace=True))] if line else []


def header_line(values: str) -> str:
    """The first line that is not blank; errors as in `header_of`."""
    start = len(values) - len(values.lstrip("\n"))
    line = values[start : start + MAX_HEADER + 1].partition("\n")[0]
    if len(line) > MAX_HEADER:
        raise ValueError(f"the header line has more than {MAX_HEADER:,} characters")
    return line


def table_of(text: str, needed: Mapping[str, pa.DataType], optional: Mapping[str, pa.DataType]) -> pa.Table:
    """The needed columns and the optional ones that are present; ValueError, with the line, if one is missing or a cell is wrong."""
    values = without_others(text)
    if not (header := header_of(values)):
        raise ValueError("no header line in it")
    if missing := [name for name in needed if name not in header]:
        raise ValueError(f"line {line_of(values, -1)}: column {missing[0]!r} is not in the header {header_line(values)[:80]!r}")
    kinds = {name: kind for name, kind in {**needed, **optional}.items() if name in header}
    if repeated := [name for name in kinds if header.count(name) > 1]:
        raise ValueError(f"line {line_of(values, -1)}: column {repeated[0]!r} is twice in the header")
    try:
        return pa.csv.read_csv(
            pa.py_buffer(values.lstrip("\n").encode()),
            read_options=pa.csv.ReadOptions(column_names=header, skip_rows=1, use_threads=False),  # threads do not count rows
            convert_options=pa.csv.ConvertOptions(column_types=kinds, include_columns=list(kinds), null_values=[]),
        )
    except pa.ArrowMemoryError:
        raise
    except pa.ArrowException as error:
        raise ValueError(located(str(error), values, header)) from error


def without_others(text: str) -> str:
    """The text with blank lines in the place of comments and white space."""
    return OTHER.sub("\n", "\n" + text)[1:] if has_others(text) else text


def has_others(text: str) -> bool:
    """Whether there may be lines with `#` or of white space."""
    return any(mark in text for mark in "# \t")


def line_of(text: str, row: int) -> int:
    """The line number of a row of the table, the first of which is 0; -1 is the header."""
    ends_L = np.flatnonzero(np.frombuffer(f"{without_others(text)}\n".encode(), np.uint8) == ord("\n"))
    filled_L = np.diff(ends_L, prepend=-1) > 1
    return int(np.flatnonzero(filled_L)[row + 1]) + 1


def located(message: str, text: str, header: list[str]) -> str:
    """Arrow's message with the line in place of the row, which it counts from the header, and with the column's name.

    In CSV column #4: Row #3: CSV conversion error to int32: invalid value 'x'  ->  line 5, column 'expert': invalid value 'x'
    """
    found = re.match(r"(?:In CSV column #(\d+)|CSV parse error): Row #(\d+): (?:CSV conversion error to \S+: )?", message)
    if not found:
        return "not a table of comma-separated values"
    column = f", column {header[int(found[1])]!r}" if found[1] else ""
    return f"line {line_of(text, int(found[2]) - 2)}{column}: {message[found.end() :]}"
