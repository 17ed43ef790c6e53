"""Tables of metrics: a row per address, a column per metric."""

from collections.abc import Mapping, Sequence

from moeprof.records.units import format_significant
from moeprof.reporters.documents.document import Table
from moeprof.reporters.numbers import Numbers, Write, cell

Column = str | tuple[str, Write]
"""A metric, shown with three digits or as the function writes it."""

Row = tuple[Sequence[str], Mapping[str, str]]
"""What a row is called, and its address."""


def metric_table(
    numbers: Numbers, labels: Sequence[str], columns: Mapping[str, Column], rows: Sequence[Row], caption: str
) -> Table:
    """A dash stands where the run has no such number."""
    written = {title: (column, format_significant) if isinstance(column, str) else column for title, column in columns.items()}
    cells = [
        [*names, *(cell(numbers.get(metric, **address), write) for metric, write in written.values())]
        for names, address in rows
    ]
    return Table([*labels, *columns], cells, labels=len(labels), caption=caption)


def scope_name(domain: str) -> str:
    """As a domain is called in a row."""
    return domain or "all"


def domain_rows(numbers: Numbers, phase: str) -> list[Row]:
    """A row for all domains together and for each."""
    return [([scope_name(domain)], {"phase": phase, "domain": domain}) for domain in numbers.scopes(phase)]


def layer_rows(numbers: Numbers, phase: str) -> list[Row]:
    """A row for every layer and domain."""
    return [
        ([layer, scope_name(domain)], {"phase": phase, "domain": domain, "layer": layer})
        for layer in numbers.layers(phase)
        for domain in numbers.scopes(phase)
    ]
