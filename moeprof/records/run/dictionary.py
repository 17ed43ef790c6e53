"""The dictionary of a run directory, `dictionary.json`: what its metrics and the columns of its files are, with units and formulas."""

import json
from collections.abc import Iterable
from pathlib import Path

from moeprof.records.metrics.registry import COLUMNS, METRICS
from moeprof.records.run.columns import note_of
from moeprof.records.system.files import write_text
from moeprof.records.system.inputs import reported

NAME = "dictionary.json"

Description = dict[str, str]
"""A metric or a column, by what is said about it."""


def write_dictionary(folder: Path, metrics: Iterable[str]) -> None:
    """Writes the dictionary of the run directory, whose table of metrics has these."""
    document = {"metrics": described(metrics), "files": files_of(folder)}
    write_text(folder / NAME, json.dumps(document, indent=1) + "\n")


def described(metrics: Iterable[str]) -> list[Description]:
    """The metrics, each once; without those of other versions, which `metrics.csv` gives the unit and kind of."""
    known = [METRICS[name] for name in dict.fromkeys(metrics) if name in METRICS]
    return [
        {"metric": one.name, "unit": one.unit, "better": one.better, "kind": one.kind, "formula": one.formula} for one in known
    ]


def files_of(folder: Path) -> dict[str, list[Description]]:
    """The columns of `metrics.csv` and of every Parquet file, by its path in the run directory; UsageError if one is damaged."""
    import pyarrow.parquet as pq

    from moeprof.records.traces.columns import readable

    found = {"metrics.csv": [column_entry("metrics.csv", name, "double" if name == "value" else "string") for name in COLUMNS]}
    for path in sorted(folder.rglob("*.parquet")):
        name = path.relative_to(folder).as_posix()
        with (
            reported(f"run {folder}: {name}", "Repeat the run."),
            path.open("rb") as file,  # pyarrow opens no path that is not UTF-8
            readable("damaged"),
        ):
            schema = pq.read_schema(file)
        found[name] = [column_entry(path.name, field.name, str(field.type)) for field in schema]
    return found


def column_entry(file_name: str, column: str, kind: str) -> Description:
    """A column with its type and, if this version knows it, its unit and meaning."""
    try:
        unit, meaning = note_of(file_name, column)
    except KeyError:
        unit = meaning = ""
    return {"column": column, "type": kind, "unit": unit, "meaning": meaning}
