"""The run directory, the only truth about a run: written once, read by every report and comparison."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, model_validator

import moeprof
from moeprof.records.errors import UsageError
from moeprof.records.limits import NonNegative
from moeprof.records.link import Links
from moeprof.records.metrics.registry import COLUMNS, KEYS
from moeprof.records.metrics.row import RecordedRow, RowKey
from moeprof.records.placement import Placement
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import Variant
from moeprof.records.run.machine_load import MachineLoad
from moeprof.records.run.raw_tables import RAW_TABLES, RawTable
from moeprof.records.run.replay import BalanceRequest, OffloadingRequest, ReplayRequest, TraceRequest, TraceSource
from moeprof.records.system.files import reason, refuse_newer
from moeprof.records.system.inputs import InputFile
from moeprof.records.system.signals import ENDED, INTERRUPTED
from moeprof.records.traces import expert_loads as loads
from moeprof.records.traces import routing_trace
from moeprof.records.traces.columns import read_table, with_columns
from moeprof.records.traces.expert_loads import ExpertLoads
from moeprof.records.traces.routing_trace import RoutingTrace, read_traces
from moeprof.records.traces.traffic import Traffic, joined

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 2
UNFINISHED = "not finished"
CONTENTS = {
    *(
        "run.json",
        "metrics.csv",
        "dictionary.json",
        "samples.parquet",
        "traffic.parquet",
        "loads.parquet",
        "memory.parquet",
        "links.json",
    ),
    *(table.file_name for table in RAW_TABLES),
    *("routing", "placements", "timeline", "logs", "report.md", "report.html"),
}
"""Everything that a run directory may hold."""

ALL_ORIGINS = ("recipe", "replay", "balance", "offloading", "characterization")
"""What a run can describe; each has one."""

ORIGINS = {"replay": {"replay", "balance", "offloading"}, "characterize": {"recipe", "characterization"}}
"""What the runs of a command describe, one of them each; other commands run a recipe."""

SAMPLE_COLUMNS = (*KEYS, "round", "value")

MEMORY_SCHEMA = pa.schema(
    [("time_ns", pa.int64())]
    + [(name, pa.string()) for name in ("phase", "variant", "layer", "region", "category")]
    + [("bytes", pa.int64())]
)
"""Columns of `memory.parquet`."""


class Environment(BaseModel):
    """The machine and the software of a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hostname: str = ""
    platform: str = ""
    python: str = ""
    packages: dict[str, str] = {}
    git_commit: str = ""
    cpu: str = ""
    cores: int = 0
    threads: int = 0
    memory_bytes: int = 0
    gpu: str = ""
    driver: str = ""


class FittedText(BaseModel):
    """How the sentences of a translation domain were fitted to the length of a source, as numbers of sentences."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sentences: NonNegative
    """Sentences of which the batches have at least a piece."""
    split: NonNegative
    """Those that are longer than a source, and were split."""
    unfinished: NonNegative
    """Split sentences whose last pieces found no place in the batches; they are not compared with their references."""
    left_out: NonNegative
    """Further sentences, left out because a word is longer than a source."""
    longest_word: NonNegative
    """Tokens of the longest word of those."""


class RunRecord(BaseModel):
    """`run.json`: what was run, on which machine, and whether its numbers are valid."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA
    moeprof_version: str = moeprof.__version__
    command: str
    argv: list[str] = []
    started: str = ""
    finished: str = ""
    recipe: Recipe | None = None
    """The recipe of a run that ran a model; None for a replay, and for the characterization of a trace."""
    replay: ReplayRequest | None = None
    """The settings of a replay of caches."""
    balance: BalanceRequest | None = None
    """The settings of a replay of placements."""
    offloading: OffloadingRequest | None = None
    """The settings of a replay of offloading systems."""
    characterization: TraceRequest | None = None
    """The trace of a characterization that ran no model."""
    variants: list[dict[str, str | bool | int]] = []
    speedup_baselines: list[str] = []
    """Labels of the variants that speed-ups are computed against."""
    environment: Environment = Environment()
    text_hashes: dict[str, str] = {}
    fitted: dict[str, FittedText] = {}
    """By domain; empty for language modelling, for joined sentences, and in runs of older versions."""
    weights_hash: str = ""
    predictor_hash: str = ""
    """SHA-256 of the file of the predictor that a variant asks; empty without one."""
    valid: bool = False
    reasons: list[str] = [UNFINISHED]
    machine_load: MachineLoad | None = None
    """What else the machine did; None in replays and in runs of older versions."""
    noisy: list[str] = []
    counters: dict[str, dict[str, str]] = {}
    """Readings of the device's counters at the end of the pass `time`, by phase, or why there are none."""
    notes: list[str] = []

    @model_validator(mode="after")
    def has_one_origin(self) -> "RunRecord":
        origins = {
            name
            for name in ("recipe", "replay", "balance", "offloading", "characterization")
            if getattr(self, name) is not None
        }
        if len(origins) != 1 or not origins <= ORIGINS.get(self.command, {"recipe"}):
            raise ValueError(f"{self.command!r} needs a {'replay' if self.command == 'replay' else 'recipe'} and nothing else")
        return self

    @property
    def origin(self) -> str:
        """What the run describes: the name of the one of ALL_ORIGINS that it has."""
        return next(name for name in ALL_ORIGINS if getattr(self, name) is not None)

    @property
    def complete(self) -> bool:
        """Whether the run came to its end, valid or not: it was not stopped, and its process did not end before."""
        return bool(self.finished) and not any(said.startswith(("failed", INTERRUPTED, ENDED)) for said in self.reasons)

    @property
    def name(self) -> str:
        """The name of the recipe, or of the trace."""
        return self.recipe.name if self.recipe else self.trace.name

    @property
    def workload(self) -> str:
        """The workload, `lm` or `mt`."""
        return self.recipe.workload if self.recipe else self.trace.workload

    @property
    def ran(self) -> Recipe:
        """The recipe of a run that ran a model."""
        assert self.recipe is not None, "what reads a trace has no recipe"
        return self.recipe

    @property
    def request(self) -> ReplayRequest | BalanceRequest | OffloadingRequest | TraceRequest:
        """The settings of a run that reads a trace: a replay of any kind, or a characterization."""
        asked = self.replay or self.balance or self.offloading or self.characterization
        assert asked is not None, "a run of a model reads no trace"
        return asked

    @property
    def trace(self) -> TraceSource:
        """The trace that was replayed or characterized."""
        return self.request.trace

    @property
    def variants_by_label(self) -> dict[str, Variant]:
        """The variants of a run of a model, in the order of the report; choices that an older version did not have are defaults."""
        known = {field.name for field in fields(Variant)}
        return {
            str(one["label"]): Variant(**{name: value for name, value in one.items() if name in known})  # type: ignore[arg-type]
            for one in self.variants
        }

    @property
    def routed_labels(self) -> list[str]:
        """Labels of the variants that have experts; the first is the baseline for outputs."""
        return [label for label, variant in self.variants_by_label.items() if not variant.dense]

    @property
    def lossy_labels(self) -> list[str]:
        """Labels of the variants that compute with less precision on purpose."""
        return [label for label, variant in self.variants_by_label.items() if not variant.lossless]

    @property
    def replayed(self) -> ReplayRequest:
        """The settings of a replay of caches, which this run must be."""
        assert self.replay is not None, "this run replays no caches"
        return self.replay

    @property
    def characterized(self) -> TraceRequest:
        """The settings of a characterization of a trace, which this run must be."""
        assert self.characterization is not None, "this run characterizes no trace"
        return self.characterization

    @property
    def forced(self) -> bool:
        """Whether routing was not that of the model."""
        return self.recipe.forced if self.recipe else self.trace.forced

    @property
    def offloaded(self) -> OffloadingRequest:
        """The settings of a replay of offloading systems, which this run must be."""
        assert self.offloading is not None, "this run replays no offloading systems"
        return self.offloading

    @property
    def balanced(self) -> BalanceRequest:
        """The settings of a replay of placements, which this run must be."""
        assert self.balance is not None, "this run replays no placements"
        return self.balance


@dataclass(frozen=True, eq=False)
class Run:
    """A run directory, read on demand; everything in it is checked before use."""

    path: Path
    record: RunRecord

    @classmethod
    def open(cls, path: Path) -> "Run":
        """UsageError if the folder has no run, a damaged one, or one of a newer moeprof."""
        file = path / "run.json"
        try:
            document = InputFile(file).json()
            refuse_newer(f"run {path}", document, SCHEMA)
            return cls(path, RunRecord.model_validate(document))
        except OSError as error:
            raise UsageError(
                f"run {path}: {reason(error)}: run.json",
                "Pass a run directory, as written by `moeprof characterize`.",
            ) from error
        except ValueError as error:
            raise UsageError(
                f"run {path}: run.json is damaged: {reason(error)}",
                "Repeat the run.",
            ) from error

    @cached_property
    def metrics(self) -> "pd.DataFrame":
        """`metrics.csv`; key columns are strings, a column that an older schema lacks is empty."""
        import pandas as pd

        file = self.path / "metrics.csv"
        again = f"again with `moeprof report {self.path} --recompute`."
        if not file.exists() and self.record.complete:
            raise UsageError(f"run {self.path}: it has no metrics.csv", f"Derive it {again}")
        if not file.exists():
            return pd.DataFrame(columns=list(COLUMNS)).astype({"value": float})
        try:
            table = pd.read_csv(
                StringIO(InputFile(file).text()),
                dtype=str,  # the values too: pandas' own reader of floats is not exact in every version
                keep_default_na=False,
            )
            if missing := {"metric", "value"} - set(table.columns):
                raise ValueError(f"column {min(missing)!r} is missing")
            if not isinstance(table.index, pd.RangeIndex):
                raise ValueError("a row has more cells than the header")
            table["value"] = table["value"].astype(float)
            if table["metric"].eq("").any():
                raise ValueError("a row names no metric")
            if not table["value"].abs().lt(float("inf")).all():
                raise ValueError("a value is not a finite number")
            if foreign := set(table.columns) - set(COLUMNS):
                raise ValueError(f"unknown column {min(foreign)!r}")
            whole = table.assign(**{name: "" for name in COLUMNS if name not in table.columns})[list(COLUMNS)]
            if len(repeated := whole[whole.duplicated(list(KEYS))]):
                raise ValueError(f"{repeated['metric'].iloc[0]} is recorded twice at one address")
            return whole
        except (OSError, ValueError) as error:
            what = f"run {self.path}: metrics.csv is damaged: {reason(error)}"
            raise UsageError(what, f"Remove it, and derive it {again}") from error

    @cached_property
    def rows(self) -> list[RecordedRow]:
        """The rows of `metrics.csv` in the order of the file, typed."""
        lines = self.metrics.itertuples(index=False, name=None)
        return [RecordedRow(RowKey(*cells), unit, kind, value) for *cells, unit, kind, value in lines]

    @cached_property
    def samples(self) -> "pd.DataFrame":
        """`samples.parquet`: raw timings, one row per round."""
        return read_frame(self.path, "samples.parquet", SAMPLE_COLUMNS)

    @cached_property
    def memory(self) -> "pd.DataFrame":
        """`memory.parquet`: live bytes by category, at every change of region and at the peak inside it."""
        return read_frame(self.path, "memory.parquet", MEMORY_SCHEMA.names)

    @cached_property
    def links(self) -> Links | None:
        """`links.json`: the measured links between the ranks; None if the run has none."""
        file = self.path / "links.json"
        return Links.read(file) if file.exists() else None

    @cached_property
    def raw_tables(self) -> dict[str, pa.Table]:
        """Raw tables by name as far as they have been read."""
        return {}

    def raw(self, table: RawTable) -> pa.Table:
        """The rows of a raw table, in the order of recording; none if the run has no such file. UsageError if it is damaged."""
        if table.name not in self.raw_tables:
            self.raw_tables[table.name] = read_raw(self.path, table)
        return self.raw_tables[table.name]

    @cached_property
    def traffic(self) -> Traffic:
        """`traffic.parquet`: every collective; empty for a run of one rank."""
        file = self.path / "traffic.parquet"
        return Traffic.read(file) if file.exists() else joined([])

    @cached_property
    def loads(self) -> ExpertLoads:
        """`loads.parquet`: every use of an expert in a buffered store; empty if all experts were resident."""
        file = self.path / "loads.parquet"
        return ExpertLoads.read(file) if file.exists() else loads.joined([])

    @cached_property
    def traces(self) -> list[RoutingTrace]:
        """The routing traces, one per phase, variant and rank."""
        return list(read_traces(self.path / "routing"))

    def trace(self, phase: str, variant: str) -> RoutingTrace | None:
        """The decisions of all ranks in one phase under a variant, or None if none were recorded."""
        found = [trace for trace in self.traces if (trace.header.phase, trace.header.variant) == (phase, variant)]
        return routing_trace.joined(found[0].header, [trace.table for trace in found]) if found else None

    def placement(self, phase: str, variant: str) -> Placement:
        """The placement of the experts in a phase under a variant."""
        file = self.path / "placements" / f"{phase}-{variant}.json"
        if file.exists():
            return Placement.read(file)
        recipe = self.record.ran
        return Placement.contiguous(recipe.model.moe_layers_of("all"), recipe.model.experts, recipe.parallel.ranks)


def read_frame(folder: Path, file_name: str, columns: Sequence[str]) -> "pd.DataFrame":
    """These columns of a Parquet file of a run directory, without rows if there is no such file; UsageError if it is damaged."""
    import pandas as pd

    file = folder / file_name
    if not file.exists():
        return pd.DataFrame(columns=list(columns))
    try:
        frame: pd.DataFrame = read_table(file).to_pandas()[list(columns)]
        return frame
    except (OSError, KeyError, ValueError) as error:
        raise UsageError(f"run {folder}: {file_name} is damaged: {reason(error)}", "Repeat the run.") from error


def read_raw(folder: Path, table: RawTable) -> pa.Table:
    """The rows of one raw table of a run directory; UsageError if the file is damaged."""
    file = folder / table.file_name
    if not file.exists():
        return table.schema.empty_table()
    try:
        return with_columns(read_table(file), table.schema)
    except (OSError, ValueError) as error:
        raise UsageError(f"run {folder}: {table.file_name} is damaged: {reason(error)}", "Repeat the run.") from error
