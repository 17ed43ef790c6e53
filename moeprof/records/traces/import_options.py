"""What a user may state about a foreign trace, and what its import reports."""

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from moeprof.records.limits import ExpertCount, NonNegative
from moeprof.records.name import Name
from moeprof.records.traces.layer_map import LayerMap


class ImportOptions(BaseModel):
    """Facts that a file may lack, and rows that are kept although they are not tokens of a user."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: str | None = None
    """Name of the format; None to recognise it by the content."""
    layers: LayerMap | None = None
    """Which layers of the model have experts; None if it is not stated."""
    top_k: ExpertCount | None = None
    experts: ExpertCount | None = None
    keep_padding: bool = False
    keep_warmup: bool = False
    strip_tokens: bool = False
    """Whether token ids are left out, so that the text cannot be read from the trace."""
    physical: bool = False
    """Whether ids of physical experts are kept, although the file maps them to logical ones."""


class ImportReport(BaseModel):
    """What an import kept and left out; counts of rows, each of which is one token of one layer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Name
    kept: NonNegative
    padding: NonNegative = 0
    """Rows of -1, and rows that a CUDA graph repeats to fill its batch."""
    warmup: NonNegative = 0
    """Leading rows of identical choices."""
    cached: NonNegative = 0
    """Positions that a prefix cache served, whose experts were never computed."""
    sentinels: NonNegative = 0
    """Choices of no expert among those of a token that was kept."""
    repeated: NonNegative = 0
    """Rows with two copies of one expert, which are two choices of it; in all other traces a token's experts differ."""
    order_doubt: str = ""
    """Why the steps may not be all, or not in the order of the recording; empty if there is no doubt."""
    notes: list[str] = []
    """Further remarks, one sentence each."""

    @property
    def lines(self) -> Iterator[str]:
        """Remarks for a report: what was left out, and the notes."""
        left_out = {
            "padding": self.padding,
            "warm-up": self.warmup,
            "served by the prefix cache": self.cached,
            "choices of no expert": self.sentinels,
        }
        if counted := ", ".join(f"{count:,} {name}" for name, count in left_out.items() if count):
            yield f"imported from {self.format}: {self.kept:,} rows of a token and layer kept; left out: {counted}"
        if self.repeated:
            yield f"{self.repeated:,} rows have two copies of one expert: the map of physical experts is of another time than they are"
        yield from filter(None, [self.order_doubt])
        yield from self.notes
