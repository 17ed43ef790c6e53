"""Published expert counts: how often each expert was chosen, by domain and layer, as one JSON file."""

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from moeprof.records.errors import UsageError
from moeprof.records.files import reason
from moeprof.records.name import Name

MAX_BYTES = 64 * 2**20
"""The largest file that is read."""


class CountTable(BaseModel):
    """Rows of `counts[domain]` are layers, columns are experts; other keys of the file are ignored."""

    model_config = ConfigDict(strict=True, frozen=True)

    model: str = ""
    top_k: int = Field(ge=1)
    layers: list[int] = Field(min_length=1)
    counts: dict[Name, list[list[int]]] = Field(min_length=1)

    @model_validator(mode="after")
    def is_a_table(self) -> "CountTable":
        widths = {len(row) for rows in self.counts.values() for row in rows}
        if len(widths) != 1 or not min(widths):
            raise ValueError("layers have different numbers of experts")
        if len(set(self.layers)) < len(self.layers):
            raise ValueError("a layer occurs twice")
        for domain, rows in self.counts.items():
            if len(rows) != len(self.layers):
                raise ValueError(f"{domain} has {len(rows)} layers, not {len(self.layers)}")
            if any(not 0 <= count < 2**53 for row in rows for count in row):
                raise ValueError(f"{domain} has a count that is negative or above 2^53")
        return self

    @property
    def num_experts(self) -> int:
        """The number of experts of every layer."""
        return len(next(iter(self.counts.values()))[0])

    @property
    def digest(self) -> str:
        """SHA-256 of the counts."""
        return hashlib.sha256(json.dumps(self.counts).encode()).hexdigest()

    @classmethod
    def read(cls, path: Path) -> "CountTable":
        """UsageError if the file is missing, too large, or holds no counts."""
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ValueError(f"larger than {MAX_BYTES} bytes")
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError, ValueError) as error:
            raise UsageError(
                f"count table {path}: {reason(error)}",
                "Give a JSON file with top_k, layers and counts: {domain: a row per layer, a column per expert}.",
            ) from error
