"""The numbers of one run: the only way in which reports, advice and comparisons read `metrics.csv`."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Unpack

from moeprof.records.errors import UsageError
from moeprof.records.metrics.number import RecordedNumber, number_of
from moeprof.records.metrics.row import Address, RecordedRow, RowKey, row_key
from moeprof.records.recipe.variant import DENSE, STATIC
from moeprof.records.run.run import Run, RunRecord

Column = Literal["phase", "domain", "variant", "point", "rank", "layer", "region", "category"]
"""A key column that `distinct` can list."""


class MissingMetricError(UsageError):
    """A report needs a number that the run does not have."""

    def __init__(self, source: str, key: RowKey) -> None:
        cells = ", ".join(f"{name} {cell}" for name, cell in key._asdict().items() if cell and name != "metric")
        super().__init__(f"run {source}: no {key.metric} for {cells}", "Repeat the run with the pass that measures it.")


@dataclass(frozen=True)
class RunMetrics:
    """Numbers by keyword address: `metrics.value("throughput", phase="score", variant="static")`.

    Keys that are not named are empty, which means over all phases, domains, layers and so on.
    """

    source: str
    """The run directory, for error messages."""
    record: RunRecord
    by_key: Mapping[RowKey, RecordedRow]
    """Every row, in the order of the file."""
    by_metric: Mapping[str, Sequence[RecordedRow]]
    scope: Address
    """Keys that every address has unless it names them."""

    @classmethod
    def of(cls, run: Run) -> "RunMetrics":
        """The numbers of a run directory, whichever version wrote it; UsageError if the table is damaged."""
        return cls.from_rows(run.record, run.rows, str(run.path))

    @classmethod
    def from_rows(cls, record: RunRecord, rows: Sequence[RecordedRow], source: str = "") -> "RunMetrics":
        """Rows by metric and key, with the rows over all domains that older versions left out."""
        by_key = {row.key: row for row in rows}
        for whole, part in missing_wholes(by_key).items():
            by_key[whole] = replace(by_key[part], key=whole)
        by_metric: dict[str, list[RecordedRow]] = defaultdict(list)
        for key, row in by_key.items():
            by_metric[key.metric].append(row)
        return cls(source, record, by_key, dict(by_metric), Address(workload=record.workload))

    def at(self, **keys: Unpack[Address]) -> "RunMetrics":
        """The same numbers, with these keys in every address that does not name them."""
        return replace(self, scope=self.scope | keys)

    def value(self, metric: str, **keys: Unpack[Address]) -> RecordedNumber:
        """The number at this address; MissingMetricError if the run does not have it."""
        found = self.or_none(metric, **keys)
        if found is None:
            raise MissingMetricError(self.source, row_key(metric, **(self.scope | keys)))
        return found

    def or_none(self, metric: str, **keys: Unpack[Address]) -> RecordedNumber | None:
        """The number at this address, or None if the run does not have it."""
        row = self.by_key.get(row_key(metric, **(self.scope | keys)))
        return None if row is None else number_of(row)

    def rows(self, metric: str, **keys: Unpack[Address]) -> list[RecordedRow]:
        """The rows of a metric whose cells are those named; other cells may be anything."""
        return matching(self.by_metric.get(metric, ()), self.scope | keys)

    def distinct(self, column: Column, metric: str, **keys: Unpack[Address]) -> list[str]:
        """The cells of a column in `rows`, in order, without the empty one."""
        found = dict.fromkeys(getattr(row.key, column) for row in self.rows(metric, **keys))
        return [cell for cell in found if cell]

    def curve(
        self, metric: str, swept: str, *, other: Mapping[str, str] | None = None, **keys: Unpack[Address]
    ) -> list[tuple[int, RecordedNumber]]:
        """A metric over one quantity of the point, such as `slots`, rising; `other` quantities of the point are fixed.

        Example: `curve("miss_rate", "slots", other={"policy": "lru"}, phase="decode")`. Keys that are not named are empty.
        """
        fixed, points = dict(other or {}), []
        key = row_key(metric, **(self.scope | keys))
        for row in self.rows(metric, **keys):
            size = row.swept.get(swept, "")
            alone = size.isdecimal() and row.swept == fixed | {swept: size}
            if alone and row.key == key._replace(point=row.key.point):
                points.append((int(size), number_of(row)))
        return sorted(points)

    @property
    def baseline(self) -> str:
        """Label of the variant that has experts and runs as deployed: outputs are compared with its own; of a trace, its variant."""
        if self.record.characterization:
            return self.record.characterization.variant
        return next(iter(self.record.routed_labels), STATIC.label)

    @property
    def has_twin(self) -> bool:
        """Whether the model ran beside its dense twin."""
        return DENSE.label in self.record.variants_by_label

    @cached_property
    def phases(self) -> list[str]:
        """Phases that have any number, in order."""
        return [phase for phase in dict.fromkeys(key.phase for key in self.by_key) if phase]

    def domains(self, phase: str) -> list[str]:
        """Named domains of a phase, in order."""
        found = dict.fromkeys(key.domain for key in self.by_key if key.phase == phase)
        return [domain for domain in found if domain]

    def layers(self, phase: str) -> list[str]:
        """MoE layers of a phase, in order."""
        return self.distinct("layer", "active_experts", phase=phase)


def of_replay(run: Run) -> RunMetrics:
    """The numbers of a replay, which has one variant: the one whose routing was replayed."""
    metrics = RunMetrics.of(run)
    return metrics.at(variant=next((key.variant for key in metrics.by_key), ""))


def matching(rows: Iterable[RecordedRow], keys: Address) -> list[RecordedRow]:
    """Rows whose named cells are these."""
    wanted = list(keys.items())
    return [row for row in rows if all(getattr(row.key, name) == cell for name, cell in wanted)]


def missing_wholes(keys: Collection[RowKey]) -> dict[RowKey, RowKey]:
    """Missing keys over all domains of phases with a single domain, each with the key of that domain.

    Earlier versions recorded some metrics of such a phase under its domain alone.
    """
    known = set(keys)
    domains: dict[str, set[str]] = defaultdict(set)
    for key in known:
        domains[key.phase].add(key.domain)
    single = {phase for phase, found in domains.items() if len(found - {""}) == 1}
    parts = {key._replace(domain=""): key for key in keys if key.domain and key.phase in single}
    return {whole: part for whole, part in parts.items() if whole not in known}
