"""What loading experts costs a running model, and how much of it other work hides.

A layer's loads could hide behind the work that it does from the moment its experts are known: the way of the tokens between
ranks, and the experts that are there. Where that is less than the loads, the rest must be stood still for.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import NamedTuple

from moeprof.analysis.timing.breakdown import Samples
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.traces.expert_loads import LayerLoads


class Cost(NamedTuple):
    """Sums over visits."""

    load_ns: float
    stall_ns: float
    hideable_ns: float
    num_bytes: float


NOTHING = Cost(0, 0, 0, 0)

RoundCosts = Mapping[str, Cost]
"""By layer."""


@dataclass(frozen=True)
class Stalls:
    """One contender's observed rounds on one domain, over ranks: mean times, all bytes."""

    domain: str
    steps: int
    """Forward passes of a round."""
    rounds: Sequence[RoundCosts]
    num_ranks: int = 1


def cost(visit: LayerLoads) -> Cost:
    """Of one."""
    load_ns = sum(use.end_ns - use.start_ns for use in visit.uses)
    other_ns = max(visit.span_ns - visit.stall_ns, 0)
    return Cost(load_ns, visit.stall_ns, min(load_ns, other_ns), sum(use.num_bytes for use in visit.uses))


def added(costs: Iterable[Cost]) -> Cost:
    """Their sum."""
    return Cost(*(sum(parts) for parts in zip(*costs, NOTHING, strict=True)))


def by_layer(visits: Iterable[tuple[str, LayerLoads]]) -> dict[str, Cost]:
    """A round's."""
    found: dict[str, Cost] = {}
    for layer, visit in visits:
        found[layer] = added([found.get(layer, NOTHING), cost(visit)])
    return found


def layer_sums(together: Sequence[RoundCosts]) -> RoundCosts:
    """Layer by layer."""
    layers = dict.fromkeys(layer for one in together for layer in one)
    return {layer: added(one.get(layer, NOTHING) for one in together) for layer in layers}


def over_ranks(domain: str, steps: int, ranks: Sequence[Sequence[RoundCosts]]) -> Stalls:
    """Round by round: times are means over ranks, bytes are sums."""
    rounds = [
        {layer: mean_of_ranks(whole, len(ranks)) for layer, whole in layer_sums(together).items()}
        for together in zip(*ranks, strict=True)
    ]
    return Stalls(domain, steps, rounds, len(ranks))


def mean_of_ranks(whole: Cost, num_ranks: int) -> Cost:
    """Of sums over ranks: the mean of the times, all of the bytes."""
    load_ns, stall_ns, hideable_ns, num_bytes = whole
    return Cost(load_ns / num_ranks, stall_ns / num_ranks, hideable_ns / num_ranks, num_bytes)


def stall_rows(at: MetricRow, domains: Sequence[Stalls]) -> Iterator[Samples]:
    """Every metric of every domain, and of all together; the times also of every layer."""
    yield from (row for one in domains for row in rows_of(replace(at, domain=one.domain), one))
    if len(domains) > 1:
        rounds = [layer_sums(together) for together in zip(*(one.rounds for one in domains), strict=True)]
        yield from rows_of(at, Stalls("", sum(one.steps for one in domains), rounds, domains[0].num_ranks))


def rows_of(at: MetricRow, stalls: Stalls) -> Iterator[Samples]:
    """Of one domain."""
    for layer in dict.fromkeys(layer for one in stalls.rounds for layer in one):
        own = [one.get(layer, NOTHING) for one in stalls.rounds]
        yield from ((row, []) for row, _ in time_rows(replace(at, layer=layer), own, stalls.steps))
    whole = [added(one.values()) for one in stalls.rounds]
    yield from time_rows(at, whole, stalls.steps)
    hidden = [(one.load_ns - one.stall_ns) / one.hideable_ns for one in whole if one.hideable_ns]
    paces = [one.num_bytes * 1e9 / (one.load_ns * stalls.num_ranks) for one in whole if one.load_ns]
    for metric, values in (("hidden_fraction", hidden), ("load_bandwidth", paces)):
        if values:
            yield sampled(at, metric, values)


def time_rows(at: MetricRow, costs: Sequence[Cost], steps: int) -> Iterator[Samples]:
    """Sums of a step, one value per round."""
    yield sampled(at, "load_time", [one.load_ns / steps for one in costs])
    yield sampled(at, "stall_time", [one.stall_ns / steps for one in costs])
    yield sampled(at, "hideable_time", [one.hideable_ns / steps for one in costs])
    yield sampled(at, "step_bytes_loaded", [one.num_bytes / steps for one in costs])


def sampled(at: MetricRow, metric: str, values: list[float]) -> Samples:
    """The median beside what it is the median of."""
    return replace(at, metric=metric, value=median(values)), values
