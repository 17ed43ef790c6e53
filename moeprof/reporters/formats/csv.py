"""A run's table of metrics, as it stands in `metrics.csv`."""

from moeprof.records.run.run import Run


def render(run: Run) -> str:
    """Tidy CSV with a header."""
    return run.metrics.to_csv(index=False, lineterminator="\n")
