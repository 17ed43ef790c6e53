"""What computed the experts of a Hugging Face model, and what became of the choices that no expert computed."""

from collections.abc import Iterator, Mapping

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.run.raw_tables import FATES
from moeprof.reporters.cells import cell, percent, plural
from moeprof.reporters.documents.document import Block, Details, Table


def call_blocks(metrics: RunMetrics, phase: str, variants: Mapping[str, str]) -> Iterator[Block]:
    """A row per variant, and details of every layer of the first; nothing of a run that did not record calls."""
    here = {title: metrics.at(phase=phase, variant=label) for label, title in variants.items()}
    shown = {title: found for title, found in here.items() if found.distinct("category", "expert_calls")}
    if not shown:
        return
    yield call_table("model", shown, "What computed the experts while routing was recorded.")
    first = next(iter(shown.values()))
    layers = {layer: first.at(layer=layer) for layer in first.distinct("layer", "expert_calls")}
    if fates_in(layers):
        yield Details("choices per layer", [call_table("layer", layers, "Of the first model.")])


def fates_in(rows: Mapping[str, RunMetrics]) -> list[str]:
    """The kinds of choices that any row has; none if every choice was computed for a token."""
    found = [fate for fate in FATES if any(here.or_none("choices", category=fate) for here in rows.values())]
    return [] if found == ["routed"] else found


def call_table(label: str, rows: Mapping[str, RunMetrics], caption: str) -> Table:
    """Backends and, if there are choices of other kinds than routed, the share of each kind."""
    fates = fates_in(rows)
    cells = [
        [name, backends(here), *(cell(here.or_none("choices", category=fate) or 0.0, percent) for fate in fates)]
        for name, here in rows.items()
    ]
    shares = " Shares are of rows x top-k choices: those of padding rows, those that the router skips, those of experts without weights "
    shares += "(zero compute), of full experts (dropped) and of other ranks (sentinel) are computed for no token."
    return Table(
        [label, "experts backend", *(fate.replace("_", " ") for fate in fates)],
        cells,
        labels=2,
        caption=caption + (shares if fates else ""),
    )


def backends(here: RunMetrics) -> str:
    """`grouped_mm (1 call), batched_mm (64 calls)`."""
    numbers = {name: round(here.value("expert_calls", category=name)) for name in here.distinct("category", "expert_calls")}
    return ", ".join(f"{name} ({number:,} {plural(number, 'call', 'calls')})" for name, number in numbers.items())
