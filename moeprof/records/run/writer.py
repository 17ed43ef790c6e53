"""Fills a run directory, whose files are whole at every moment; a run that ends early says why."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa

from moeprof.records.metrics.registry import KEYS, MetricRow, MetricTable, Samples
from moeprof.records.run.dictionary import write_dictionary
from moeprof.records.run.folder import claim
from moeprof.records.run.raw_tables import RawTable
from moeprof.records.run.run import SAMPLE_COLUMNS, UNFINISHED, Run, RunRecord
from moeprof.records.system.causes import known, out_of_memory
from moeprof.records.system.files import reason, replacing, write_text
from moeprof.records.system.lock import held_elsewhere
from moeprof.records.system.signals import delayed, raise_if_asked, too_late, why
from moeprof.records.traces import expert_loads as loads
from moeprof.records.traces.expert_loads import ExpertLoads
from moeprof.records.traces.routing_trace import RoutingTrace
from moeprof.records.traces.traffic import Traffic, joined

Derive = Callable[[Run], Iterable[Samples]]
"""Computes the rows of `metrics.csv` from the rest of a run directory."""


class RunWriter:
    """Fills a new run directory; until `finish` the run reads as invalid, whatever happens to the process."""

    whole = False
    """Whether everything that a finished run has is written."""

    def __init__(
        self,
        path: Path,
        record: RunRecord,
        *,
        force: bool = False,
        derive: Derive = lambda _: (),
        salvage: Derive = lambda _: (),
    ) -> None:
        """`derive` runs at the end of the run, `salvage` in its place if the run stops early.

        UsageError if the folder is taken (and not `force`) or cannot be written.
        """
        self.path, self.record = path, record
        self.derive, self.salvage = derive, salvage
        self.metrics = MetricTable()
        self.samples: list[dict[str, Any]] = []
        self.tables: dict[str, list[pa.Table]] = {}
        """What was recorded so far, by file name."""
        record.started, record.finished = now(), ""
        record.valid, record.reasons = False, [UNFINISHED]
        with delayed():
            self.lock = claim(path, force=force)
            write_record(self.path, self.record)

    def add_trace(self, trace: RoutingTrace) -> None:
        """Writes one routing trace."""
        (self.path / "routing").mkdir(exist_ok=True)
        trace.write(self.path / "routing" / trace.file_name)

    def append(self, table: RawTable, rows: pa.Table) -> None:
        """Adds rows to a raw table, whose file is whole after every call."""
        self.rewrite(table.file_name, rows.cast(table.schema))

    def add_memory(self, table: pa.Table) -> None:
        """Adds rows to `memory.parquet`, whose file is whole after every call."""
        self.rewrite("memory.parquet", table)

    def rewrite(self, file_name: str, rows: pa.Table) -> None:
        """Replaces a file by what was recorded so far and `rows`."""
        import pyarrow.parquet as pq

        parts = self.recorded(file_name, rows)
        with replacing(self.path / file_name) as partial, partial.open("wb") as file:
            pq.write_table(pa.concat_tables(parts), file, compression="zstd")

    def recorded(self, file_name: str, rows: pa.Table) -> list[pa.Table]:
        """All that was recorded for a file so far, `rows` included."""
        parts = self.tables.setdefault(file_name, [])
        parts.append(rows)
        return parts

    def add_traffic(self, traffic: Traffic) -> None:
        """Adds collectives to `traffic.parquet`, whose file is whole after every call."""
        joined(self.recorded("traffic.parquet", traffic.table)).write(self.path / "traffic.parquet")

    def add_loads(self, found: ExpertLoads) -> None:
        """Adds uses of experts to `loads.parquet`, whose file is whole after every call."""
        loads.joined(self.recorded("loads.parquet", found.table)).write(self.path / "loads.parquet")

    def add_metrics(self, rows: Iterable[MetricRow]) -> None:
        """Adds rows to `metrics.csv`."""
        self.metrics.extend(rows)

    def add_samples(self, row: MetricRow, values: Sequence[float]) -> None:
        """Adds the values behind a timed row, one per round."""
        self.samples += sample_rows(row, values)

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Whatever stops the block leaves an invalid run that can be read and names the cause."""
        try:
            yield
        except KeyboardInterrupt as error:
            if not self.whole:
                self.stop(why(error))
            raise
        except Exception as error:
            self.stop(failed(error), salvaged=not out_of_memory(error))
            raise

    def stop(self, cause: str, *, salvaged: bool = True) -> None:
        """Ends a run early with what can be derived of it; on a full disk it stays `not finished`, which is as invalid.

        Without memory nothing is derived, because libraries that find none end the process; `report --recompute` does it later.
        """
        self.record.valid, self.record.reasons, self.record.finished = False, [cause], now()
        with suppress(Exception):
            write_record(self.path, self.record)
            if salvaged:
                self.complete(self.salvage, [cause])

    def finish(self, *reasons: str) -> Run:
        """Derives the rows of `metrics.csv` and writes them; the run is valid if no reason is given."""
        raise_if_asked()
        self.complete(self.derive, reasons)
        return Run.open(self.path)

    def complete(self, derive: Derive, reasons: Sequence[str]) -> None:
        """Writes everything that a finished run has; a signal comes before all of it or after all of it."""
        derived = list(derive(Run(self.path, self.record)))
        metrics = MetricTable()
        metrics.extend(chain(self.metrics.rows, (row for row, _ in derived)))
        samples = chain(self.samples, *(sample_rows(row, values) for row, values in derived))
        with too_late():
            self.record.valid, self.record.reasons = not reasons, list(reasons)
            self.record.finished = now()
            metrics.write(self.path / "metrics.csv")
            write_samples(self.path, list(samples))
            write_dictionary(self.path, (row.metric for row in metrics.rows))
            write_record(self.path, self.record)
            self.whole = True


def failed(error: Exception) -> str:
    """Why a run that an error ended is not valid."""
    found = known(error)
    return f"failed: {found.what if found else reason(error)}"


def sample_rows(row: MetricRow, values: Sequence[float]) -> list[dict[str, Any]]:
    """The lines of `samples.parquet` behind a row, one per round."""
    keys = dict(zip(KEYS, row.address, strict=True))
    return [keys | {"round": index, "value": float(value)} for index, value in enumerate(values)]


def write_samples(path: Path, samples: Sequence[dict[str, Any]]) -> None:
    """Writes `samples.parquet` of the run directory `path`."""
    import pandas as pd

    table = pd.DataFrame(samples, columns=list(SAMPLE_COLUMNS))
    with replacing(path / "samples.parquet") as partial, partial.open("wb") as file:
        table.astype({"round": "int64", "value": "float64"}).to_parquet(file, index=False)


def write_record(path: Path, record: RunRecord) -> None:
    """Replaces `run.json` in one step, so that it is never half written; as ASCII, which can hold paths that are not UTF-8."""
    write_text(path / "run.json", json.dumps(record.model_dump(mode="json", by_alias=True), indent=1) + "\n")


class UnwrittenRun(RunWriter):
    """The run on ranks other than the first: takes everything, writes nothing."""

    def __init__(self, path: Path, record: RunRecord) -> None:
        self.path, self.record = path, record

    def add_trace(self, trace: RoutingTrace) -> None: ...

    def rewrite(self, file_name: str, rows: pa.Table) -> None: ...

    def add_traffic(self, traffic: Traffic) -> None: ...

    def add_loads(self, found: ExpertLoads) -> None: ...

    def add_metrics(self, rows: Iterable[MetricRow]) -> None: ...

    def add_samples(self, row: MetricRow, values: Sequence[float]) -> None: ...

    def stop(self, cause: str, *, salvaged: bool = True) -> None: ...

    def finish(self, *reasons: str) -> Run:
        """The run without its numbers."""
        return Run(self.path, self.record)


def end_in_its_place(path: Path, why: str) -> Run | None:
    """The run at `path`, with the reason why it was not finished if its own process could not write it.

    None if there is no run, or another process is writing one.
    """
    if not (path / "run.json").is_file() or held_elsewhere(path):
        return None
    run = Run.open(path)
    if run.record.complete:
        return run
    run.record.valid, run.record.reasons = False, [why]
    run.record.finished = run.record.finished or now()
    write_record(path, run.record)
    return run


def now() -> str:
    """The current time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")
