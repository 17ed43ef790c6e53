"""A report as one HTML page that needs no network: `report.html`."""

from collections.abc import Sequence

from moeprof.records.run.run import Run
from moeprof.reporters.page import page


def render_all(runs: Sequence[Run]) -> str:
    """The report page of the runs."""
    return page.render(list(runs))
