"""Reads the source of a recorded replay again, so that its rows can be derived again with today's formulas."""

from pathlib import Path

from moeprof.analysis.caching.replay_rows import CacheInputs
from moeprof.analysis.placement.balance_rows import BalanceInputs
from moeprof.records.errors import UsageError
from moeprof.records.run.run import Run
from moeprof.records.traces.import_options import ImportOptions
from moeprof.studies.replay.loads import digest_of, inputs_of_counts, inputs_of_trace
from moeprof.studies.replay.source import read, select, selected


def recompute_inputs(run: Run) -> CacheInputs | BalanceInputs:
    """The inputs of a replay's rows: for `replay_rows` if it replayed caches, for `balance_rows` if it replayed placements.

    UsageError if the source is missing or its decisions differ from the recorded ones.
    """
    path = Path(run.record.trace.path)
    if not path.is_file() and not path.is_dir():
        raise UsageError(
            f"run {run.path}: the replayed trace {path} is {'a pipe' if path.exists() else 'missing'}",
            "Put it back, or run the command in the folder in which the replay ran.",
        )
    decisions, inputs = balance_inputs(run, path) if run.record.balance else cache_inputs(run, path)
    if decisions != run.record.trace.decisions:
        raise UsageError(
            f"run {run.path}: the trace {path} is not the one that was replayed: its decisions differ",
            "Put the original back, or replay the new trace with moeprof replay.",
        )
    return inputs


def cache_inputs(run: Run, path: Path) -> tuple[dict[str, str], CacheInputs]:
    """Decisions and accesses of the recorded phase and variant."""
    chosen = select(path, run.record.replayed.phase, recorded_variant(run), options_of(run))
    return chosen.decisions, chosen.cache_inputs


def balance_inputs(run: Run, path: Path) -> tuple[dict[str, str], BalanceInputs]:
    """Decisions and loads of the recorded phase and variant."""
    file, owner = read(path, loads_only=True, options=options_of(run))
    if file.counts is not None:
        return digest_of(file.counts), inputs_of_counts(file.counts)
    chosen = selected(file, owner, path, run.record.balanced.phase, recorded_variant(run), options_of(run))
    return chosen.decisions, inputs_of_trace(chosen, run.record.balanced.tokens_per_step)


def recorded_variant(run: Run) -> str:
    """The variant whose decisions were replayed; decisions are named `phase/variant`."""
    return next(iter(run.record.trace.decisions)).partition("/")[2]


def options_of(run: Run) -> ImportOptions:
    """What was stated about the trace; an older run only recorded the number of experts."""
    options = run.record.trace.options
    return options.model_copy(update={"experts": run.record.trace.num_experts})
