"""Expert placement: loads of devices before and after, what placing gains and costs, and traffic between devices."""

from collections.abc import Iterator, Sequence

from moeprof.analysis.placement import balance_results
from moeprof.analysis.placement.balance_results import balancer_point, gain_at
from moeprof.analysis.placement.gain import WORTH
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.policies.balancing.contiguous import CONTIGUOUS
from moeprof.records.metrics.number import RecordedNumber
from moeprof.records.run.run import Run
from moeprof.reporters.cells import interval, percent, plural
from moeprof.reporters.page.blocks import PageBlock
from moeprof.reporters.page.figure import Axis, Colour, Figure, FileSource, HeatCells, Hue, MarkedLine, Series, View
from moeprof.reporters.page.sections.before_and_after import COLOURS, LOAD, beside, largest
from moeprof.reporters.page.sections.ranks import ranks
from moeprof.reporters.page.sections.replacing import rebalancing_figures, replica_figure

DEVICE_LOADS = FileSource("metrics.csv", "log2(device_load / its mean over devices), at least -10")


def placement(run: Run, metrics: RunMetrics) -> Iterator[PageBlock]:
    """Figures of replayed placements, and of runs of several ranks; nothing for other runs."""
    if run.record.balance:
        yield from load_figure(metrics)
        yield from devices_figure(metrics)
        yield from step_size_figure(metrics)
        yield from replica_figure(metrics)
        yield from rebalancing_figures(metrics)
        yield from traffic_figure(metrics)
        yield from waiting_figure(metrics)
    elif run.record.recipe and run.record.ran.parallel.ranks > 1:
        yield from ranks(run, metrics)


def best_names(results: RunMetrics, phase: str) -> list[str]:
    """The best balancer without copies, and the best one with copies, as far as there are any."""
    devices = results.record.balanced.focus
    found = (balance_results.best(results, phase, devices, copies=copies) for copies in (False, True))
    return [one[0] for one in found if one]


def best_first(results: RunMetrics, phase: str) -> list[str]:
    """All balancers but contiguous that have loads, the best ones first."""
    names = balance_results.balancers(results, phase, results.record.balanced.focus)
    return [*dict.fromkeys([*best_names(results, phase), *(name for name in names if name != CONTIGUOUS.name)])]


def numbers_of(results: RunMetrics, metric: str, phase: str, names: Sequence[str]) -> dict[str, RecordedNumber]:
    """A metric of contiguous placement and of these balancers, on the devices of the verdict, as far as they have it."""
    devices = results.record.balanced.focus
    found = {
        name: results.or_none(metric, phase=phase, point=balancer_point(name, devices)) for name in (CONTIGUOUS.name, *names)
    }
    return {name: number for name, number in found.items() if number is not None}


def load_figure(results: RunMetrics) -> Iterator[PageBlock]:
    """Loads of all layers and devices, contiguous beside every balancer; nothing if no layer was placed."""
    views = [view for phase in balance_results.phases(results) for view in load_views(results, phase)]
    if views:
        yield Figure(
            "placement-loads",
            "Load of every device and layer, before and after",
            f"Left: contiguous placement; right: the chosen one, made from the first half of the steps. {busiest_sentence(results)}",
            Axis("device"),
            LOAD,
            views,
            rows=Axis("layer"),
            caption=f"Loads are means over the test steps, on {results.record.balanced.focus} devices. {COLOURS}",
        )


def load_views(results: RunMetrics, phase: str) -> Iterator[View]:
    """A view for every balancer, the best ones first."""
    before = device_loads(results, phase, CONTIGUOUS.name)
    for name in best_first(results, phase) if before else ():
        after = device_loads(results, phase, name)
        layers = [layer for layer in before if layer in after]
        if layers:
            loads = [before[layer] for layer in layers], [after[layer] for layer in layers]
            words = f"Most loaded device of any layer: {largest(layers, loads[0])} before, {largest(layers, loads[1])} under {name}."
            yield View({"phase": phase, "placement": name}, heat=beside(layers, *loads, DEVICE_LOADS), readout=words)


def device_loads(results: RunMetrics, phase: str, name: str) -> dict[str, list[float]]:
    """The mean load of every device by layer; layers without loads are left out."""
    devices = results.record.balanced.focus
    here = results.at(phase=phase, point=balancer_point(name, devices))
    found = {
        layer: [here.or_none("device_load", layer=layer, rank=str(rank)) for rank in range(devices)]
        for layer in balance_results.layers(results, phase)
    }
    return {
        layer: [load for load in loads if load is not None]
        for layer, loads in found.items()
        if None not in loads and any(loads)
    }


def colours_of(results: RunMetrics, phase: str) -> dict[str, Colour]:
    """The colours of the best balancers and of contiguous placement; others are grey."""
    return {name: Hue("balancer", name) for name in (CONTIGUOUS.name, *best_names(results, phase))}


def in_colour_last(results: RunMetrics, phase: str, names: Sequence[str]) -> list[str]:
    """Balancers in the order of drawing: those in colour over the others."""
    return sorted(names, key=lambda name: name in colours_of(results, phase))


def devices_figure(results: RunMetrics) -> Iterator[PageBlock]:
    """The busiest device's share over the number of devices, with the floor; nothing for a single number."""
    views = []
    for phase in balance_results.phases(results):
        here, colours = results.at(phase=phase), colours_of(results, phase)
        series = []
        for name in in_colour_last(results, phase, results.record.balanced.balancers):
            curve = here.curve("avg_max_load", "devices", other={"balancer": name})
            if curve:
                series.append(curve_series(name, curve, colours.get(name, "muted")))
        floor = here.curve("avg_max_load_floor", "devices")
        if len(floor) > 1:
            views.append(View({"phase": phase}, [curve_series("floor without copies", floor, "ink"), *series]))
    if views:
        yield Figure(
            "placement-devices",
            "Share of the busiest device over the number of devices",
            "How near every balancer comes to the floor, which no placement without copies can pass.",
            Axis("devices", logarithmic=True),
            Axis("share of the busiest device", "fraction"),
            views,
            caption="Share of a step's choices, mean over test steps and layers. In colour: contiguous placement and the best balancers "
            f"with and without copies on {results.record.balanced.focus} devices; grey: the others.",
        )


def curve_series(name: str, curve: Sequence[tuple[int, RecordedNumber]], colour: Colour) -> Series:
    """A curve as a line."""
    return Series(
        name, [at for at, _ in curve], [value for _, value in curve], "rule" if colour == "ink" else "line", colour=colour
    )


def busiest_sentence(results: RunMetrics) -> str:
    """The share of the busiest device under contiguous and under the best placement, phase by phase."""
    devices, parts = results.record.balanced.focus, []
    for phase in balance_results.phases(results):
        shares = numbers_of(results, "avg_max_load", phase, best_names(results, phase))
        found = ", ".join(f"{percent(share)} under {name}" for name, share in shares.items())
        parts += (
            [f"{phase}, {devices} devices: the busiest takes {found}; even would be {percent(1 / devices)}."] if found else []
        )
    return " ".join(parts)


def step_size_figure(results: RunMetrics) -> Iterator[PageBlock]:
    """Gains over tokens per step with intervals; nothing for fewer than two numbers."""
    views = []
    for phase in balance_results.phases(results):
        colours = colours_of(results, phase)
        names = in_colour_last(results, phase, best_first(results, phase))
        series = [each for name in names if (each := gain_series(results, phase, name, colours.get(name, "muted"))).values]
        if any(len(each.values) > 1 for each in series):
            worth = MarkedLine("worth a move from", RecordedNumber(WORTH, WORTH))
            views.append(View({"phase": phase}, series, marks=[worth], readout=step_size_words(results, phase)))
    if views:
        yield Figure(
            "placement-steps",
            "Gain over tokens per step",
            "What placing gains if a step has more tokens, and where the test steps are too few for a verdict.",
            Axis("tokens per step", logarithmic=True),
            Axis("gain over contiguous", "fraction"),
            views,
            caption="Gain: by what fraction the busiest device's share falls. Bands: 95% intervals from resampled test steps, for all at "
            "once, of the balancers in colour, which are the best with and without copies; grey: the others. "
            f"{results.record.balanced.focus} devices. More tokens per step leave fewer test steps, so that intervals widen.",
        )


def gain_series(results: RunMetrics, phase: str, name: str, colour: Colour) -> Series:
    """The gain of a balancer with every number of tokens per step."""
    tokens, devices = sorted(set(results.record.balanced.tokens_per_step)), results.record.balanced.focus
    found = {
        number: gain
        for number in tokens
        if (gain := gain_at(results, phase, balancer_point(name, devices, number), number)) is not None
    }
    whole = colour != "muted"
    return Series(
        name,
        list(found),
        [gain.value for gain in found.values()],
        low=[gain.low for gain in found.values()] if whole else (),
        high=[gain.high for gain in found.values()] if whole else (),
        remarks=[f"{gain.steps:,} test {plural(gain.steps, 'step', 'steps')}, {gain.verdict}" for gain in found.values()],
        colour=colour,
    )


def step_size_words(results: RunMetrics, phase: str) -> str:
    """The best gain without copies at the fewest and at the most tokens per step."""
    found = balance_results.step_sizes(results, phase, copies=False)
    ends = [
        f"{name} gains {interval(gain)} at {number:,} {plural(number, 'token', 'tokens')} per step ({gain.verdict})"
        for number, name, gain in dict.fromkeys([*found[:1], *found[-1:]])
    ]
    return f"Without copies: {'; '.join(ends)}." if ends else ""


def traffic_figure(results: RunMetrics) -> Iterator[PageBlock]:
    """Copies of tokens from device to device under every balancer; nothing for counts, or for too many devices."""
    views = []
    for phase in balance_results.phases(results):
        for name in [CONTIGUOUS.name, *best_first(results, phase)]:
            heat = pair_cells(results.at(phase=phase, point=balancer_point(name, results.record.balanced.focus)))
            views += [View({"phase": phase, "placement": name}, heat=heat)] if heat else []
    if views:
        yield Figure(
            "placement-traffic",
            "Tokens from device to device",
            traffic_sentence(results),
            Axis("to device"),
            Axis("copies per step"),
            views,
            rows=Axis("from device"),
            caption="Copies of tokens that one device sends to another, one per choice, one way, over all layers. The tokens of a step are "
            "spread evenly over the devices, in their order.",
        )


def pair_cells(here: RunMetrics) -> HeatCells | None:
    """Copies per step from each device to each other; None if they were not counted."""
    names = [str(device) for device in range(here.record.balanced.focus)]
    sent = [[here.or_none("virtual_comm_tokens", category=f"{one}>{other}") for other in names] for one in names]
    return HeatCells(names, names, sent, low=0.0) if any(number is not None for row in sent for number in row) else None


def traffic_sentence(results: RunMetrics) -> str:
    """The copies that cross devices under contiguous and under the best placement, phase by phase."""
    parts = []
    for phase in balance_results.phases(results):
        sent = numbers_of(results, "virtual_comm_tokens", phase, best_names(results, phase))
        parts += (
            [f"{phase}: {', '.join(f'{number:,.0f} copies per step under {name}' for name, number in sent.items())}."]
            if sent
            else []
        )
    return " ".join(parts)


def waiting_figure(results: RunMetrics) -> Iterator[PageBlock]:
    """Modelled time of the all-to-all and what the mean device waits in it; nothing if the size of a token is unknown."""
    views = []
    for phase in balance_results.phases(results):
        series = []
        for title, metric in {"all-to-all": "virtual_comm_time", "of which waiting, mean device": "virtual_wait_time"}.items():
            found = numbers_of(results, metric, phase, best_first(results, phase))
            series += [Series(title, list(found), list(found.values()), "bars")] if found else []
        views += [View({"phase": phase}, series)] if series else []
    if views:
        yield Figure(
            "placement-waits",
            "Time of the all-to-all under every placement",
            "How long devices exchange tokens in a step, and how long the mean device waits in it for the slowest.",
            Axis("placement"),
            Axis("time per step", "ns"),
            views,
            horizontal=True,
            caption="Modelled from the bandwidth of the links, over all layers; not measured.",
        )
