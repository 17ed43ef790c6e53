"""Outputs and quality: whether variants compute the same, and how good the model is, domain by domain."""

from collections.abc import Iterator

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.metrics.row import Address
from moeprof.records.run.run import Run
from moeprof.reporters.cells import percent
from moeprof.reporters.page.blocks import PageBlock
from moeprof.reporters.page.figure import Axis, Figure, Series, View
from moeprof.reporters.page.selection import ALL_DOMAINS, variant_colour
from moeprof.reporters.sections.tables import MetricColumn, Row, metric_table, scopes
from moeprof.reporters.sections.variants import variants_of

QUALITIES = {
    "bits_per_byte": ("bits per byte", "Cross-entropy in bits per byte of text; lower is better."),
    "chrf": ("chrF", "chrF of greedy translations against the references, from 0 to 100; higher is better."),
}
AGREEMENT: dict[str, MetricColumn] = {
    "compared tokens": ("output_tokens_compared", "{:,.0f}".format),
    "differing": ("output_tokens_differing", "{:,.0f}".format),
    "excluded": ("output_tokens_lost", "{:,.0f}".format),
    "routing flips": ("routing_flips", "{:,.0f}".format),
    "same next token": ("token_agreement", percent),
    "largest difference": "output_max_abs_diff",
}


def quality(run: Run, metrics: RunMetrics) -> Iterator[PageBlock]:
    """Agreement with the baseline, and quality; nothing for a run that ran no model."""
    if not run.record.recipe:
        return
    yield from agreement_table(run, metrics)
    yield from layer_figure(run, metrics)
    for metric in QUALITIES:
        yield from quality_figure(run, metrics, metric)


def agreement_table(run: Run, metrics: RunMetrics) -> Iterator[PageBlock]:
    """The comparison of outputs end to end, for every phase and variant that was compared."""
    rows = [
        Row([phase, variant], Address(phase=phase, variant=variant))
        for phase in metrics.phases
        for variant in variants_of(run)
        if metrics.or_none("output_tokens_compared", phase=phase, variant=variant) is not None
    ]
    if rows:
        caption = (
            "Outputs compared with those of the baseline, token by token. Excluded: tokens that depend on a dropped choice or on a "
            "near-tie of the router. Routing flips: tokens whose choice of experts flipped at a near-tie."
        )
        yield metric_table(metrics, ["phase", "variant"], AGREEMENT, rows, caption)


def layer_figure(run: Run, metrics: RunMetrics) -> Iterator[PageBlock]:
    """The largest difference of every layer on the same inputs; nothing if no layer differs at all."""
    views = []
    for phase in metrics.phases:
        layers, series = metrics.distinct("layer", "output_max_abs_diff", phase=phase), []
        for variant in variants_of(run):
            here = metrics.at(phase=phase, variant=variant)
            found = {layer: number for layer in layers if (number := here.or_none("output_max_abs_diff", layer=layer))}
            if found:
                series.append(Series(variant, list(found), list(found.values()), "dots", colour=variant_colour(variant)))
        if series:
            views.append(View({"phase": phase}, series))
    if views:
        yield Figure(
            "quality-layers",
            "Largest difference of an output, by layer",
            "How far the outputs of a layer are from those of the baseline on the same inputs; without a dot they are equal to the bit.",
            Axis("layer"),
            Axis("largest difference", logarithmic=True),
            views,
        )


def quality_figure(run: Run, metrics: RunMetrics, metric: str) -> Iterator[PageBlock]:
    """A measure of quality by domain and variant; nothing if it was not measured."""
    title, words = QUALITIES[metric]
    views = []
    for phase in metrics.phases:
        series = []
        for variant in variants_of(run):
            found = {
                domain or ALL_DOMAINS: number
                for domain in scopes(metrics, phase)
                if (number := metrics.or_none(metric, phase=phase, domain=domain, variant=variant)) is not None
            }
            if found:
                series.append(Series(variant, list(found), list(found.values()), "bars", colour=variant_colour(variant)))
        if series:
            views.append(View({"phase": phase}, series))
    if views:
        yield Figure(
            f"quality-{metric.replace('_', '-')}",
            f"{title} by domain",
            words,
            Axis("domain"),
            Axis(title),
            views,
            horizontal=True,
        )
