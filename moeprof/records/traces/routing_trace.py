"""The router's decisions of one phase, variant and rank: one row per token and choice, as a Parquet file."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from moeprof.records.arrays import first_places
from moeprof.records.limits import MAX_RANKS, ExpertCount
from moeprof.records.name import Name, checked_name
from moeprof.records.system.inputs import InputFile, reported
from moeprof.records.traces.columns import NAMES, codes, read_with_header, with_columns, write_with_header
from moeprof.records.traces.import_options import ImportReport

SCHEMA = 1
COLUMNS = pa.schema(
    [
        pa.field("step", pa.int32(), nullable=False),
        pa.field("sequence", pa.int32(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("token_id", pa.int32(), nullable=False),
        pa.field("layer", NAMES, nullable=False),
        pa.field("slot", pa.int8(), nullable=False),
        pa.field("expert", pa.int32(), nullable=False),
        pa.field("weight", pa.float32(), nullable=False),
        pa.field("domain", NAMES, nullable=False),
        pa.field("dropped", pa.bool_(), nullable=False),
        pa.field("residency", pa.int8()),
    ]
)
"""`step` counts forward passes of the phase; `slot` numbers the choices of a token, 0 for the first; `weight` is the softmax value
before dropping and renormalising (NaN if unknown); `residency` is 0 for a miss, 1 for a hit, 2 for a hit on a prefetch, null if the
expert is always resident."""


StepClock = Literal["pass", "token"]
"""Forward passes, or tokens in the order of a log, each of which has a step of its own."""


class TraceHeader(BaseModel):
    """What all rows have in common; kept in the metadata of the file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    schema_version: int = SCHEMA
    workload: Name
    phase: Name
    variant: Name
    rank: int = Field(default=0, ge=0, lt=MAX_RANKS)
    num_experts: ExpertCount
    top_k: ExpertCount
    layers: list[Name]
    forced: bool = False
    clock: StepClock | None = None
    """What steps count over all phases, if these share one count; None if each phase counts its own passes, as in runs of moeprof."""
    imported: ImportReport | None = None
    """What an import from another format kept and left out; None for a trace that moeprof recorded."""


@dataclass(frozen=True)
class RoutingTrace:
    """Decisions in the order in which they were made, without padding."""

    header: TraceHeader
    table: pa.Table

    def validate(self) -> "RoutingTrace":
        """Returns itself; ValueError if the rows contradict the header."""
        for name, limit in (("expert", self.header.num_experts), ("slot", self.header.top_k)):
            values = self.column(name)
            if len(values) and not (values.min() >= 0 and values.max() < limit):
                raise ValueError(f"{name} {values[(values < 0) | (values >= limit)][0]} is outside 0 to {limit - 1}")
        if foreign := set(self.names("layer")) - set(self.header.layers):
            raise ValueError(f"layer {min(foreign)!r} is not in the header")
        return self

    def check_tokens(self) -> None:
        """ValueError unless each token of a layer has K choices of K experts, and no step, sequence or position is negative.

        The experts may be fewer if the import of the trace says so.
        """
        for name in ("step", "sequence", "position"):
            values = self.column(name)
            if len(values) and values.min() < 0:
                raise ValueError(f"{name} {values.min()} is negative")
        keys = [self.codes("layer")[0], *(self.column(name) for name in ("step", "sequence", "position"))]
        expert_R, top_k, order = self.column("expert"), self.header.top_k, None
        if not whole_tokens(keys, self.column("slot"), top_k):
            order = np.lexsort((self.column("slot"), *reversed(keys)))
            self.check_slots(keys, order)
            expert_R = expert_R[order]
        expert_TK = np.sort(expert_R.reshape(-1, top_k), axis=1)
        tokens, at = np.nonzero(expert_TK[:, 1:] == expert_TK[:, :-1])
        if len(tokens) and not (self.header.imported and self.header.imported.repeated):
            row = tokens[0] * top_k if order is None else order[tokens[0] * top_k]
            raise ValueError(f"expert {expert_TK[tokens[0], at[0]]} occurs twice among a token's choices {self.place(row)}")

    def check_slots(self, keys: Sequence[npt.NDArray[Any]], order: npt.NDArray[np.intp]) -> None:
        """ValueError unless the rows of each token, which agree in the keys and are neighbours in this order, have slots 0 to K - 1."""
        new_R = np.ones(len(order), bool)
        new_R[1:] = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
        slot_R, top_k = self.column("slot")[order], self.header.top_k
        if len(twice := np.flatnonzero(~new_R[1:] & (slot_R[1:] == slot_R[:-1]))):
            raise ValueError(f"slot {slot_R[twice[0]]} occurs twice {self.place(order[twice[0]])}")
        starts, counts = np.flatnonzero(new_R), np.diff(np.flatnonzero(np.append(new_R, True)))
        if len(few := np.flatnonzero(counts != top_k)):
            raise ValueError(f"a token has {counts[few[0]]} of {top_k} choices {self.place(order[starts[few[0]]])}")

    def place(self, row: int) -> str:
        """Where the token of a row is, for an error."""
        cells = self.table.slice(int(row), 1).select(["step", "layer", "sequence", "position"]).to_pylist()[0]
        return "in step {step} of layer {layer} (sequence {sequence}, position {position})".format(**cells)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def column(self, name: str) -> npt.NDArray[Any]:
        """One column of plain values, (rows,)."""
        return np.asarray(self.table[name].to_numpy())

    def codes(self, name: str) -> tuple[npt.NDArray[np.int32], list[str]]:
        """A column of names as (codes (rows,), the name behind each code)."""
        return codes(self.table, name)

    def names(self, name: str) -> list[str]:
        """The distinct names in a column, in order of first appearance."""
        code_R, names = self.codes(name)
        first = first_places(code_R, len(names))
        return [names[code] for code in np.argsort(first) if first[code] < len(code_R)]

    def without_token_ids(self) -> "RoutingTrace":
        """The same decisions with -1 for every token, so that the text cannot be read from them."""
        place = self.table.schema.get_field_index("token_id")
        hidden = pa.array(np.full(len(self), -1, np.int32))
        return RoutingTrace(self.header, self.table.set_column(place, self.table.schema.field(place), hidden))

    def select(self, *, layer: str | None = None, domain: str | None = None) -> "RoutingTrace":
        """The rows of one layer, one domain, or both."""
        keep = np.ones(len(self), bool)
        for name, wanted in (("layer", layer), ("domain", domain)):
            if wanted is not None:
                code_R, names = self.codes(name)
                keep &= code_R == (names.index(wanted) if wanted in names else -1)
        return RoutingTrace(self.header, self.table.filter(pa.array(keep)))

    @property
    def file_name(self) -> str:
        """The name of its file in the `routing/` folder of a run."""
        return f"{self.header.phase}-{self.header.variant}-rank{self.header.rank}.parquet"

    def write(self, path: Path) -> None:
        """Writes Parquet; the same decisions give the same bytes."""
        write_with_header(path, self.table.cast(COLUMNS), self.header.model_dump_json(exclude_none=True))

    @classmethod
    def read(cls, file: Path | InputFile) -> "RoutingTrace":
        """UsageError if the file is missing, damaged, inconsistent, too large, or written by a newer moeprof."""
        source = InputFile.of(file)
        with reported(
            f"routing trace {source.path}",
            "Give a run directory, or a file of its routing/ folder, from this version of moeprof or an older one.",
        ):
            table, header = read_with_header(source, SCHEMA)
            trace = cls(TraceHeader.model_validate(header), with_columns(table, COLUMNS)).validate()
            for domain in trace.names("domain"):
                checked_name(domain)
            return trace


def whole_tokens(keys: Sequence[npt.NDArray[Any]], slot_R: npt.NDArray[Any], top_k: int) -> bool:
    """Whether every K rows are those of one token, which agree in the keys, in the order of their slots, and no token comes again.

    A trace is usually so, and then only one row of each token has to be sorted.
    """
    if len(slot_R) % top_k or (slot_R.reshape(-1, top_k) != np.arange(top_k, dtype=slot_R.dtype)).any():
        return False
    if not all((key.reshape(-1, top_k) == key[::top_k, None]).all() for key in keys):
        return False
    first_keys = [key[::top_k] for key in keys]
    order_T = np.lexsort(first_keys[::-1])
    return not np.all([key[order_T][1:] == key[order_T][:-1] for key in first_keys], axis=0).any()


def joined(header: TraceHeader, parts: Iterable[pa.Table]) -> RoutingTrace:
    """One trace of tables recorded in order."""
    tables = list(parts)
    table = pa.concat_tables(tables).unify_dictionaries() if tables else COLUMNS.empty_table()
    return RoutingTrace(header, table.combine_chunks())


def read_traces(folder: Path) -> Iterator[RoutingTrace]:
    """The traces in the `routing/` folder of a run, in order of file name; hidden files are skipped."""
    for path in sorted(folder.glob("*.parquet")):
        if not path.name.startswith("."):
            yield RoutingTrace.read(path)
