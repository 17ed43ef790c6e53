"""Expert parallelism that never ran: a trace's tokens dealt to any number of devices, and what they would send each other.

The tokens of a step are dealt in equal blocks of neighbours, in the order of rank, sequence and position; where there are as many
devices as ranks were recorded they stay on theirs. A rank's choices of an expert go to its copies in turn (see `placing`), first
choices before second ones. A device sends and receives at once, within its node and between nodes over links of their own, and all
wait for the slowest: a model, not a measurement.

Shape suffixes: R rows of one layer (choices), B steps, D devices, S slots of a device, V nodes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moeprof.analysis.placement.device_load import turns
from moeprof.analysis.routing.load_matrix import Counts
from moeprof.policies.balancing.balancer import Cluster
from moeprof.records.traces.routing_trace import RoutingTrace
from moeprof.records.units import NS_PER_S

WAYS = 2
"""A token travels to its expert, and its output back."""


@dataclass(frozen=True, eq=False)
class Choices:
    """One layer's, sorted by step and, within it, by token."""

    step_R: Counts
    """The index of the step, from 0."""
    expert_R: Counts
    token_R: Counts
    """The index of the token within its step, from 0."""
    tokens_B: Counts
    steps_B: Counts
    """The step's own number."""
    rank_R: Counts
    """Who recorded the choice."""
    place_R: Counts
    """Its number among the choices of its rank, step and expert, from 0."""
    num_ranks: int

    def home_R(self, num_devices: int) -> Counts:
        """The device that a choice's token lives on."""
        if num_devices == self.num_ranks:
            return self.rank_R
        return self.token_R * num_devices // self.tokens_B[self.step_R]

    def served_R(self, slots_DS: Counts) -> Counts:
        """The device that serves each choice."""
        slots_P = slots_DS.ravel()
        copies_E = np.bincount(slots_P)
        turn_R = (self.place_R + self.steps_B[self.step_R] + self.rank_R) % copies_E[self.expert_R]
        first_E = np.cumsum(copies_E) - copies_E
        slot_R = np.argsort(slots_P, kind="stable")[first_E[self.expert_R] + turn_R]
        return np.asarray(slot_R // slots_DS.shape[1])


def choices_of(ranks: Sequence[RoutingTrace], layer: str) -> Choices | None:
    """Of a layer in all ranks' traces of one phase; None where it has no rows."""
    parts = []
    for number, trace in enumerate(ranks):
        own = trace.select(layer=layer)
        columns = [own.column(name).astype(np.int64) for name in ("position", "sequence", "step", "expert", "slot")]
        parts.append(np.stack([columns[0], columns[1], np.full(len(own), number), *columns[2:]]))
    *token, expert_R, slot_R = np.concatenate(parts, axis=1)
    if not len(expert_R):
        return None
    order = np.lexsort(token)
    keys = np.stack(token)[:, order]
    new_token = np.any(np.diff(keys, axis=1, prepend=-1) != 0, axis=0)
    steps_B, step_R = np.unique(keys[-1], return_inverse=True)
    tokens_B = np.bincount(step_R[new_token])
    before_B = np.cumsum(tokens_B) - tokens_B
    token_R, expert_R, rank_R = np.cumsum(new_token) - 1 - before_B[step_R], expert_R[order], keys[2]
    by_slot = np.lexsort((slot_R[order], step_R))  # first choices of a step before second ones, tokens in order
    place_R = np.empty_like(rank_R)
    place_R[by_slot] = turns(((step_R * len(ranks) + rank_R) * (expert_R.max() + 1) + expert_R)[by_slot])
    return Choices(step_R, expert_R, token_R, tokens_B, steps_B, rank_R, place_R, len(ranks))


@dataclass(frozen=True, eq=False)
class Flows:
    """Tokens that go from device to device in one layer, one way."""

    pairs_DD: Counts
    """Over all steps, from row to column; the diagonal stays at home."""
    near_BD: Counts
    """Of a step: the larger of what a device sends and receives within its node."""
    far_BD: Counts
    """The same from and to other nodes."""

    def nodes_VV(self, num_nodes: int) -> Counts:
        """`pairs_DD` by node."""
        each = len(self.pairs_DD) // num_nodes
        return np.asarray(self.pairs_DD.reshape(num_nodes, each, num_nodes, each).sum(axis=(1, 3)))


def flows(choices: Choices, slots_DS: Counts, cluster: Cluster) -> Flows:
    """What the placement makes of a layer's choices."""
    num_devices, num_steps = cluster.num_devices, len(choices.tokens_B)
    home_R, served_R = choices.home_R(num_devices), choices.served_R(slots_DS)
    each = num_devices // cluster.num_nodes
    moves_R = home_R != served_R
    leaves_R = home_R // each != served_R // each

    def busiest(keep_R: npt.NDArray[np.bool_]) -> Counts:
        cells = (choices.step_R[keep_R] * num_devices + end_R[keep_R] for end_R in (home_R, served_R))
        sent, received = (np.bincount(cell, minlength=num_steps * num_devices) for cell in cells)
        return np.maximum(sent, received).reshape(num_steps, num_devices)

    pairs = np.bincount(home_R * num_devices + served_R, minlength=num_devices**2)
    return Flows(pairs.reshape(num_devices, num_devices), busiest(moves_R & ~leaves_R), busiest(leaves_R))


@dataclass(frozen=True)
class DeviceLinks:
    """Bytes per second of each device."""

    near: int
    """Within a node."""
    far: int
    """Between nodes."""


def times_ns(found: Flows, token_bytes: int, links: DeviceLinks) -> tuple[float, float]:
    """Of a step, mean over steps, both ways: until the slowest device is done, and what the mean device waits for it."""
    own_BD = np.maximum(found.near_BD / links.near, found.far_BD / links.far) * (WAYS * token_bytes * NS_PER_S)
    slowest_B = own_BD.max(axis=1)
    return float(slowest_B.mean()), float((slowest_B[:, None] - own_BD).mean())
