"""A report as one HTML page that needs no network: `report.html`."""

from moeprof.records.run.run import Run
from moeprof.reporters.page import page


def render(run: Run) -> str:
    """The report page of one run."""
    return page.render([run])
