"""Derives the rows of a recorded run again, so that a corrected formula corrects old runs too; never imports torch."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from moeprof.analysis.derive import DERIVATIONS, derive, missing_files, salvage
from moeprof.records.metrics.registry import KEYS, Samples, write_cells
from moeprof.records.metrics.row import RecordedRow, RowKey
from moeprof.records.run.dictionary import write_dictionary
from moeprof.records.run.run import Run
from moeprof.records.run.writer import sample_rows, write_samples
from moeprof.records.system.signals import delayed


@dataclass(frozen=True)
class Recomputed:
    """What a recomputation did."""

    run: Run
    """The run, read anew."""
    num_derived: int
    num_kept: int
    """Rows that stayed as they were, because a raw file that they need is missing."""
    missing: Mapping[str, Sequence[str]]
    """The missing raw files, by the name of the derivation that reads them."""


def recompute(run: Run) -> Recomputed:
    """Replaces `samples.parquet` and then `metrics.csv`, each in one step; neither changes if a derivation fails or a file is damaged.

    UsageError if a raw file is damaged, or if the trace of a replay is missing or another one.
    """
    missing = {one.name: files for one in DERIVATIONS if (files := missing_files(run, one))} if run.record.recipe else {}
    derive_rows = derive if run.record.complete else salvage
    derived = list(derive_rows(run) if run.record.recipe else rows_without_model(run))
    recorded = run.rows if (run.path / "metrics.csv").exists() else []
    fresh = {row.address: row.cells() for row, _ in derived}
    signatures = set(map(signature, fresh))
    kept = {row.key: cells_of(row) for row in recorded if missing and signature(row.key) not in signatures}
    lines = {row.key: fresh.get(row.key) or kept[row.key] for row in recorded if row.key in fresh or row.key in kept} | fresh
    samples = [*kept_samples(run, fresh), *(line for one in derived for line in sample_rows(*one))]
    with delayed():
        write_dictionary(run.path, (key.metric for key in lines))  # first, because it finds a file that is damaged
        write_samples(run.path, samples)
        write_cells(run.path / "metrics.csv", lines.values())
    return Recomputed(Run.open(run.path), len(fresh), len(kept), missing)


def rows_without_model(run: Run) -> Iterator[Samples]:
    """The rows of what reads a trace: of a characterization and of offloading systems from the run directory, of other replays from the
    trace that it names."""
    if run.record.offloading:
        from moeprof.analysis.caching.offloading import offloading_rows

        return offloading_rows(run)
    if run.record.characterization:
        from moeprof.analysis.routing.characterization import characterization_rows

        return ((row, []) for row in characterization_rows(run))
    from moeprof.analysis.caching.replay_rows import CacheInputs, replay_rows
    from moeprof.analysis.placement.balance_rows import balance_rows
    from moeprof.studies.replay.recompute import recompute_inputs

    inputs = recompute_inputs(run)
    rows = replay_rows(run.record, inputs) if isinstance(inputs, CacheInputs) else balance_rows(run.record, inputs)
    return ((row, []) for row in rows)


def cells_of(row: RecordedRow) -> list[str]:
    """The line of `metrics.csv` that a recorded row was read from."""
    return [*row.key, row.unit, row.kind, repr(row.value)]


def signature(key: RowKey) -> tuple[object, ...]:
    """What a row is about: its metric, phase and variant, and which other cells are filled.

    A recorded row whose signature was derived anew, but not its key, is one that today's formulas no longer make.
    """
    return key.metric, key.phase, key.variant, *map(bool, key)


def kept_samples(run: Run, fresh: Collection[RowKey]) -> Iterator[dict[str, object]]:
    """The recorded samples behind rows that were not derived anew."""
    for line in run.samples.to_dict("records"):
        if RowKey(*(str(line[key]) for key in KEYS)) not in fresh:
            yield {str(name): value for name, value in line.items()}
