"""What expert loads cost a running model, and how much of that other work hides.

A layer's loads can be hidden behind the work that it does from the moment its experts are known: the exchange of tokens between
ranks, and the experts that are resident already. If the loads take longer, the layer waits for the rest.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import NamedTuple

from moeprof.analysis.timing.timing import timings_of
from moeprof.records.metrics.registry import MetricRow, Samples
from moeprof.records.run.raw_tables import LOADS, STALLS
from moeprof.records.run.run import Run
from moeprof.records.traces.expert_loads import LayerLoads


class Cost(NamedTuple):
    """Sums over layers and steps, nanoseconds and bytes."""

    load_ns: float
    stall_ns: float
    hideable_ns: float
    num_bytes: float


ZERO = Cost(0, 0, 0, 0)

RoundCosts = Mapping[str, Cost]
"""The cost of every layer in one round."""


@dataclass(frozen=True)
class Stalls:
    """One variant's observed rounds on one domain, over ranks: mean times, all bytes."""

    domain: str
    steps: int
    """Forward passes of a round."""
    rounds: Sequence[RoundCosts]
    num_ranks: int = 1


def cost(visit: LayerLoads) -> Cost:
    """The cost of one layer in one step."""
    load_ns = sum(use.end_ns - use.start_ns for use in visit.uses)
    other_ns = max(visit.span_ns - visit.stall_ns, 0)
    return Cost(load_ns, visit.stall_ns, min(load_ns, other_ns), sum(use.num_bytes for use in visit.uses))


def added(costs: Iterable[Cost]) -> Cost:
    """The sum of several costs."""
    return Cost(*(sum(parts) for parts in zip(*costs, ZERO, strict=True)))


def by_layer(visits: Iterable[tuple[str, LayerLoads]]) -> dict[str, Cost]:
    """The cost of every layer in a round."""
    found: dict[str, Cost] = {}
    for layer, visit in visits:
        found[layer] = added([found.get(layer, ZERO), cost(visit)])
    return found


def layer_sums(together: Sequence[RoundCosts]) -> RoundCosts:
    """Several rounds added up layer by layer."""
    layers = dict.fromkeys(layer for one in together for layer in one)
    return {layer: added(one.get(layer, ZERO) for one in together) for layer in layers}


def over_ranks(domain: str, steps: int, ranks: Sequence[Sequence[RoundCosts]]) -> Stalls:
    """Joins the ranks round by round: times are means, bytes are sums."""
    rounds = [
        {layer: mean_of_ranks(whole, len(ranks)) for layer, whole in layer_sums(together).items()}
        for together in zip(*ranks, strict=True)
    ]
    return Stalls(domain, steps, rounds, len(ranks))


def mean_of_ranks(whole: Cost, num_ranks: int) -> Cost:
    """Turns sums over ranks into the mean of the times and all of the bytes."""
    load_ns, stall_ns, hideable_ns, num_bytes = whole
    return Cost(load_ns / num_ranks, stall_ns / num_ranks, hideable_ns / num_ranks, num_bytes)


def stalls_of(run: Run, pass_name: str) -> dict[tuple[str, str, str], list[Stalls]]:
    """By phase, variant and point, a domain each: what the observed rounds of a pass lost to expert loads, over ranks."""
    found: dict[tuple[str, str, str, str], dict[int, dict[int, dict[str, Cost]]]] = {}
    for row in run.raw(STALLS).to_pylist():
        if row["pass"] == pass_name:
            ranks = found.setdefault((row["phase"], row["variant"], row["point"], row["domain"]), {})
            cost = Cost(row["load_ns"], row["stall_ns"], row["hideable_ns"], row["bytes"])
            ranks.setdefault(row["rank"], {}).setdefault(row["round"], {})[row["layer"]] = cost
    timings = {
        (phase, timing.variant, point, timing.domain): timing
        for (phase, point), mine in timings_of(run, pass_name).items()
        for timing in mine
    }
    stalls: dict[tuple[str, str, str], list[Stalls]] = {}
    for (phase, variant, point, domain), timing in timings.items():
        ranks = found.get((phase, variant, point, domain), {})
        rounds = [[mine.get(index, {}) for index in range(len(timing.round_ns))] for mine in ranks.values()]
        if rounds:
            stalls.setdefault((phase, variant, point), []).append(over_ranks(domain, timing.steps, rounds))
    return stalls


def load_rows(run: Run) -> Iterator[Samples]:
    """Everything that follows from the pass `loads`."""
    for (phase, variant, _), domains in stalls_of(run, LOADS).items():
        yield from stall_rows(MetricRow("", 0, run.record.workload, phase, variant=variant), domains)


def stall_rows(at: MetricRow, domains: Sequence[Stalls]) -> Iterator[Samples]:
    """Every metric of every domain and of all domains together; the times also of every layer."""
    for one in [*domains, all_domains(domains)]:
        yield from rows_of(replace(at, domain=one.domain), one)


def all_domains(domains: Sequence[Stalls]) -> Stalls:
    """The rounds of all domains added up."""
    rounds = [layer_sums(together) for together in zip(*(one.rounds for one in domains), strict=True)]
    return Stalls("", sum(one.steps for one in domains), rounds, domains[0].num_ranks)


def rows_of(at: MetricRow, stalls: Stalls) -> Iterator[Samples]:
    """The rows of one domain."""
    for layer in dict.fromkeys(layer for one in stalls.rounds for layer in one):
        own = [one.get(layer, ZERO) for one in stalls.rounds]
        yield from ((row, []) for row, _ in time_rows(replace(at, layer=layer), own, stalls.steps))
    whole = [added(one.values()) for one in stalls.rounds]
    yield from time_rows(at, whole, stalls.steps)
    hidden = [(one.load_ns - one.stall_ns) / one.hideable_ns for one in whole if one.hideable_ns]
    paces = [one.num_bytes * 1e9 / (one.load_ns * stalls.num_ranks) for one in whole if one.load_ns]
    for metric, values in (("hidden_fraction", hidden), ("load_bandwidth", paces)):
        if values:
            yield sampled(at, metric, values)


def time_rows(at: MetricRow, costs: Sequence[Cost], steps: int) -> Iterator[Samples]:
    """Costs of a step, one value per round."""
    yield sampled(at, "load_time", [one.load_ns / steps for one in costs])
    yield sampled(at, "stall_time", [one.stall_ns / steps for one in costs])
    yield sampled(at, "hideable_time", [one.hideable_ns / steps for one in costs])
    yield sampled(at, "step_bytes_loaded", [one.num_bytes / steps for one in costs])


def sampled(at: MetricRow, metric: str, values: list[float]) -> Samples:
    """A median beside the values that it is the median of."""
    return replace(at, metric=metric, value=median(values)), values
