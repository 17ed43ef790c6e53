"""The JSON file of expert counts: how often each expert was chosen, by domain and layer."""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from moeprof.records.limits import MAX_COUNT, MAX_LAYERS, ExpertCount
from moeprof.records.name import Name
from moeprof.records.system.files import write_text
from moeprof.records.system.inputs import InputFile, reported
from moeprof.records.traces.choice_counts import ChoiceCounts

REMEDY = "Give a JSON file with top_k, layers and counts: {domain: a row per layer, a column per expert}."


class CountTable(BaseModel):
    """Rows of `counts[domain]` are layers, columns are experts; other keys of the file are ignored."""

    model_config = ConfigDict(strict=True, frozen=True)

    model: str = ""
    top_k: ExpertCount | None = None
    layers: list[Annotated[int, Field(ge=0, le=MAX_COUNT)]] = Field(min_length=1, max_length=MAX_LAYERS)
    counts: dict[Name, Annotated[list[list[int]], Field(max_length=MAX_LAYERS)]] = Field(min_length=1)


def read_counts(file: Path | InputFile) -> ChoiceCounts:
    """UsageError if the file is missing, too large, or holds no counts."""
    source = InputFile.of(file)
    with reported(f"count table {source.path}", REMEDY):
        table = CountTable.model_validate(source.json())
        return counts_of(table)


def counts_of(table: CountTable) -> ChoiceCounts:
    """The table as arrays; ValueError if its rows differ in length or hold impossible counts."""
    if len(set(table.layers)) < len(table.layers):
        raise ValueError("a layer occurs twice")
    for domain, rows in table.counts.items():
        if len(rows) != len(table.layers):
            raise ValueError(f"{domain} has {len(rows)} layers, not {len(table.layers)}")
        if any(not 0 <= count < 2**53 for row in rows for count in row):
            raise ValueError(f"{domain} has a count that is negative or above 2^53")
    widths = {len(row) for rows in table.counts.values() for row in rows}
    if len(widths) != 1 or not min(widths):
        raise ValueError("layers have different numbers of experts")
    counts = {domain: np.array(rows, np.int64)[None] for domain, rows in table.counts.items()}
    return ChoiceCounts(table.layers, counts, table.top_k, table.model)


def write_counts(counts: ChoiceCounts, path: Path) -> None:
    """Writes the totals over all steps, with one line per layer."""
    head = {"model": counts.model, "top_k": counts.top_k, "layers": counts.layers}
    domains = ",\n".join(
        f"  {json.dumps(domain)}: [\n" + ",\n".join(f"   {row.tolist()}" for row in counts.totals(domain)) + "\n  ]"
        for domain in counts.counts
    )
    write_text(path, json.dumps(head, indent=1)[:-2] + ',\n "counts": {\n' + domains + "\n }\n}\n")
