"""How unevenly ranks are loaded, waited for or filled: the largest over the mean."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from statistics import fmean

from moeprof.records.metrics.registry import MetricRow


def imbalance_rows(metric: str, rows: Iterable[MetricRow]) -> Iterator[MetricRow]:
    """The largest rank over the mean rank: of every layer, then the mean of the layers; nothing if all ranks are zero.

    `rows` are those of one metric, by rank; if they have no layer, each address is a whole of its own.
    """
    values: dict[MetricRow, list[float]] = {}
    for row in rows:
        if row.rank:
            values.setdefault(replace(row, metric=metric, rank="", value=0), []).append(row.value)
    ratios = {at: max(own) / fmean(own) for at, own in values.items() if any(own)}
    wholes: dict[MetricRow, list[float]] = {}
    for at, ratio in ratios.items():
        wholes.setdefault(replace(at, layer=""), []).append(ratio)
        if at.layer:
            yield replace(at, value=ratio)
    for at, layers in wholes.items():
        yield replace(at, value=fmean(layers))
