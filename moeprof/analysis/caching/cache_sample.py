"""Which experts the recommended cache holds, batch after batch: the first accesses of a replay, as a buffered run logs them.

Shape suffix: N accesses.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from moeprof.analysis.caching.accesses import AccessStream
from moeprof.analysis.caching.advice import Advice, advise
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.policies.cache import Cache
from moeprof.policies.eviction.registry import make_eviction
from moeprof.records.arrays import Flags
from moeprof.records.metrics.registry import METRICS, MetricRow
from moeprof.records.metrics.row import RecordedRow
from moeprof.records.run.replay import ReplayRequest
from moeprof.records.run.run import RunRecord

MOST_BATCHES = 96
"""Batches of a layer."""
MOST_USES = 10_000
"""Accesses of a phase, so that a sample takes a second at most; there are fewer batches where a batch has many experts."""


def cache_sample(record: RunRecord, rows: Sequence[MetricRow], variant: str, stream: AccessStream) -> Iterator[dict[str, Any]]:
    """Rows of the raw table CACHE_SAMPLE for every phase that has a recommendation; none if layers share one budget.

    A phase starts with empty caches. `rows` are those of the replay.
    """
    recorded = [RecordedRow(row.address, METRICS[row.metric].unit, row.kind, row.value) for row in rows]
    results = RunMetrics.from_rows(record, recorded).at(variant=variant)
    for index, phase in enumerate(stream.phases if not record.replayed.budgets else ()):
        if advice := advise(results, phase):
            yield from phase_rows(record.replayed, advice, stream, stream.phase_N == index)


def phase_rows(replay: ReplayRequest, advice: Advice, stream: AccessStream, keep_N: Flags) -> Iterator[dict[str, Any]]:
    """The first batches of every layer and device."""
    for device in range(replay.devices):
        own_N = keep_N & (stream.device_N(replay.devices) == device)
        for number, layer in enumerate(stream.layers):
            places = np.flatnonzero(own_N & (stream.layer_N == number))
            batches = np.split(places, np.flatnonzero(np.diff(stream.batch_N[places])) + 1) if len(places) else []
            most = MOST_USES // (replay.devices * len(stream.layers))
            cache = Cache(advice.size, make_eviction(advice.policy))
            about = {"phase": advice.phase, "policy": advice.policy, "layer": layer, "slots": advice.size, "rank": device}
            yield from layer_rows(cache, replay, [stream.expert_N[batch].tolist() for batch in first(batches, most)], about)


def first(batches: Sequence[Any], most: int) -> Sequence[Any]:
    """The first batches with together about as many accesses as asked, at least one."""
    ends = np.cumsum([len(batch) for batch in batches])
    return batches[: min(MOST_BATCHES, max(1, int(np.searchsorted(ends, most, "right"))))]


def layer_rows(
    cache: Cache, replay: ReplayRequest, batches: Sequence[Sequence[int]], about: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """A row for every access."""
    for step, experts in enumerate(batches):
        for access in cache.batch(experts, replay.access):
            yield {**about, "step": step, "expert": access.expert, "victim": access.victim, "hit": access.hit}
