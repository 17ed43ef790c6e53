"""Loads of devices in one phase: balancers side by side, over numbers of devices, by layer and by domain."""

from collections.abc import Callable, Iterator, Mapping

from moeprof.analysis.balanced import Balanced
from moeprof.policies.balancing.contiguous import CONTIGUOUS
from moeprof.records.run.replay import ALL
from moeprof.records.units import format_bytes, format_significant
from moeprof.reporters.documents.document import Block, Curves, Details, HeatMap, Table
from moeprof.reporters.numbers import MISSING, cell, duration, percent

LAYERS = 12
"""Lines of a map of devices."""


def phase_blocks(balanced: Balanced, phase: str) -> Iterator[Block]:
    """Everything about one phase."""
    devices = balanced.balance.focus
    judged = balanced.get("test_steps", phase) is not None
    if judged:
        yield balancer_table(balanced, phase, devices)
        yield cost_table(balanced, phase, devices)
        yield load_curves(balanced, phase)
        yield from device_maps(balanced, phase, devices)
    if balanced.crosses(phase):
        yield from (cross_table(balanced, phase, number) for number in balanced.balance.devices[: 1 if judged else None])
    if balanced.drifts(phase):
        yield drift_table(balanced, phase)
    if judged:
        parts: list[Block] = [layer_table(balanced, phase, devices), curve_table(balanced, phase)]
        yield Details(f"every layer, and every number of devices, {phase}", parts)


def balancer_table(balanced: Balanced, phase: str, devices: int) -> Table:
    """Loads and gains, a row per balancer."""
    floors = (balanced.get(f"{metric}_floor", phase, devices=devices) for metric in ("max_load", "avg_max_load"))
    caption = (
        f"{devices} devices, test steps only. Share of a step's choices on the busiest device: the largest of all steps (max load, "
        "memory) and the mean (avg max, latency), means over layers; worst: avg max of the worst layer; "
        f"ideal {percent(1 / devices)}, floors without copies {' and '.join(cell(floor, percent) for floor in floors)}. "
        "Gain: fall of avg max, with its 95% interval."
    )
    columns = {
        "max load": ("max_load", percent),
        "avg max": ("avg_max_load", percent),
        "worst": ("avg_max_load_worst", percent),
        "gain": ("load_gain", signed),
        "from": ("load_gain_low", signed),
        "to": ("load_gain_high", signed),
    }
    return table_of(balanced, phase, devices, columns, caption)


def cost_table(balanced: Balanced, phase: str, devices: int) -> Table:
    """What a placement takes, and what devices then send each other."""
    columns = {
        "slots": ("device_slots", format_significant),
        "moved": ("moved_experts", lambda count: f"{count:,.0f}"),
        "tokens sent": ("virtual_comm_tokens", format_significant),
        "bytes": ("virtual_comm_bytes", format_bytes),
        "waiting": ("virtual_wait_time", duration),
    }
    caption = (
        "Slots: experts of a layer on a device. Moved: experts that change their device. Tokens: leaving their device, per step, all "
        "layers, one way; bytes: of them, both ways; waiting of the mean device: modelled."
    )
    return table_of(balanced, phase, devices, columns, caption)


def table_of(
    balanced: Balanced, phase: str, devices: int, columns: Mapping[str, tuple[str, Callable[[float], str]]], caption: str
) -> Table:
    """A row per balancer; what is known of none has no column."""
    names = balanced.balancers(phase, devices)
    cells = {
        title: [cell(balanced.get(metric, phase, name, devices), write) for name in names]
        for title, (metric, write) in columns.items()
    }
    told = {title: column for title, column in cells.items() if any(text != MISSING for text in column)}
    return Table(["balancer", *told], list(zip(names, *told.values(), strict=True)), caption=caption)


def signed(fraction: float) -> str:
    """A percentage that is never less than nothing by less than it shows."""
    return percent(0.0 if -0.0005 < fraction < 0 else fraction)


def load_curves(balanced: Balanced, phase: str) -> Curves:
    """Avg max load over devices, a curve per balancer, with the floor."""
    numbers = balanced.balance.devices

    def points(metric: str, name: str) -> list[tuple[float, float]]:
        found = ((devices, balanced.get(metric, phase, name, devices)) for devices in numbers)
        return [(devices, value) for devices, value in found if value]

    curves = [(name, points("avg_max_load", name)) for name in balanced.balance.balancers]
    curves.append(("floor", points("avg_max_load_floor", "")))
    return Curves(
        f"Avg max load over devices, {phase}",
        "devices",
        "share of the busiest device, mean over steps",
        curves,
        "No placement without copies comes below the floor, max(1 / devices, hottest expert).",
        write_y=percent,
    )


def curve_table(balanced: Balanced, phase: str) -> Table:
    """The same as numbers."""
    numbers = balanced.balance.devices
    rows = [
        [name, *(cell(balanced.get("avg_max_load", phase, name, devices), percent) for devices in numbers)]
        for name in balanced.balance.balancers
    ]
    floors = (cell(balanced.get("avg_max_load_floor", phase, devices=devices), percent) for devices in numbers)
    rows.append(["floor without copies", *floors])
    return Table(["avg max load", *map(str, numbers)], rows, caption="By number of devices.")


def device_maps(balanced: Balanced, phase: str, devices: int) -> Iterator[Block]:
    """Mean load of every device in each layer, before and after."""
    best = balanced.best(phase, devices, copies=False)
    layers = balanced.layers(phase)[:LAYERS]
    for name in [CONTIGUOUS.name, *([best[0]] if best else [])]:
        values = [
            [balanced.get("device_load", phase, name, devices, layer=layer, rank=str(rank)) or 0.0 for rank in range(devices)]
            for layer in layers
        ]
        top = max((max(line) for line in values), default=0.0)
        if top:
            yield HeatMap(
                f"Load of {devices} devices under {name}, {phase}",
                [f"layer {layer}" for layer in layers],
                values,
                top,
                f"Full shade: {percent(top)} of a step's choices, mean over test steps; even is {percent(1 / devices)}.",
            )


def layer_table(balanced: Balanced, phase: str, devices: int) -> Table:
    """Avg max load of every layer under every balancer."""
    names = balanced.balancers(phase, devices)
    rows = [
        [
            f"layer {layer}",
            cell(balanced.get("avg_max_load_floor", phase, devices=devices, layer=layer), percent),
            *(cell(balanced.get("avg_max_load", phase, name, devices, layer=layer), percent) for name in names),
        ]
        for layer in balanced.layers(phase)
    ]
    return Table(["", "floor", *names], rows, caption=f"Avg max load of each layer on {devices} devices.")


def cross_table(balanced: Balanced, phase: str, devices: int) -> Table:
    """History of one domain, test of another; beside contiguous placement the best balancers with and without copies."""
    found = (balanced.best_elsewhere(phase, devices, copies=copies) for copies in (False, True))
    names = [CONTIGUOUS.name, *(name for name in found if name)]
    rows = [
        [
            past,
            future,
            cell(balanced.get("avg_max_load_floor", phase, devices=devices, domain=future, category=past), percent),
            *(
                cell(balanced.get("avg_max_load", phase, name, devices, domain=future, category=past), percent)
                for name in names
            ),
        ]
        for past, future in balanced.crosses(phase)
    ]
    what = "all choices of the domain as one step" if phase == ALL else "means over layers and test steps"
    caption = (
        f"Avg max load on {devices} devices where one domain's history places and another is judged, beside the balancers that are best in "
        f"the mean; {what}."
    )
    return Table(["history", "test", "floor", *names], rows, labels=2, caption=caption)


def drift_table(balanced: Balanced, phase: str) -> Table:
    """How far apart loads are, mean over layers."""
    rows = [
        [pair, *(cell(balanced.get(metric, phase, category=pair)) for metric in ("load_divergence", "hot_jaccard"))]
        for pair in balanced.drifts(phase)
    ]
    caption = (
        "Drift, mean over layers: Jensen-Shannon divergence of the loads in bits (0 the same, 1 nothing in common), and Jaccard of "
        "the hottest quarter of the experts (1 the same)."
    )
    return Table(["loads", "divergence", "hot Jaccard"], rows, caption=caption)
