"""What computed the experts of a Hugging Face model, and what became of the choices of its routers."""

from collections import Counter
from collections.abc import Iterator

from moeprof.records.metrics.registry import MetricRow, Samples
from moeprof.records.metrics.row import Address
from moeprof.records.run.raw_tables import EXPERT_CALLS, FATES
from moeprof.records.run.run import Run


def call_rows(run: Run) -> Iterator[Samples]:
    """`expert_calls` by backend and `choices` by kind: of every variant and layer, and over layers; what never occurs has no row."""
    backends: dict[tuple[str, str, str], Counter[str]] = {}
    fates: dict[tuple[str, str, str], Counter[str]] = {}
    for row in run.raw(EXPERT_CALLS).to_pylist():
        for layer in ("", row["layer"]):
            where = row["phase"], row["variant"], layer
            backends.setdefault(where, Counter())[row["backend"]] += row["calls"]
            fates.setdefault(where, Counter()).update({fate: row[fate] for fate in FATES})
    for where, calls in backends.items():
        phase, variant, layer = where
        address = Address(workload=run.record.workload, phase=phase, variant=variant, layer=layer)
        for backend, number in calls.items():
            yield MetricRow("expert_calls", number, **(address | Address(category=backend))), []
        for fate, number in fates[where].items():
            if number:
                yield MetricRow("choices", number / fates[where].total(), **(address | Address(category=fate))), []
