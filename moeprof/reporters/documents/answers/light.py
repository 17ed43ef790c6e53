"""Whether the numbers of a run can be relied on, and why not: the most important reason first."""

from collections.abc import Iterator, Sequence

from moeprof.records.run.run import Run
from moeprof.reporters.cells import plural
from moeprof.reporters.documents.answer import Light


def light_of(run: Run, *, wrong: Sequence[str] = (), doubts: Sequence[str] = ()) -> Light:
    """Bad if the run is not valid or something is `wrong`, doubtful if there is any doubt, otherwise good."""
    bad = [*(f"The run is not valid: {why}." for why in (() if run.record.valid else run.record.reasons)), *wrong]
    reasons = [*bad, *run_doubts(run), *doubts]
    return Light("bad" if bad else "doubtful" if reasons else "good", reasons)


def run_doubts(run: Run) -> Iterator[str]:
    """Reasons to distrust the numbers of any run: routing that is not the model's own, and timings that vary."""
    record = run.record
    if record.recipe and record.recipe.forced:
        yield f"Routing was forced ({record.recipe.routing.source}): loads and drops are not those of this model."
    if not record.recipe and record.trace.forced:
        yield "Routing was forced: the numbers are not those of this model."
    if number := len(record.noisy):
        yield (
            f"{number} {plural(number, 'timing is', 'timings are')} noisy (IQR > 10% of the median). Re-run on a quiet machine before "
            f"you quote {plural(number, 'it', 'them')}."
        )
