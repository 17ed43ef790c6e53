"""What `moeprof fit-predictor` prints: recall of the predictor beside that of other methods, and whether it is better than them."""

from collections.abc import Iterator

from moeprof.records.predictor import Advantage, FitReport, HitRate
from moeprof.records.units import format_count, format_duration
from moeprof.reporters.cells import percent
from moeprof.reporters.documents.document import Block, Bullets, Document, Heading, Paragraph, Table

METHODS = {
    "sida": "SiDA",
    "token": "token table",
    "previous": "token before",
    "frequency": "frequency",
    "shuffled": "shuffled labels",
}
"""Columns of the table."""

DESCRIPTIONS = {
    "frequency": "the frequency baseline",
    "previous": "the experts of the token before",
    "token": "a table of experts by token id",
    "shuffled": "a predictor fitted to shuffled labels",
}
MAX_LAYERS = 6
"""Layers that the table shows; --json has all."""


def document_of(report: FitReport) -> Document:
    """Title, training, table and verdicts."""
    return [Heading(f"{report.file}: SiDA's predictor for {report.recipe}", level=1), *blocks(report)]


def blocks(report: FitReport) -> Iterator[Block]:
    """What the document holds below its title."""
    yield Paragraph(
        f"{format_count(report.num_parameters)} parameters, fitted to {format_count(report.fitted_tokens)} tokens of "
        f"{report.fitted_documents} documents in {epochs(report)} and {format_duration(report.cpu_seconds * 1e9)} of CPU time; "
        f"judged on {format_count(report.heldout_tokens)} tokens of {report.heldout_documents} other documents."
    )
    yield table(report)
    yield Bullets([verdict(found) for name in DESCRIPTIONS for found in report.advantages if found.method == name])


def epochs(report: FitReport) -> str:
    """How often the text was read, and why not more often."""
    if report.epochs < report.epochs_asked:
        return f"{report.epochs} of {report.epochs_asked} epochs, after which --cpu-minutes ended the training,"
    return f"{report.epochs} epochs"


def table(report: FitReport) -> Table:
    """Recall by layer at K predicted experts, and over all layers also at more."""
    found = {(rate.stack, rate.layer, rate.asked, rate.method): rate for rate in report.rates}
    of_layers = [rate for rate in ours(report) if rate.layer and rate.asked == report.top_k]
    shown = of_layers if len(of_layers) <= MAX_LAYERS else []
    rows = [
        [
            rate.layer or "all",
            str(rate.asked),
            *(percent(found[rate.stack, rate.layer, rate.asked, method].recall) for method in METHODS),
            percent(rate.precision),
        ]
        for rate in [*shown, *(rate for rate in ours(report) if not rate.layer)]
    ]
    caption = f"Share of the router's {report.top_k} choices per token that each method predicts; precision: share of SiDA's predictions."
    return Table(["layer", "predicted", *METHODS.values(), "precision"], rows, labels=1, caption=caption)


def ours(report: FitReport) -> list[HitRate]:
    """The rates of the predictor itself."""
    return [rate for rate in report.rates if rate.method == "sida"]


def verdict(found: Advantage) -> str:
    """Whether the predictor is better than another method."""
    gain, low, high = (f"{value * 100:+.1f}" for value in (found.gain, found.low, found.high))
    return (
        f"It predicts {found.verdict} than {DESCRIPTIONS[found.method]} on this model: {gain} points of recall "
        f"(95% interval over documents {low} to {high})."
    )
