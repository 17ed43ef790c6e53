"""Where time goes: by region and layer, round by round, and the latency of decoding."""

from collections.abc import Iterator, Sequence

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.analysis.timing.bottleneck import IDLE_GAPS, bottleneck, includes_idle_gaps
from moeprof.records.run.run import Run
from moeprof.reporters.cells import duration, times
from moeprof.reporters.documents.document import Paragraph
from moeprof.reporters.names import name_of
from moeprof.reporters.page.blocks import PageBlock
from moeprof.reporters.page.figure import Axis, Facets, Figure, FileSource, Series, View
from moeprof.reporters.page.rounds import TimedRounds
from moeprof.reporters.page.selection import domain_facets, variant_colour
from moeprof.reporters.sections.speed import layers_in_order, overhead_sentence, regions_of
from moeprof.reporters.sections.variants import variants_of

TIME = Axis("time per step", "ns")
LATENCIES = {
    "first token": "time_to_first_token",
    "further token": "time_per_output_token",
    "step p50": "decode_step_p50",
    "step p95": "decode_step_p95",
    "step p99": "decode_step_p99",
}
INTERVALS = FileSource("samples.parquet", "95% interval of the median of the rounds at the address of the value")
ROUNDS = FileSource("samples.parquet", "step_latency by round")


def time(run: Run, metrics: RunMetrics) -> Iterator[PageBlock]:
    """Figures of time; nothing for a run that ran no model."""
    if not run.record.recipe:
        return
    rounds = TimedRounds.of(run)
    yield from region_figures(run, metrics, rounds)
    yield from round_figure(run, metrics, rounds)
    yield from latency_figure(run, metrics, rounds)


def region_figures(run: Run, metrics: RunMetrics, rounds: TimedRounds) -> Iterator[PageBlock]:
    """Bars of all regions, which open the layers of a region; nothing without a breakdown pass."""
    views = [
        view
        for phase in metrics.phases
        for word, domain in domain_facets(metrics, phase)
        if (view := region_view(run, metrics.at(phase=phase, domain=domain), rounds, {"phase": phase, "domain": word}))
    ]
    if not views:
        return
    layers = layer_views(run, metrics)
    yield Figure(
        "time-regions",
        "Time per step by region",
        region_sentence(run, metrics),
        Axis("region"),
        TIME,
        views,
        horizontal=True,
        opens=("time-layers", "region") if layers else None,
        caption="Medians over rounds, summed over layers; whiskers: 95% interval of the median."
        + (" Select a region to see its layers." if layers else "")
        + overheads(run, metrics),
    )
    if includes_idle_gaps(metrics):
        yield Paragraph(IDLE_GAPS)
    if layers:
        yield Figure(
            "time-layers",
            "Time per step by layer",
            "The time of one region in every layer that has it.",
            Axis("layer"),
            TIME,
            layers,
            caption="Medians over rounds, all domains together.",
        )


def region_view(run: Run, here: RunMetrics, rounds: TimedRounds, facets: Facets) -> View | None:
    """The regions of all variants in a phase and domain, the longest first; None if none was timed."""
    phase, variants = here.scope.get("phase", ""), variants_of(run)
    regions = regions_of(here, phase, variants)
    longest = {
        region: max(here.or_none("region_time", variant=one, region=region) or 0.0 for one in variants) for region in regions
    }
    regions.sort(key=lambda region: -longest[region])
    series = []
    for variant in variants:
        numbers = {
            region: number
            for region in regions
            if (number := here.or_none("region_time", variant=variant, region=region)) is not None
        }
        low, high = rounds.intervals(numbers.values())
        if numbers:
            series.append(
                Series(
                    variant,
                    list(numbers),
                    list(numbers.values()),
                    "bars",
                    low,
                    high,
                    colour=variant_colour(variant),
                    source=INTERVALS if low else None,
                )
            )
    return View(facets, series) if series else None


def region_sentence(run: Run, metrics: RunMetrics) -> str:
    """The region that takes most of a step, for every phase and the last variant."""
    variant, parts = (run.record.routed_labels or variants_of(run))[-1], []
    for phase in metrics.phases:
        found = bottleneck(metrics, phase, variant)
        if found:
            parts.append(f"Most of a {phase} step under {name_of(variant)}: {found.sentence}")
    return " ".join(parts) or "The time of every region of a step, for all variants on one axis."


def overheads(run: Run, metrics: RunMetrics) -> str:
    """What the timers of regions cost, over all phases and variants."""
    found = [
        metrics.or_none("overhead", phase=phase, variant=variant, category="breakdown")
        for phase in metrics.phases
        for variant in variants_of(run)
    ]
    return overhead_sentence([overhead for overhead in found if overhead is not None])


def layer_views(run: Run, metrics: RunMetrics) -> list[View]:
    """A view for every phase and region that has times by layer."""
    views = []
    for phase in metrics.phases:
        layers = layers_in_order(metrics, phase)
        for region in regions_of(metrics, phase, variants_of(run)):
            series = [
                layer_series(metrics.at(phase=phase, region=region, variant=one), one, layers) for one in variants_of(run)
            ]
            known = [each for each in series if each.values]
            if known:
                views.append(View({"phase": phase, "region": region}, known))
    return views


def layer_series(here: RunMetrics, variant: str, layers: Sequence[str]) -> Series:
    """The times of a region and variant, layer by layer."""
    numbers = {layer: number for layer in layers if (number := here.or_none("region_time", layer=layer)) is not None}
    return Series(variant, list(numbers), list(numbers.values()), "bars", colour=variant_colour(variant))


def round_figure(run: Run, metrics: RunMetrics, rounds: TimedRounds) -> Iterator[PageBlock]:
    """Every round as a dot beside the median."""
    views = []
    for phase in metrics.phases:
        for domain in metrics.domains(phase):
            here = metrics.at(phase=phase, domain=domain)
            series = [each for variant in variants_of(run) for each in round_series(here, rounds, variant)]
            if series:
                views.append(View({"phase": phase, "domain": domain}, series))
    if views:
        yield Figure(
            "time-rounds",
            "Every timed round",
            noise_sentence(run),
            Axis("round"),
            TIME,
            views,
            caption="Dots: rounds, in which variants alternate; lines: their medians. Rounds that rise, fall or jump together are a "
            "change of the machine, not of the model.",
        )


def round_series(here: RunMetrics, rounds: TimedRounds, variant: str) -> Iterator[Series]:
    """The rounds of a variant, and its median from the first to the last round."""
    number = here.or_none("step_latency", variant=variant)
    times = rounds.values(number) if number is not None else []
    if number is None or not times:
        return
    colour = variant_colour(variant)
    yield Series(variant, list(range(1, len(times) + 1)), times, "dots", colour=colour, source=ROUNDS)
    yield Series(f"{variant}, median", [1, len(times)], [number, number], "rule", colour=colour)


def noise_sentence(run: Run) -> str:
    """How many timings are noisy."""
    noisy = len(run.record.noisy)
    return (
        f"{noisy} timings are noisy (IQR > 10% of the median)."
        if noisy
        else "No timing varies by more than 10% between rounds."
    )


def latency_figure(run: Run, metrics: RunMetrics, rounds: TimedRounds) -> Iterator[PageBlock]:
    """The first token, further tokens, and percentiles of the decode steps; nothing if nothing is decoded."""
    views = []
    for phase in metrics.phases:
        for word, domain in domain_facets(metrics, phase):
            here = metrics.at(phase=phase, domain=domain)
            series = [each for variant in variants_of(run) if (each := latency_series(here, rounds, variant)).values]
            if series:
                views.append(View({"phase": phase, "domain": word}, series))
    if views:
        yield Figure(
            "time-decode",
            "Latency of decoding",
            latency_sentence(run, metrics),
            Axis("latency"),
            Axis("time", "ns", logarithmic=True),
            views,
            horizontal=True,
            caption="First token: from the start of the prompt, or of the source, until the first generated token. Percentiles: of "
            "the steps of all rounds.",
        )


def latency_series(here: RunMetrics, rounds: TimedRounds, variant: str) -> Series:
    """The latencies of a variant that were measured."""
    numbers = {
        title: number for title, metric in LATENCIES.items() if (number := here.or_none(metric, variant=variant)) is not None
    }
    return Series(variant, list(numbers), list(numbers.values()), "dots", colour=variant_colour(variant))


def latency_sentence(run: Run, metrics: RunMetrics) -> str:
    """`dynamic: half of the decode steps take at most 11.1 ms, 99% at most 18.2 ms (1.64x).`"""
    parts = []
    for variant in variants_of(run):
        here = metrics.at(phase="decode", variant=variant)
        half, most = here.or_none("decode_step_p50"), here.or_none("decode_step_p99")
        if half and most:
            limits = (
                f"half of the decode steps take at most {duration(half)}, 99% at most {duration(most)} ({times(most / half)})"
            )
            parts.append(f"{variant}: {limits}.")
    return " ".join(parts) or "How long a user waits for the first token and for each further one."
