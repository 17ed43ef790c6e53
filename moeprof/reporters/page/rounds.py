"""The rounds of a run behind its timings, by the address of the timing that summarizes them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from moeprof.analysis.timing.intervals import median_interval
from moeprof.records.errors import MoeprofError
from moeprof.records.metrics.number import RecordedNumber
from moeprof.records.metrics.row import RowKey
from moeprof.records.run.run import Run


@dataclass(frozen=True)
class TimedRounds:
    """The values of `samples.parquet` by address, in the order of the rounds."""

    by_key: Mapping[RowKey, list[float]]

    @classmethod
    def of(cls, run: Run) -> "TimedRounds":
        """The rounds of a run; none if it has no samples, or damaged ones."""
        try:
            samples = run.samples
        except MoeprofError:
            return cls({})
        by_key: dict[RowKey, list[float]] = {}
        if len(samples):
            ordered = samples.sort_values("round", kind="stable")
            keys = zip(*(ordered[name].astype(str) for name in RowKey._fields), strict=True)
            for key, value in zip(keys, ordered["value"], strict=True):
                by_key.setdefault(RowKey(*key), []).append(float(value))
        return cls(by_key)

    def values(self, number: RecordedNumber) -> list[float]:
        """The rounds that a number from one row summarizes; none if they were not kept."""
        return self.by_key.get(number.origin, []) if isinstance(number.origin, RowKey) else []

    def intervals(self, numbers: Iterable[RecordedNumber]) -> tuple[list[float], list[float]]:
        """The ends of the 95% intervals of medians; two empty lists if any has none."""
        found = [median_interval(self.values(number)) for number in numbers]
        ends = [pair for pair in found if pair is not None]
        if not ends or len(ends) < len(found):
            return [], []
        return [low for low, _ in ends], [high for _, high in ends]
