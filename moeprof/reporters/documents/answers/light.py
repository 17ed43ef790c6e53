"""Whether the numbers of a run can be relied on, and why not: the most important reason first."""

from collections.abc import Iterator, Sequence

from moeprof.records.metrics.number import number_in_record
from moeprof.records.run.machine_load import MachineLoad
from moeprof.records.run.run import Run, RunRecord
from moeprof.reporters.cells import percent, plural
from moeprof.reporters.documents.answer import Light

LEAST = 0.01
"""Smaller shares of the processor time are not named."""


def light_of(run: Run, *, wrong: Sequence[str] = (), doubts: Sequence[str] = ()) -> Light:
    """Bad if the run is not valid or something is `wrong`, doubtful if there is any doubt, otherwise good."""
    bad = [*(f"The run is not valid: {why}." for why in (() if run.record.valid else run.record.reasons)), *wrong]
    reasons = [*bad, *run_doubts(run), *doubts]
    return Light("bad" if bad else "doubtful" if reasons else "good", reasons)


def run_doubts(run: Run) -> Iterator[str]:
    """Reasons to distrust the numbers of any run: a busy machine, routing that is not the model's own, timings that vary."""
    record = run.record
    yield from load_doubt(record.machine_load)
    yield from forced_doubt(record)
    yield from noise_doubt(record)


def forced_doubt(record: RunRecord) -> Iterator[str]:
    """Whether the routing was not the model's own."""
    if record.recipe and record.recipe.forced:
        yield f"Routing was forced ({record.recipe.routing.source}): loads and drops are not those of this model."
    if not record.recipe and record.trace.forced:
        yield "Routing was forced: the numbers are not those of this model."


def noise_doubt(record: RunRecord) -> Iterator[str]:
    """How many timings vary so much that they should not be quoted."""
    if number := len(record.noisy):
        found = f"{number} {plural(number, 'timing is', 'timings are')} noisy (IQR > 10% of the median)."
        said = record.machine_load is not None and record.machine_load.busy  # and load_doubt has the remedy
        yield found if said else f"{found} Re-run on a quiet machine before you quote {plural(number, 'it', 'them')}."


def load_doubt(load: MachineLoad | None) -> Iterator[str]:
    """What else the machine did, if that is likely to have slowed the run down."""
    if load is None or not load.busy:
        return
    if load.others is None or load.stolen is None:
        what = f"{load.before or 0:.2g} processes per core were runnable in the minute before the run"
    else:
        shares = {
            "other processes": number_in_record(load.others, "machine_load.others"),
            "other virtual machines": number_in_record(load.stolen, "machine_load.stolen"),
        }
        what = " and ".join(f"{who} used {percent(share)}" for who, share in shares.items() if share >= LEAST)
        what += " of its processor time"
    yield f"The machine was busy: {what}. Repeat the run on a quiet machine before you quote a time."
