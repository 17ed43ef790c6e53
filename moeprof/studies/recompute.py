"""Derives the rows of a recorded run again, so that a corrected formula corrects old runs too; never imports torch."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from moeprof.analysis.derive import DERIVATIONS, derive, missing_files
from moeprof.records.metrics.registry import COLUMNS, KEYS, Samples, write_cells
from moeprof.records.run.run import Run
from moeprof.records.run.writer import sample_rows, write_samples

Cells = Sequence[str]
"""A line of `metrics.csv`, in the order of COLUMNS."""


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
    """Replaces `samples.parquet` and then `metrics.csv`, each in one step; nothing changes if a derivation fails.

    UsageError if a raw file is damaged, or if the trace of a replay is missing or another one.
    """
    missing = {one.name: files for one in DERIVATIONS if (files := missing_files(run, one))} if run.record.recipe else {}
    derived = list(derive(run) if run.record.recipe else replayed_rows(run))
    fresh = {row.address: row.cells() for row, _ in derived}
    before = recorded_cells(run)
    signatures = {signature(cells) for cells in fresh.values()}
    kept = {where: cells for where, cells in before.items() if where not in fresh and signature(cells) not in signatures}
    if not missing:
        kept = {}
    merged = {where: fresh.get(where) or kept[where] for where in before if where in fresh or where in kept} | fresh
    write_samples(run.path, [*kept_samples(run, fresh), *(line for one in derived for line in sample_rows(*one))])
    write_cells(run.path / "metrics.csv", merged.values())
    return Recomputed(Run.open(run.path), len(fresh), len(kept), missing)


def replayed_rows(run: Run) -> Iterator[Samples]:
    """The rows of a replay, from the trace that it names."""
    from moeprof.analysis.caching.replay_rows import CacheInputs, replay_rows
    from moeprof.analysis.placement.balance_rows import balance_rows
    from moeprof.studies.replay.recompute import recompute_inputs

    inputs = recompute_inputs(run)
    rows = replay_rows(run.record, inputs) if isinstance(inputs, CacheInputs) else balance_rows(run.record, inputs)
    return ((row, []) for row in rows)


def recorded_cells(run: Run) -> dict[tuple[str, ...], Cells]:
    """The lines of `metrics.csv` by address; a column that an older version did not have is empty."""
    run.metrics  # noqa: B018  checks every line
    file = run.path / "metrics.csv"
    if not file.exists():
        return {}
    with file.open(newline="", encoding="utf-8") as opened:
        lines = [[line.get(name) or "" for name in COLUMNS] for line in csv.DictReader(opened)]
    return {tuple(cells[: len(KEYS)]): cells for cells in lines}


def signature(cells: Cells) -> tuple[object, ...]:
    """What a row is about without its values: metric, phase, variant, and which other cells are filled.

    A recorded row whose signature was derived anew, but not its address, is one that today's formulas no longer make.
    """
    named = dict(zip(KEYS, cells, strict=False))
    return named["metric"], named["phase"], named["variant"], *(bool(named[key]) for key in KEYS)


def kept_samples(run: Run, fresh: Mapping[tuple[str, ...], Cells]) -> Iterator[dict[str, object]]:
    """The recorded samples behind rows that were not derived anew."""
    for line in run.samples.to_dict("records"):
        if tuple(str(line[key]) for key in KEYS) not in fresh:
            yield {str(name): value for name, value in line.items()}
