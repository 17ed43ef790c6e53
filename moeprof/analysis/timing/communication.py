"""What collectives cost: bytes, transfer, waiting and exposed time, and the least that the links allow.

Shape suffixes: C collectives, N ranks, R rounds; in NN the first is the source, the second the destination.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
import numpy.typing as npt

from moeprof.analysis.imbalance import imbalance_rows
from moeprof.analysis.timing.timing import Timing, summed, timings_of
from moeprof.records.arrays import Floats, Ints
from moeprof.records.link import Links
from moeprof.records.metrics.registry import MetricRow, Samples
from moeprof.records.run.raw_tables import TRAFFIC
from moeprof.records.run.run import Run
from moeprof.records.traces.traffic import Collectives

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Costs:
    """The costs of every collective of one phase, variant and point."""

    of: Collectives

    @cached_property
    def transfer_C(self) -> Ints:
        """The time on the rank that was shortest in it: it came last, so it did not wait."""
        transfer_C: Ints = (self.of.end_CN - self.of.start_CN).min(axis=1)
        return transfer_C

    @property
    def waiting_CN(self) -> Ints:
        """The part of a rank's own time beyond the transfer."""
        waiting_CN: Ints = self.of.end_CN - self.of.start_CN - self.transfer_C[:, None]
        return waiting_CN

    @property
    def exposed_CN(self) -> Ints:
        """The time that a rank waited: none if the collective was done before the rank began to wait."""
        exposed_CN: Ints = np.maximum(self.of.end_CN - self.of.wait_CN, 0)
        return exposed_CN

    @cached_property
    def sent_CN(self) -> Ints:
        """Bytes that a rank sends, those to itself included."""
        sent_CN: Ints = self.of.bytes_CNN.sum(axis=2)
        return sent_CN

    @property
    def crossing_CN(self) -> Ints:
        """Bytes that a rank sends to other ranks."""
        crossing_CN: Ints = self.sent_CN - np.einsum("cnn->cn", self.of.bytes_CNN)
        return crossing_CN

    def per_step(self, values: Ints | Floats, here_C: Mask) -> Floats:
        """Sums of a step over the collectives `here`, round by round: (R,) for values (C,), (R, N) for values (C, N)."""
        rounds, index_C = np.unique(self.of.round_C[here_C], return_inverse=True)
        sums = np.zeros((len(rounds), *values.shape[1:]))
        np.add.at(sums, index_C, values[here_C])
        return sums / len(np.unique(self.of.step_C[here_C]))


def bytes_by_pair(collectives: Collectives) -> Floats:
    """Bytes of a step from each rank to each, (N, N)."""
    costs, (num_ops, num_ranks, _) = Costs(collectives), collectives.bytes_CNN.shape
    flat = collectives.bytes_CNN.reshape(num_ops, -1)
    by_pair: Floats = costs.per_step(flat, np.ones(num_ops, bool)).mean(axis=0).reshape(num_ranks, num_ranks)
    return by_pair


def communication_rows(run: Run) -> Iterator[Samples]:
    """Everything that follows from the recorded collectives alone."""
    for collectives in run.traffic.collectives:
        rows = list(traffic_rows(run.record.workload, collectives, forced=run.record.ran.forced))
        waits = [row for row, _ in rows if row.metric == "comm_wait_time" and row.layer and not row.region]
        yield from rows
        yield from ((row, []) for row in imbalance_rows("rank_wait_max_over_mean", waits))


def communication_floor_rows(run: Run) -> Iterator[Samples]:
    """The links between the ranks, and `floor_time` and `time_over_floor` of the recorded collectives."""
    if run.links is None:
        return
    yield from ((row, []) for row in link_rows(run.record.workload, run.links))
    for collectives in run.traffic.collectives:
        yield from traffic_floor_rows(run.record.workload, collectives, run.links, forced=run.record.ran.forced)


def communication_share_rows(run: Run) -> Iterator[Samples]:
    """`comm_share`: each `comm_exposed_time` over regions, layers and ranks beside the steps of the same rounds."""
    for collectives in run.traffic.collectives:
        timings = timings_of(run, TRAFFIC).get((collectives.phase, ""), [])
        rows = traffic_rows(run.record.workload, collectives, forced=run.record.ran.forced)
        yield from share_rows(rows, [*timings, *summed(timings)])


def traffic_rows(workload: str, collectives: Collectives, *, forced: bool = False) -> Iterator[Samples]:
    """`collectives` and `comm_*` of every domain, region and layer; empty is over all of them.

    A row over ranks has the sum of bytes and the mean of times. Of all domains together, every rank's own rows stand beside it for
    each region and for each layer. Beside a time over all layers stand its values, one per round.
    """
    costs = Costs(collectives)
    for at, here_C in addresses(workload, collectives, forced=forced):
        yield replace(at, value=costs.per_step(np.ones(len(here_C)), here_C).mean()), []
        each_rank = len(set(collectives.domains)) == 1 or not at.domain
        for row, values in [*byte_rows(at, costs, here_C), *time_rows(at, costs, here_C)]:
            if not row.rank or (each_rank and not (at.region and at.layer)):
                yield row, [] if at.layer else values


def traffic_floor_rows(workload: str, collectives: Collectives, links: Links, *, forced: bool = False) -> Iterator[Samples]:
    """`floor_time` and `time_over_floor` of every domain, region and layer."""
    costs, floor_C = Costs(collectives), links.floors_ns(collectives.bytes_CNN)
    for at, here_C in addresses(workload, collectives, forced=forced):
        yield from floor_rows(at, costs, here_C, floor_C)


def addresses(workload: str, collectives: Collectives, *, forced: bool) -> Iterator[tuple[MetricRow, Mask]]:
    """An empty row at every domain, region and layer, and the collectives there (C,)."""
    whose = {"phase": collectives.phase, "variant": collectives.variant, "point": collectives.point}
    for domain, region, layer, here_C in places(collectives):
        yield MetricRow("collectives", 0, workload, **whose, domain=domain, region=region, layer=layer, forced=forced), here_C


def places(collectives: Collectives) -> Iterator[tuple[str, str, str, Mask]]:
    """Domain, region, layer and the collectives there; an empty name is all of them."""
    columns = [np.array(names) for names in (collectives.domains, collectives.regions, collectives.layers)]
    for chosen in product(*(["", *dict.fromkeys(names.tolist())] for names in columns)):
        here_C = np.all([(names == name) | (name == "") for names, name in zip(columns, chosen, strict=True)], axis=0)
        if here_C.any():
            yield (*chosen, here_C)


def byte_rows(at: MetricRow, costs: Costs, here_C: Mask) -> Iterator[Samples]:
    """`comm_bytes` of all ranks and of each, with what stays on a rank and without."""
    for category, bytes_CN in (("", costs.sent_CN), ("crossing", costs.crossing_CN)):
        sent_N = costs.per_step(bytes_CN, here_C).mean(axis=0)
        row = replace(at, metric="comm_bytes", category=category)
        yield replace(row, value=sent_N.sum()), []
        for rank, sent in enumerate(sent_N):
            yield replace(row, value=sent, rank=str(rank)), []


def time_rows(at: MetricRow, costs: Costs, here_C: Mask) -> Iterator[Samples]:
    """Transfer, waiting and exposed time, each beside its rounds."""
    yield median_row(at, "comm_time", costs.per_step(costs.transfer_C, here_C))
    for metric, time_CN in (("comm_wait_time", costs.waiting_CN), ("comm_exposed_time", costs.exposed_CN)):
        time_RN = costs.per_step(time_CN, here_C)
        yield median_row(at, metric, time_RN.mean(axis=1))
        for rank, time_R in enumerate(time_RN.T):
            yield median_row(replace(at, rank=str(rank)), metric, time_R)


def floor_rows(at: MetricRow, costs: Costs, here_C: Mask, floor_C: Floats) -> Iterator[Samples]:
    """The least time that the links allow, and the transfer time over it."""
    floor = float(np.median(costs.per_step(floor_C, here_C)))
    yield replace(at, metric="floor_time", value=floor), []
    if floor:
        transfer = float(np.median(costs.per_step(costs.transfer_C, here_C)))
        yield replace(at, metric="time_over_floor", value=transfer / floor), []


def median_row(at: MetricRow, metric: str, value_R: Floats) -> Samples:
    """The median of a time beside its rounds."""
    return replace(at, metric=metric, value=float(np.median(value_R))), value_R.tolist()


def share_rows(rows: Iterable[Samples], timings: Iterable[Timing]) -> Iterator[Samples]:
    """`comm_share`: each `comm_exposed_time` over regions, layers and ranks beside the steps of the same rounds, (R,)."""
    steps = {(timing.variant, timing.domain): timing.latencies_ns for timing in timings}
    for row, exposed_R in rows:
        step_R = steps.get((row.variant, row.domain))
        if step_R and row.metric == "comm_exposed_time" and not (row.region or row.layer or row.rank):
            yield median_row(row, "comm_share", np.array(exposed_R) / np.array(step_R))


def link_rows(workload: str, links: Links) -> Iterator[MetricRow]:
    """`link_latency`, and `link_bandwidth` at its best and by size of message; `category` is the kind of link."""
    for kind, link in links.by_kind.items():
        best = MetricRow("link_bandwidth", max(link.bandwidths), workload, category=kind)
        yield replace(best, metric="link_latency", value=link.latency_ns)
        yield best
        for size, bandwidth in zip(link.sizes_bytes, link.bandwidths, strict=True):
            yield replace(best, value=bandwidth, point=f"message={size}")
