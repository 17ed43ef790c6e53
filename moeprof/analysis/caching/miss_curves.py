"""Miss curves of a trace: one cache per layer and device, or one per device for all layers under a budget in bytes.

Shape suffixes: N accesses, S sizes of a cache, V devices, L layers, P phases, D domains, B blocks.
"""

from collections.abc import Iterator

import numpy as np

from moeprof.analysis.caching.accesses import AccessStream
from moeprof.analysis.caching.miss_counts import compulsory, hits, misses, misses_in_bytes
from moeprof.analysis.routing.load_matrix import Counts
from moeprof.records.arrays import Flags, Floats
from moeprof.records.run.replay import ReplayRequest
from moeprof.records.units import NS_PER_S


def caches(stream: AccessStream, replay: ReplayRequest) -> Iterator[tuple[int, Flags]]:
    """For every cache its device, and which accesses it serves (N,); caches that serve none are left out."""
    device_N = stream.device_N(replay.devices)
    for device in range(replay.devices):
        for layer in [None] if replay.budgets else range(len(stream.layers)):
            sees_N = device_N == device if layer is None else (device_N == device) & (stream.layer_N == layer)
            if sees_N.any():
                yield device, sees_N


def missed(stream: AccessStream, replay: ReplayRequest, policy: str) -> Counts:
    """Misses of cold caches at every size, (S, V, L, P, D)."""
    sizes = replay.sizes
    missed_SVC = np.zeros((len(sizes), replay.devices, int(np.prod(stream.shape))), np.int64)
    for device, sees_N in caches(stream, replay):
        accesses = stream.accesses(sees_N)
        if replay.budgets:
            counts_SC = misses_in_bytes(accesses, policy, sizes, block_bytes(stream, replay), replay.access)
        else:
            counts_SC = misses(accesses, policy, sizes, replay.access)
        missed_SVC[:, device, : counts_SC.shape[1]] += counts_SC
    return missed_SVC.reshape(len(sizes), replay.devices, *stream.shape)


def first_uses(stream: AccessStream) -> Counts:
    """Compulsory misses, (L, P, D)."""
    counts_C = compulsory(stream.accesses(np.ones(len(stream), bool)))
    return np.pad(counts_C, (0, int(np.prod(stream.shape)) - len(counts_C))).reshape(stream.shape)


def layer_bytes(stream: AccessStream, replay: ReplayRequest) -> Counts:
    """Bytes of one expert in every layer, (L,); 0 if unknown."""
    return np.array([replay.trace.expert_bytes.get(layer, 0) for layer in stream.layers], np.int64)


def block_bytes(stream: AccessStream, replay: ReplayRequest) -> Counts:
    """Bytes of every expert of every layer, (B,)."""
    return np.repeat(layer_bytes(stream, replay), stream.num_experts)


def exposed(stream: AccessStream, replay: ReplayRequest, policy: str, size: int) -> Floats:
    """Copy time per step that compute does not hide, in ns, of the device that waits longest, (P,)."""
    waits_VP = np.zeros((replay.devices, len(stream.phases)))
    sizes_B = block_bytes(stream, replay) if replay.budgets else None
    for device, sees_N in caches(stream, replay):
        found_N = hits(stream.accesses(sees_N), policy, size, replay.access, sizes_B)
        sizes_N = layer_bytes(stream, replay)[stream.layer_N[sees_N]] * ~found_N
        starts = np.flatnonzero(np.diff(stream.batch_N[sees_N], prepend=-1))
        copies = np.add.reduceat(sizes_N, starts) / replay.bandwidth * NS_PER_S
        waits = np.maximum(0.0, copies - replay.overlap_ns)
        waits_VP[device] += np.bincount(stream.phase_N[sees_N][starts], waits, minlength=len(stream.phases))
    return np.asarray(waits_VP.max(axis=0) / stream.steps_P)
