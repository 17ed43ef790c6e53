"""Text of comma-separated values with one header line; blank lines and lines with `#` may be anywhere."""

import csv
import re
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.csv

OTHER = re.compile(r"^[ \t]*#.*$|^[ \t]+$", re.MULTILINE)
"""A line with `#`, or one of white space."""

CELLS = re.compile(r"^(?![ \t]*(?:#|$)).+$", re.MULTILINE)
"""Any other line; the first is the header."""


def comments_of(text: str) -> str:
    """The lines with `#`."""
    return "\n".join(OTHER.findall(text)) if "#" in text else ""


def header_of(text: str) -> list[str]:
    """The names in the header line, quoted or not; [] if there is none."""
    line = CELLS.search(text)
    return [name.strip() for name in next(csv.reader([line[0]], skipinitialspace=True))] if line else []


def table_of(text: str, needed: Mapping[str, pa.DataType], optional: Mapping[str, pa.DataType]) -> pa.Table:
    """The needed columns and the optional ones that are present; ValueError, with the line, if one is missing or a cell is wrong."""
    first, header = CELLS.search(text), header_of(text)
    if first is None:
        raise ValueError("no header line in it")
    if missing := [name for name in needed if name not in header]:
        raise ValueError(f"line {line_of(text, -1)}: column {missing[0]!r} is not in the header {first[0][:80]!r}")
    kinds = {name: kind for name, kind in {**needed, **optional}.items() if name in header}
    if repeated := [name for name in kinds if header.count(name) > 1]:
        raise ValueError(f"line {line_of(text, -1)}: column {repeated[0]!r} is twice in the header")
    try:
        return pa.csv.read_csv(
            pa.py_buffer(without_others(text[first.start() :]).encode()),
            read_options=pa.csv.ReadOptions(column_names=header, skip_rows=1, use_threads=False),  # threads do not count rows
            convert_options=pa.csv.ConvertOptions(column_types=kinds, include_columns=list(kinds), null_values=[]),
        )
    except pa.ArrowMemoryError:
        raise
    except pa.ArrowException as error:
        raise ValueError(located(str(error), text, header)) from error


def without_others(text: str) -> str:
    """The text without comments and white space in a line of their own; most texts have none, which is found out quickly."""
    return OTHER.sub("", text) if any(mark in text for mark in "# \t") else text


def line_of(text: str, row: int) -> int:
    """The line number of a row of the table, the first of which is 0; -1 is the header."""
    lines = (number for number, line in enumerate(text.split("\n"), start=1) if CELLS.match(line))
    return next(number for index, number in enumerate(lines, start=-1) if index == row)


def located(message: str, text: str, header: list[str]) -> str:
    """Arrow's message with the line in place of the row, which it counts from the header, and with the column's name.

    In CSV column #4: Row #3: CSV conversion error to int32: invalid value 'x'  ->  line 5, column 'expert': invalid value 'x'
    """
    found = re.match(r"(?:In CSV column #(\d+)|CSV parse error): Row #(\d+): (?:CSV conversion error to \S+: )?", message)
    if not found:
        return "not a table of comma-separated values"
    column = f", column {header[int(found[1])]!r}" if found[1] else ""
    return f"line {line_of(text, int(found[2]) - 2)}{column}: {message[found.end() :]}"
