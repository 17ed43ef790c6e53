"""Published expert counts: how often each expert was chosen, by domain and layer, as one JSON file."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from moeprof.records.limits import MAX_COUNT, MAX_EXPERTS, MAX_LAYERS
from moeprof.records.name import Name
from moeprof.records.system.inputs import InputFile, reported


class CountTable(BaseModel):
    """Rows of `counts[domain]` are layers, columns are experts; other keys of the file are ignored."""

    model_config = ConfigDict(strict=True, frozen=True)

    model: str = ""
    top_k: int = Field(ge=1, le=MAX_EXPERTS)
    layers: list[Annotated[int, Field(ge=0, le=MAX_COUNT)]] = Field(min_length=1, max_length=MAX_LAYERS)
    counts: dict[Name, Annotated[list[list[int]], Field(max_length=MAX_LAYERS)]] = Field(min_length=1)

    @model_validator(mode="after")
    def is_a_table(self) -> "CountTable":
        widths = {len(row) for rows in self.counts.values() for row in rows}
        if len(widths) != 1 or not min(widths):
            raise ValueError("layers have different numbers of experts")
        if not max(widths) <= MAX_EXPERTS:
            raise ValueError(f"{max(widths)} experts are more than {MAX_EXPERTS:,}")
        if self.top_k > max(widths):
            raise ValueError(f"top_k is {self.top_k}, but there are {max(widths)} experts")
        if len(set(self.layers)) < len(self.layers):
            raise ValueError("a layer occurs twice")
        for domain, rows in self.counts.items():
            if len(rows) != len(self.layers):
                raise ValueError(f"{domain} has {len(rows)} layers, not {len(self.layers)}")
            if any(not 0 <= count < 2**53 for row in rows for count in row):
                raise ValueError(f"{domain} has a count that is negative or above 2^53")
            if not any(map(any, rows)):
                raise ValueError(f"{domain} has no choices")
        return self

    @property
    def num_experts(self) -> int:
        """The number of experts of every layer."""
        return len(next(iter(self.counts.values()))[0])

    @property
    def remarks(self) -> Iterator[str]:
        """What cannot be right in a complete table: layers with different totals, and experts chosen more often than tokens.

        A layer without choices in all domains does not count.
        """
        used = [any(any(rows[place]) for rows in self.counts.values()) for place in range(len(self.layers))]
        for domain, rows in self.counts.items():
            totals = {layer: sum(row) for layer, row, is_used in zip(self.layers, rows, used, strict=True) if is_used}
            least, most = (pick(totals, key=lambda layer: totals[layer]) for pick in (min, max))
            if totals[least] < totals[most]:
                yield (
                    f"{domain} has {totals[least]:,} choices in layer {least}, but {totals[most]:,} in layer {most}; "
                    "every layer should have the same number"
                )
            if impossible := [place for place, row in enumerate(rows) if max(row) * self.top_k > sum(row)]:
                row, others = rows[impossible[0]], f"; further layers: {len(impossible) - 1}" if impossible[1:] else ""
                yield (
                    f"{domain} has {max(row):,} choices of expert {row.index(max(row))} in layer {self.layers[impossible[0]]}, but "
                    f"{sum(row):,} choices are {sum(row) // self.top_k:,} tokens with {self.top_k} different experts each{others}"
                )

    @property
    def digest(self) -> str:
        """SHA-256 of the counts."""
        return hashlib.sha256(json.dumps(self.counts).encode()).hexdigest()

    @classmethod
    def read(cls, file: Path | InputFile) -> "CountTable":
        """UsageError if the file is missing, too large, or holds no counts."""
        source = InputFile.of(file)
        with reported(
            f"count table {source.path}",
            "Give a JSON file with top_k, layers and counts: {domain: a row per layer, a column per expert}.",
        ):
            return cls.model_validate(source.json())
