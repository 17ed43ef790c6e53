"""The metrics of a run as CSV, as in `metrics.csv`."""

from moeprof.records.run.run import Run


def render(run: Run) -> str:
    """Tidy CSV with a header."""
    return run.metrics.to_csv(index=False, lineterminator="\n")
