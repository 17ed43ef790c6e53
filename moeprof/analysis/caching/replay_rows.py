"""The rows of a replay of caches: from a trace's accesses to misses by phase, layer and domain, modelled times, and memory.

Every size has a row over all layers. Layers and domains have rows only at a few sizes, the landmarks, because 128 sizes of 30
layers are too many to read. Shape suffixes: S sizes, V devices, L layers, P phases, D domains.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moeprof.analysis.caching.accesses import AccessStream
from moeprof.analysis.caching.knee import knee
from moeprof.analysis.caching.memory_saved import copy_ns, saved_by_budget, saved_by_slots, static_bytes
from moeprof.analysis.caching.miss_curves import exposed, first_uses, layer_bytes, missed
from moeprof.analysis.routing.load_matrix import Counts
from moeprof.policies.eviction.registry import needs_future
from moeprof.records.metrics.point import format_point
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.run.replay import ALL, ReplayRequest
from moeprof.records.run.run import RunRecord

MANY = 16
"""With more sizes than this, layers and domains have rows at the landmarks only."""


@dataclass(frozen=True, eq=False)
class CacheInputs:
    """What the rows of a replay of caches are derived from, beside `run.json`."""

    variant: str
    stream: AccessStream


@dataclass(frozen=True, eq=False)
class CacheReplay:
    """The misses of every policy, with the accesses and the request that they come from."""

    stream: AccessStream
    replay: ReplayRequest
    variant: str
    missed: Mapping[str, Counts]
    """By policy, (S, V, L, P, D)."""

    @property
    def phases(self) -> list[str]:
        """The phases that have rows: the replayed ones, and `all` if all are replayed."""
        return [*self.stream.phases, *([ALL] if self.replay.phase == ALL else [])]

    def of_phase(self, counts: Counts, phase: str) -> Counts:
        """The counts of one phase, or summed over phases: (..., L, P, D) becomes (..., L, D)."""
        whole: Counts = counts.sum(axis=-2) if phase == ALL else counts[..., self.stream.phases.index(phase), :]
        return whole

    def row(self, metric: str, value: float, phase: str = "", point: str = "", layer: str = "", domain: str = "") -> MetricRow:
        """A row of this run's workload and variant."""
        trace = self.replay.trace
        return MetricRow(
            metric,
            float(value),
            workload=trace.workload,
            phase=phase,
            domain=domain,
            variant=self.variant,
            point=point,
            layer=layer,
            forced=trace.forced,
        )

    def point(self, policy: str, size: int) -> str:
        """The point of a policy and size, such as `policy=lru;slots=16`."""
        return format_point({"policy": policy, self.replay.swept: size})


def replay_rows(record: RunRecord, inputs: CacheInputs, advance: Callable[[], None] = lambda: None) -> Iterator[MetricRow]:
    """Every row of a replay of caches; `advance` is called after each policy.

    Only `record.replay` and `inputs` count, so a recorded replay can be derived again from its trace.
    """
    counts = {}
    for policy in record.replayed.policies:
        counts[policy] = missed(inputs.stream, record.replayed, policy)
        advance()
    yield from rows_of(CacheReplay(inputs.stream, record.replayed, inputs.variant, counts))


def rows_of(outcome: CacheReplay) -> Iterator[MetricRow]:
    """Accesses, curves with their parts, exposed times, knees, and memory."""
    yield from access_rows(outcome)
    knees = list(knee_rows(outcome))
    marks = landmarks(outcome.replay.sizes, [int(row.value) for row in knees if not row.point])
    for policy in outcome.missed:
        for phase in outcome.phases:
            yield from curve_rows(outcome, policy, phase)
            yield from part_rows(outcome, policy, phase, marks)
        yield from exposed_rows(outcome, policy, marks)
    yield from knees
    yield from memory_rows(outcome, marks)


def landmarks(sizes: Sequence[int], knees: Sequence[int]) -> list[int]:
    """A few sizes in octaves and half octaves, both ends, and the knees; all sizes if there are at most MANY."""
    if len(sizes) <= MANY:
        return list(sizes)
    steps = {factor << power for factor in (1, 3) for power in range(max(sizes).bit_length())}
    return [size for size in sizes if size in steps or size in knees or size in (sizes[0], sizes[-1])]


def parts(outcome: CacheReplay) -> Iterator[tuple[str, str, tuple[slice, slice]]]:
    """Layers, domains if there are several, and all combinations: (layer, domain, their slice of an (L, D) array)."""
    stream, every = outcome.stream, slice(None)
    domains = [(name, slice(index, index + 1)) for index, name in enumerate(stream.domains)]
    wholes = [("", every)] if len(domains) == 1 else [("", every), *domains]
    layers = [("", every), *((name, slice(index, index + 1)) for index, name in enumerate(stream.layers))]
    for layer, rows in layers:
        for domain, columns in wholes:
            yield layer, domain, (rows, columns)


def access_rows(outcome: CacheReplay) -> Iterator[MetricRow]:
    """Accesses, and the compulsory misses among them, which no cache can avoid."""
    counted, first = outcome.stream.counted(), first_uses(outcome.stream)
    for phase in outcome.phases:
        counted_LD, first_LD = outcome.of_phase(counted, phase), outcome.of_phase(first, phase)
        for layer, domain, where in parts(outcome):
            if counted_LD[where].any():
                yield outcome.row("expert_accesses", counted_LD[where].sum(), phase, "", layer, domain)
                yield outcome.row("compulsory_misses", first_LD[where].sum(), phase, "", layer, domain)


def curve_rows(outcome: CacheReplay, policy: str, phase: str) -> Iterator[MetricRow]:
    """Misses, bytes and modelled times over all layers, at every size."""
    counted_LD = outcome.of_phase(outcome.stream.counted(), phase)
    sizes_L = layer_bytes(outcome.stream, outcome.replay)
    used_LD = counted_LD > 0
    missed_SVLD = outcome.of_phase(outcome.missed[policy], phase)
    for size, missed_VLD in zip(outcome.replay.sizes, missed_SVLD, strict=True):
        point, missed_LD = outcome.point(policy, size), missed_VLD.sum(axis=0)
        yield outcome.row("misses", missed_LD.sum(), phase, point)
        yield outcome.row("miss_rate", missed_LD.sum() / counted_LD.sum(), phase, point)
        yield outcome.row("worst_miss_rate", (missed_LD[used_LD] / counted_LD[used_LD]).max(), phase, point)
        if sizes_L.all():
            loaded_V = missed_VLD.sum(axis=2) @ sizes_L
            yield outcome.row("bytes_loaded", loaded_V.sum(), phase, point)
            if phase != ALL:  # phases have different steps, so there is no time per step over both
                steps = outcome.stream.steps_P[outcome.stream.phases.index(phase)]
                yield outcome.row("transfer_time", copy_ns(loaded_V.max(), outcome.replay.bandwidth) / steps, phase, point)


def part_rows(outcome: CacheReplay, policy: str, phase: str, marks: Sequence[int]) -> Iterator[MetricRow]:
    """Misses and miss rates of layers and domains at the landmarks."""
    counted_LD = outcome.of_phase(outcome.stream.counted(), phase)
    missed_SVLD = outcome.of_phase(outcome.missed[policy], phase)
    for size in marks:
        missed_LD = missed_SVLD[outcome.replay.sizes.index(size)].sum(axis=0)
        for layer, domain, where in parts(outcome):
            if (layer or domain) and counted_LD[where].any():
                count = missed_LD[where].sum()
                yield outcome.row("misses", count, phase, outcome.point(policy, size), layer, domain)
                rate = count / counted_LD[where].sum()
                yield outcome.row("miss_rate", rate, phase, outcome.point(policy, size), layer, domain)


def exposed_rows(outcome: CacheReplay, policy: str, marks: Sequence[int]) -> Iterator[MetricRow]:
    """Copy time that compute does not hide, at the landmarks; none without `--overlap`, because then it equals `transfer_time`."""
    if not outcome.replay.overlap_ns or not outcome.replay.trace.expert_bytes:
        return
    for size in marks:
        for phase, time in zip(
            outcome.stream.phases, exposed(outcome.stream, outcome.replay, policy, size).tolist(), strict=True
        ):
            yield outcome.row("exposed_time", time, phase, outcome.point(policy, size))


def knee_rows(outcome: CacheReplay) -> Iterator[MetricRow]:
    """The knee of each policy's curve in each phase; without a point, of the fewest misses over all online policies."""
    metric = "knee_budget" if outcome.replay.budgets else "knee_slots"
    online = [policy for policy in outcome.missed if not needs_future(policy)]
    for phase in outcome.phases:
        curves = {policy: outcome.of_phase(counts, phase).sum(axis=(1, 2, 3)) for policy, counts in outcome.missed.items()}
        for policy, counts_S in curves.items():
            found = knee(list(zip(outcome.replay.sizes, counts_S.tolist(), strict=True)))
            if found is not None:
                yield outcome.row(metric, found, phase, format_point({"policy": policy}))
        if online:
            best_S = np.min([curves[policy] for policy in online], axis=0)
            found = knee(list(zip(outcome.replay.sizes, best_S.tolist(), strict=True)))
            if found is not None:
                yield outcome.row(metric, found, phase)


def memory_rows(outcome: CacheReplay, marks: Sequence[int]) -> Iterator[MetricRow]:
    """Memory that a device saves at every size, over the replayed layers, and the time to copy an expert; policies do not matter."""
    replay, trace = outcome.replay, outcome.replay.trace
    if not trace.expert_bytes:
        return
    for layer, size in {**trace.expert_bytes, "": max(trace.expert_bytes.values())}.items():
        yield outcome.row("copy_time", copy_ns(size, replay.bandwidth), layer=layer)
    whole = static_bytes(trace, replay.devices)
    for size in replay.sizes:
        point = format_point({replay.swept: size})
        by_layer = {} if replay.budgets else saved_by_slots(trace, size, replay.devices)
        saved = saved_by_budget(trace, size, replay.devices) if replay.budgets else sum(by_layer.values())
        yield outcome.row("memory_saved", saved, point=point)
        if whole is not None:
            yield outcome.row("memory_saved_share", saved / whole, point=point)
            yield outcome.row("memory_reduction", whole / (whole - saved), point=point)
        for layer, size_bytes in by_layer.items() if size in marks else ():
            yield outcome.row("memory_saved", size_bytes, point=point, layer=layer)
