"""From recorded steps of decoding to the time until the first token, the time per further token, and percentiles of the steps."""

from collections.abc import Iterator
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from moeprof.records.metrics.registry import MetricRow, Samples
from moeprof.records.metrics.row import Address
from moeprof.records.run.raw_tables import DECODE_TIMES
from moeprof.records.run.run import Run

if TYPE_CHECKING:
    import pandas as pd

PERCENTILES = (50, 95, 99)
"""Of the steps of all rounds; between two steps they are interpolated."""


def decode_rows(run: Run) -> Iterator[Samples]:
    """The latencies of decoding of every variant and domain, and over all domains; a step lasts as long as on the slowest rank."""
    table = run.raw(DECODE_TIMES).to_pandas()
    steps = table.groupby(["phase", "variant", "domain", "part", "round", "step"], sort=False)["time_ns"].max().reset_index()
    for (phase, variant), mine in steps.groupby(["phase", "variant"], sort=False):
        for domain in [*mine["domain"].unique(), ""]:
            address = Address(workload=run.record.workload, phase=str(phase), domain=domain, variant=str(variant))
            yield from latency_rows(mine[mine["domain"] == domain] if domain else mine, address)


def latency_rows(times: "pd.DataFrame", address: Address) -> Iterator[Samples]:
    """The first two latencies, each the median over its values per round, and the percentiles.

    A prompt gives the first token itself. After a source the first step gives it.
    """
    steps = times[times["part"] == "decode"]
    is_first = (steps["step"] == 0) & bool(times["part"].eq("encode").any())
    until_first = [*times[times["part"] != "decode"].index, *steps[is_first].index]
    by_round = times.loc[until_first].groupby("round")["time_ns"].sum() / times["domain"].nunique()
    for metric, values in (
        ("time_to_first_token", by_round.tolist()),
        ("time_per_output_token", steps[~is_first].groupby("round")["time_ns"].mean().tolist()),
    ):
        if values:
            yield MetricRow(metric, median(values), **address), values
    for percentile, value in zip(PERCENTILES, np.percentile(steps["time_ns"], PERCENTILES), strict=True):
        yield MetricRow(f"decode_step_p{percentile}", float(value), **address), []
