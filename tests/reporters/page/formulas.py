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


@formula("bytes of the category over time, from the first record of the step")
def live_bytes(run: Path, facets: Facets, series: dict[str, Any]) -> None:
    """Every value is in the file at its time; the largest total of the step is among the drawn ones."""
    table = pd.read_parquet(run / "memory.parquet")
    table = table[(table["phase"] == facets["phase"]) & (table["variant"] == facets["variant"])]
    at = table["time_ns"] - table["time_ns"].min()
    category = table[table["category"] == series["name"].replace(" ", "_")]
    recorded = category.groupby(at)["bytes"].max()
    values = pd.Series(series["values"], series["at"])
    assert recorded.reindex(values.index).fillna(0).tolist() == values.tolist()
    assert at[table.groupby("time_ns")["bytes"].transform("sum").idxmax()] in series["at"]


@formula("tokens / time of the slowest and of the fastest round of the search at this batch")
def range_of_rounds(run: Path, facets: Facets, series: dict[str, Any]) -> None:
    """On one rank a round's speed is its tokens over its time; the median of the rounds is between the ends."""
    table = pd.read_parquet(run / "rounds.parquet")
    table = table[(table["pass"] == "sweep") & (table["phase"] == facets["phase"]) & (table["variant"] == series["name"])]
    for batch, value, low, high in zip(series["at"], series["values"], series["low"], series["high"], strict=True):
        part = table[table["point"] == f"batch={batch}"]
        speeds = part["tokens"] / part["time_ns"] * 1e9
        np.testing.assert_allclose([low, high], [speeds.min(), speeds.max()], rtol=1e-6)
        assert low * (1 - 1e-6) <= value <= high * (1 + 1e-6)


def batches(run: Path, facets: Facets, mark: dict[str, Any]) -> pd.DataFrame:
    """The batches that were tried of the variant that a mark names."""
    table = pd.read_parquet(run / "batches.parquet")
    return table[(table["phase"] == facets["phase"]) & (table["variant"] == mark["name"].partition(":")[0])]


@formula("smallest batch that does not fit")
def refused(run: Path, facets: Facets, mark: dict[str, Any]) -> None:
    """The reason is named beside it."""
    table = batches(run, facets, mark)
    first = table[~table["fits"]].sort_values("batch").iloc[0]
    assert (mark["value"], first["reason"] in mark["name"]) == (first["batch"], True)


@formula("largest batch that was tried")
def ended(run: Path, facets: Facets, mark: dict[str, Any]) -> None:
    """All of them fit, so that the search ended before it met the budget."""
    table = batches(run, facets, mark)
    assert mark["value"] == table["batch"].max()
    assert table["fits"].all()


def named_numbers(name: str) -> range:
    """The numbers that a cell of a heat map is for: `7`, or `4-7`."""
    first, _, last = name.partition("-")
    return range(int(first), int(last or first) + 1)


@formula("share of the experts and steps of a cell after which the expert is resident")
def resident(run: Path, facets: Facets, heat: dict[str, Any]) -> None:
    """An expert is resident after a step if it was used so far, and was last used after it was last a victim."""
    table = pd.read_parquet(run / heat["source"]["file"])
    wanted = (
        ({"point": ""} if "point" in table else {}) | dict(facets) | ({"rank": int(facets["rank"])} if "rank" in facets else {})
    )
    for name, value in wanted.items():
        table = table[table[name] == (value.removeprefix("layer ") if name == "layer" else value)]
    order = np.arange(len(table))
    steps = (table["step"] != table["step"].shift()).cumsum() - 1
    after = [order[steps == step].max() for step in range(steps.max() + 1)]

    def there(expert: int, last: int) -> bool:
        used, left = (order[(table[name] == expert) & (order <= last)].max(initial=-1) for name in ("expert", "victim"))
        return bool(used > left)

    for row, values in zip(heat["rows"], heat["values"], strict=True):
        for column, value in zip(heat["columns"], values, strict=True):
            cells = [there(expert, after[step]) for expert in named_numbers(row) for step in named_numbers(column)]
            np.testing.assert_allclose(value, np.mean(cells), rtol=1e-6)


def routing(run: Path, facets: Facets, heat: dict[str, Any]) -> pd.DataFrame:
    """The choices of all ranks by layer, step and expert, in the phase, layer and domain of a heat map."""
    if heat["source"]["file"] == "expert_counts.parquet":
        table = pd.read_parquet(run / "expert_counts.parquet").rename(columns={"choices": "count"})
    else:
        table = pd.concat(pd.read_parquet(file) for file in run.glob(heat["source"]["file"])).assign(count=1)
    if facets.get("domain", "all domains") != "all domains":
        table = table[table["domain"] == facets["domain"]]
    if "layer" in facets:
        table = table[table["layer"] == facets["layer"].removeprefix("layer ")]
    return table


def cells(table: pd.DataFrame, rows: str, heat: dict[str, Any]) -> np.ndarray:
    """The choices behind every cell, whose columns are experts or, if the rows are, steps; (rows, columns)."""
    columns = "expert" if rows == "layer" else "step"
    wide = table.assign(layer=table["layer"].astype(str)).pivot_table(
        index=rows, columns=columns, values="count", aggfunc="sum"
    )
    wide.index = wide.index.astype(str)
    wide = wide.reindex(heat["rows"]).fillna(0)
    ranges = [[int(end) for end in name.split(" to ")] for name in heat["columns"]]
    return np.stack(
        [wide.loc[:, (wide.columns >= ends[0]) & (wide.columns <= ends[-1])].sum(axis=1) for ends in ranges], axis=1
    )


@formula("choices of the expert / mean choices of the experts of the layer")
def loads(run: Path, facets: Facets, heat: dict[str, Any]) -> None:
    """Every row has all experts; three digits are kept."""
    counts = cells(routing(run, facets, heat), "layer", heat)
    np.testing.assert_allclose(heat["values"], counts / counts.mean(axis=1, keepdims=True), rtol=0.006)
    assert heat["columns"] == [str(expert) for expert in range(len(heat["columns"]))]


@formula("choices of the expert / mean choices of the experts in the steps")
def loads_of_steps(run: Path, facets: Facets, heat: dict[str, Any]) -> None:
    """Every column has all experts, and no step is left out."""
    table = routing(run, facets, heat)
    counts = cells(table, "expert", heat)
    np.testing.assert_allclose(heat["values"], counts / counts.mean(axis=0), rtol=0.006)
    assert counts.sum() == table["count"].sum()
    assert (np.diff(counts.sum(axis=1)) <= 0).all()


@formula("Pearson correlation over steps of the shares of two experts")
def correlations(run: Path, facets: Facets, heat: dict[str, Any]) -> None:
    """Three digits are kept."""
    wide = routing(run, facets, heat).pivot_table(index="step", columns="expert", values="count", aggfunc="sum").fillna(0)
    wide.columns = wide.columns.astype(str)
    shares = wide.div(wide.sum(axis=1), axis=0)[heat["rows"]]
    np.testing.assert_allclose(heat["values"], shares.corr(), atol=0.0006)
    assert heat["rows"] == heat["columns"]


def doublings_of(
    run: Path, facets: Facets, heat: dict[str, Any], metric: str, before: dict[str, str], after: dict[str, str]
) -> None:
    """Half of the columns are the loads before, and half those after, each beside the mean of its layer."""
    table = pd.read_csv(run / "metrics.csv", dtype={"rank": str, "layer": str}, keep_default_na=False)
    table = table[(table["metric"] == metric) & (table["phase"] == facets["phase"])]
    for half, address in (
        (slice(None, len(heat["columns"]) // 2), before),
        (slice(len(heat["columns"]) // 2 + 1, None), after),
    ):
        own = table[np.all([table[name] == value for name, value in ({"domain": ""} | address).items()], axis=0)]
        wide = own[(own["layer"] != "") & (own["rank"] != "")].pivot(index="layer", columns="rank", values="value")
        wide = wide.loc[heat["rows"], sorted(wide.columns, key=int)]
        with np.errstate(divide="ignore"):
            expected = np.maximum(np.log2(wide.to_numpy() / wide.mean(axis=1).to_numpy()[:, None]), -10)
        np.testing.assert_allclose([row[half] for row in heat["values"]], expected, rtol=1e-5, atol=1e-9)


@formula("log2(device_load / its mean over devices), at least -10")
def device_doublings(run: Path, facets: Facets, heat: dict[str, Any]) -> None:
    """The devices of a replay: contiguous placement, and the chosen one."""
    devices = len(heat["columns"]) // 2
    before, after = ({"point": f"balancer={name};devices={devices}"} for name in ("contiguous", facets["placement"]))
    doublings_of(run, facets, heat, "device_load", before, after)


@formula("log2(rank_tokens / its mean over ranks), at least -10")
def rank_doublings(run: Path, facets: Facets, heat: dict[str, Any]) -> None:
    """The ranks of a run: the variant without its placement, and with it."""
    label = facets["variant"]
    doublings_of(run, facets, heat, "rank_tokens", {"variant": label.rpartition("+")[0]}, {"variant": label})


@formula("bytes by source and destination / steps, mean over rounds")
def bytes_by_pair(run: Path, facets: Facets, heat: dict[str, Any]) -> None:
    """All bytes over all rounds and steps."""
    table = pd.read_parquet(run / "traffic.parquet")
    table = table[(table["phase"] == facets["phase"]) & (table["variant"] == facets["variant"]) & (table["point"] == "")]
    sums = table.groupby(["source", "destination"])["bytes"].sum().unstack()
    np.testing.assert_allclose(heat["values"], sums / (table["round"].nunique() * table["step"].nunique()), rtol=1e-6)
