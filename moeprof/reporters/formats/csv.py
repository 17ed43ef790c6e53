"""The metrics of runs as CSV, as in `metrics.csv`; those of several runs in one table."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from moeprof.records.run.run import Run

if TYPE_CHECKING:
    import pandas as pd

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet executes."""


def render_all(runs: Sequence[Run]) -> str:
    """Tidy CSV with one header; of several runs, the first column is the path of the run."""
    import pandas as pd

    tables = [run.metrics for run in runs]
    if len(runs) > 1:
        tables = [table.assign(run=str(run.path))[["run", *table.columns]] for run, table in zip(runs, tables, strict=True)]
    return inert(pd.concat(tables)).to_csv(index=False, lineterminator="\n")


def inert(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table with an apostrophe before every text that a spreadsheet would take for a formula."""
    texts = table.columns.drop("value")
    return table.assign(
        **{name: table[name].map(lambda text: f"'{text}" if str(text).startswith(FORMULA) else text) for name in texts}
    )
