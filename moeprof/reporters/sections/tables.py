"""Tables of metrics: a row per address, a column per metric."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.metrics.registry import Address
from moeprof.records.units import format_significant
from moeprof.reporters.cells import Write, cell
from moeprof.reporters.documents.document import Table

MetricColumn = str | tuple[str, Write]
"""A metric, shown with three digits or as the function writes it."""


class Row(NamedTuple):
    """The labels of a row, and the address of its numbers."""

    labels: Sequence[str]
    address: Address


def metric_table(
    metrics: RunMetrics, labels: Sequence[str], columns: Mapping[str, MetricColumn], rows: Sequence[Row], caption: str
) -> Table:
    """A dash stands where the run has no such number."""
    written = {title: (column, format_significant) if isinstance(column, str) else column for title, column in columns.items()}
    cells = [
        [*names, *(cell(metrics.or_none(metric, **address), write) for metric, write in written.values())]
        for names, address in rows
    ]
    return Table([*labels, *columns], cells, labels=len(labels), caption=caption)


def scope_name(domain: str) -> str:
    """As a domain is called in a row."""
    return domain or "all"


def scopes(metrics: RunMetrics, phase: str) -> list[str]:
    """All domains together, and each of them if there are several."""
    domains = metrics.domains(phase)
    return ["", *domains] if len(domains) > 1 else [""]


def domain_rows(metrics: RunMetrics, phase: str, variant: str) -> list[Row]:
    """A row for all domains together and for each."""
    return [
        Row([scope_name(domain)], Address(phase=phase, domain=domain, variant=variant)) for domain in scopes(metrics, phase)
    ]


def layer_rows(metrics: RunMetrics, phase: str, variant: str) -> list[Row]:
    """A row for every layer and domain."""
    return [
        Row([layer, scope_name(domain)], Address(phase=phase, domain=domain, layer=layer, variant=variant))
        for layer in metrics.layers(phase)
        for domain in scopes(metrics, phase)
    ]
