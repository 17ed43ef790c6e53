"""The formulas over files of a run that figures name, computed again with pandas: a figure with another formula needs one here."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

Facets = Mapping[str, str]
Check = Callable[[Path, Facets, dict[str, Any]], None]
"""Asserts that a series (or a heat map) of a view is what the files of the run say."""

FORMULAS: dict[str, Check] = {}
"""By the words of `FileSource.formula`."""


def formula(words: str) -> Callable[[Check], Check]:
    """Registers the check of a formula."""

    def register(check: Check) -> Check:
        FORMULAS[words] = check
        return check

    return register


def address(origin: dict[str, str], table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table at the address of a row of metrics.csv."""
    for name, cell in origin.items():
        table = table[table[name] == cell]
    for name in set(table.columns) & {"domain", "point", "rank", "layer", "region", "category"} - set(origin):
        table = table[table[name] == ""]
    return table


@formula("step_latency by round")
def rounds(run: Path, facets: Facets, series: dict[str, Any]) -> None:
    """A round's time over its steps, from the file that the samples are derived from."""
    table = pd.read_parquet(run / "rounds.parquet")
    table = table[(table["pass"] == "time") & (table["point"] == "") & (table["phase"] == facets["phase"])]
    table = table[(table["variant"] == series["name"]) & (table["domain"] == facets["domain"])].sort_values("round")
    np.testing.assert_allclose(series["values"], table["time_ns"] / table["steps"], rtol=1e-6)
    assert series["at"] == list(range(1, len(table) + 1))


@formula("95% interval of the median of the rounds at the address of the value")
def intervals(run: Path, _: Facets, series: dict[str, Any]) -> None:
    """Order statistics of the rounds: the ends are rounds, on either side of the median."""
    samples = pd.read_parquet(run / "samples.parquet")
    for value, origin, low, high in zip(
        series["values"], series["origins"]["values"], series["low"], series["high"], strict=True
    ):
        values = np.sort(address(origin, samples)["value"].to_numpy())
        np.testing.assert_allclose(value, np.median(values), rtol=1e-6)
        assert low <= value * (1 + 1e-6)
        assert high >= value * (1 - 1e-6)
        assert np.isclose(values, low, rtol=1e-6).any()
        assert np.isclose(values, high, rtol=1e-6).any()
