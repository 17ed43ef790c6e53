"""Device loads in one phase: by balancer, number of devices, layer and domain."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from moeprof.analysis.placement import balance_results
from moeprof.analysis.placement.balance_results import balancer_point, balancer_value
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.policies.balancing.contiguous import CONTIGUOUS
from moeprof.records.metrics.point import format_point
from moeprof.records.run.replay import ALL
from moeprof.records.units import format_bytes, format_significant
from moeprof.reporters.cells import cell, duration, percent
from moeprof.reporters.documents.document import Block, Curves, Details, HeatMap, Table
from moeprof.reporters.sections.rebalancing import rebalancing_blocks
from moeprof.reporters.sections.replicas import replica_blocks
from moeprof.reporters.sections.tables import with_values


def phase_blocks(results: RunMetrics, phase: str) -> Iterator[Block]:
    """All tables, maps and curves of one phase."""
    devices = results.record.balanced.focus
    judged = results.or_none("test_steps", phase=phase) is not None
    if judged or balance_results.untested(results, phase):
        yield balancer_table(results, phase, devices)
        yield cost_table(results, phase, devices)
        yield from replica_blocks(results, phase)
    if judged:
        if len(set(results.record.balanced.tokens_per_step)) > 1:
            yield step_size_table(results, phase, devices)
        yield from rebalancing_blocks(results, phase)
        yield load_curves(results, phase)
        yield from device_maps(results, phase, devices)
    if balance_results.domain_pairs(results, phase):
        yield from (cross_table(results, phase, number) for number in results.record.balanced.devices[: 1 if judged else None])
    if balance_results.drift_pairs(results, phase):
        yield drift_table(results, phase)
    if judged:
        parts: list[Block] = [layer_table(results, phase, devices), curve_table(results, phase)]
        yield Details(f"every layer and every number of devices, {phase}", parts)


def balancer_table(results: RunMetrics, phase: str, devices: int) -> Table:
    """Loads and gains with a row per balancer."""
    floors = (balance_results.floor(results, metric, phase, devices) for metric in ("max_load", "avg_max_load"))
    steps = "the totals that placements were made from" if balance_results.untested(results, phase) else "test steps only"
    caption = (
        f"{devices} devices, {steps}. Share of a step's choices on the busiest device: max load = largest of all steps (for "
        "memory), avg max = mean over steps (for latency), both averaged over layers; worst = avg max of the worst layer. Ideal "
        f"{percent(1 / devices)}, floors without copies {' and '.join(cell(floor, percent) for floor in floors)}. gain = decrease of avg "
        "max; 95% intervals, for all at once."
    )
    columns = {
        "max load": ("max_load", percent),
        "avg max": ("avg_max_load", percent),
        "worst": ("avg_max_load_worst", percent),
        "gain": ("load_gain", signed),
        "from": ("load_gain_low", signed),
        "to": ("load_gain_high", signed),
    }
    return table_of(results, phase, devices, columns, caption)


def cost_table(results: RunMetrics, phase: str, devices: int) -> Table:
    """The cost of each placement, and the traffic between devices under it."""
    columns = {
        "slots": ("device_slots", format_significant),
        "moved": ("moved_experts", lambda count: f"{count:,.0f}"),
        "copies sent": ("virtual_comm_tokens", format_significant),
        "bytes": ("virtual_comm_bytes", format_bytes),
        "sent once": ("virtual_comm_unique_tokens", format_significant),
        "bytes once": ("virtual_comm_unique_bytes", format_bytes),
        "once per node": ("virtual_comm_node_unique_tokens", format_significant),
        "waiting": ("virtual_wait_time", duration),
    }
    caption = (
        "slots = experts per layer and device · moved = experts that change device · copies sent = copies of tokens per step that cross "
        "devices, one per choice, one way · sent once = the same if a token goes to each device once"
    )
    table = table_of(results, phase, devices, columns, caption)
    notes = {
        "once per node": "once per node = tokens that cross nodes, if one goes to each node once",
        "bytes": "bytes = both ways",
        "waiting": "waiting = mean over devices, modelled",
    }
    return replace(table, caption=" · ".join([caption, *(note for column, note in notes.items() if column in table.columns)]))


def step_size_table(results: RunMetrics, phase: str, devices: int) -> Table:
    """Gains with a row per number of tokens in a step and a column per balancer."""
    names = [name for name in balance_results.balancers(results, phase, devices) if name != CONTIGUOUS.name]
    rows = []
    for tokens in sorted(set(results.record.balanced.tokens_per_step)):
        steps = results.or_none("test_steps", phase=phase, point=format_point({"tokens": str(tokens)}))
        contiguous = results.or_none("avg_max_load", phase=phase, point=balancer_point(CONTIGUOUS.name, devices, tokens))
        points = (balancer_point(name, devices, tokens) for name in names)
        gains = (cell(results.or_none("load_gain", phase=phase, point=point), signed) for point in points)
        rows.append([f"{tokens:,}", cell(steps, format_significant), cell(contiguous, percent), *gains])
    caption = (
        f"{devices} devices, by tokens per step: consecutive tokens of a domain, which a server would run together. steps = test steps · "
        "avg max = under contiguous placement · the others: decrease of avg max."
    )
    return Table(["tokens", "steps", "avg max", *names], rows, caption=caption)


def table_of(
    results: RunMetrics, phase: str, devices: int, columns: Mapping[str, tuple[str, Callable[[float], str]]], caption: str
) -> Table:
    """A row per balancer; columns without any value are omitted."""
    names = balance_results.balancers(results, phase, devices)
    cells = {
        title: [cell(balancer_value(results, metric, phase, name, devices), write) for name in names]
        for title, (metric, write) in columns.items()
    }
    known = with_values(cells)
    return Table(["balancer", *known], list(zip(names, *known.values(), strict=True)), caption=caption)


def signed(fraction: float) -> str:
    """A percentage without a sign if it rounds to 0.0%."""
    return percent(0.0 if -0.0005 < fraction < 0 else fraction)


def load_curves(results: RunMetrics, phase: str) -> Curves:
    """Avg max load over the number of devices: contiguous, the best placement without copies, and the floor; a table has the others."""
    here, known = results.at(phase=phase), results.record.balanced.balancers
    best = balance_results.best(results, phase, results.record.balanced.focus, copies=False)
    drawn = [name for name in known if name in (CONTIGUOUS.name, best[0] if best else "")] or known[:2]
    curves = {name: here.curve("avg_max_load", "devices", other={"balancer": name}) for name in drawn} | {
        "floor": here.curve("avg_max_load_floor", "devices")
    }
    return Curves(
        f"Avg max load by number of devices, {phase}",
        "devices",
        "busiest-device share, mean over steps",
        [(name, [point for point in points if point[1] > 0]) for name, points in curves.items()],
        "Floor for placements without copies: max(1 / devices, share of the hottest expert).",
        write_y=percent,
    )


def curve_table(results: RunMetrics, phase: str) -> Table:
    """The values of `load_curves`, with a row per balancer."""
    numbers = results.record.balanced.devices
    rows = [
        [name, *(cell(balancer_value(results, "avg_max_load", phase, name, devices), percent) for devices in numbers)]
        for name in results.record.balanced.balancers
    ]
    floors = (cell(balance_results.floor(results, "avg_max_load", phase, devices), percent) for devices in numbers)
    rows.append(["floor without copies", *floors])
    return Table(["avg max load", *map(str, numbers)], rows, caption="By number of devices.")


def device_maps(results: RunMetrics, phase: str, devices: int) -> Iterator[Block]:
    """Mean load of every device in every layer, under contiguous placement and under the best one without copies."""
    best = balance_results.best(results, phase, devices, copies=False)
    layers = balance_results.layers(results, phase)
    for name in [CONTIGUOUS.name, *([best[0]] if best else [])]:
        here = results.at(phase=phase, point=balancer_point(name, devices))
        values = [
            [here.or_none("device_load", layer=layer, rank=str(rank)) or 0.0 for rank in range(devices)] for layer in layers
        ]
        top = max((max(line) for line in values), default=0.0)
        if top:
            yield HeatMap(
                f"Load of {devices} devices under {name}, {phase}",
                [f"layer {layer}" for layer in layers],
                values,
                top,
                f"Even share: {percent(1 / devices)} of a step's choices, mean over test steps; the largest is {percent(top)}.",
                1 / devices,
            )


def layer_table(results: RunMetrics, phase: str, devices: int) -> Table:
    """Avg max load with a row per layer and a column per balancer."""
    names = balance_results.balancers(results, phase, devices)
    rows = [
        [
            f"layer {layer}",
            cell(here.or_none("avg_max_load_floor", point=balancer_point("", devices)), percent),
            *(cell(here.or_none("avg_max_load", point=balancer_point(name, devices)), percent) for name in names),
        ]
        for layer in balance_results.layers(results, phase)
        for here in [results.at(phase=phase, layer=layer)]
    ]
    return Table(["", "floor", *names], rows, caption=f"Avg max load of each layer on {devices} devices.")


def cross_table(results: RunMetrics, phase: str, devices: int) -> Table:
    """Avg max load with one domain's history and another's test; contiguous and the best balancers with and without copies."""
    found = (balance_results.best_elsewhere(results, phase, devices, copies=copies) for copies in (False, True))
    names = [CONTIGUOUS.name, *(name for name in found if name)]
    rows = [
        [
            past,
            future,
            cell(here.or_none("avg_max_load_floor", point=balancer_point("", devices)), percent),
            *(cell(here.or_none("avg_max_load", point=balancer_point(name, devices)), percent) for name in names),
        ]
        for past, future in balance_results.domain_pairs(results, phase)
        for here in [results.at(phase=phase, domain=future, category=past)]
    ]
    what = "all choices of the domain as one step" if phase == ALL else "means over layers and test steps"
    caption = (
        f"Avg max load on {devices} devices if the history of one domain decides the placement and another domain is tested; {what}. "
        "Shown: contiguous, and the balancers with the best mean."
    )
    return Table(["history", "test", "floor", *names], rows, labels=2, caption=caption)


def drift_table(results: RunMetrics, phase: str) -> Table:
    """How much loads differ between steps and domains, mean over layers."""
    rows = [
        [pair, *(cell(results.or_none(metric, phase=phase, category=pair)) for metric in ("load_divergence", "hot_jaccard"))]
        for pair in balance_results.drift_pairs(results, phase)
    ]
    caption = (
        "Drift, mean over layers. divergence = Jensen-Shannon divergence of the loads in bits (0 identical, 1 disjoint); hot Jaccard = "
        "Jaccard index of the hottest quarters of the experts (1 identical, 0 disjoint)."
    )
    return Table(["loads", "divergence", "hot Jaccard"], rows, caption=caption)
