"""Virtual expert parallelism: the tokens of a trace spread over any number of devices, and what these would send each other.

The tokens of a step are split into equal blocks of neighbours, in the order of rank, sequence and position; if there are as many
devices as recorded ranks, tokens stay on their rank. A rank's choices of an expert go to its copies in rotation (see
`device_load`), first choices before second ones. A token is sent as one copy per choice, as the ranks of a run send it; what would
be sent if its choices on one device, or on one node, shared a copy is counted beside it. A device sends and receives at the same
time, over one link within its node and another between nodes, and all devices wait for the slowest. The times are modelled, not
measured, for one copy per choice.

Shape suffixes: R rows of one layer (choices), B steps, D devices, S slots of a device, V nodes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moeprof.analysis.placement.device_load import copy_numbers
from moeprof.analysis.placement.trial import Placed
from moeprof.analysis.routing.load_matrix import Counts
from moeprof.policies.balancing.balancer import Cluster
from moeprof.records.run.replay import BalanceRequest
from moeprof.records.traces.routing_trace import RoutingTrace
from moeprof.records.units import NS_PER_S

WAYS = 2
"""A token is sent to its expert, and the output is sent back."""

MOST_PAIRS = 16
"""With more devices, or nodes, there are no rows per pair."""

NODE, OTHER_NODES = "same node", "other nodes"

AddressedValue = tuple[str, float, dict[str, str]]
"""Metric, value, and the keys of its address."""


@dataclass(frozen=True, eq=False)
class Choices:
    """The choices of one layer, sorted by step and, within it, by token."""

    step_R: Counts
    """The index of the step, from 0."""
    expert_R: Counts
    token_R: Counts
    """The index of the token within its step, from 0."""
    tokens_B: Counts
    steps_B: Counts
    """The number of the step in the trace."""
    rank_R: Counts
    """The rank that recorded the choice."""
    place_R: Counts
    """Its number among the choices of its rank, step and expert, from 0."""
    num_ranks: int

    @property
    def number_R(self) -> Counts:
        """A number of the token of each choice that no other token of any step has."""
        return np.asarray(self.step_R * self.tokens_B.max() + self.token_R)

    def home_R(self, num_devices: int) -> Counts:
        """The device that holds the token of each choice."""
        if num_devices == self.num_ranks:
            return self.rank_R
        return self.token_R * num_devices // self.tokens_B[self.step_R]

    def served_R(self, slots_DS: Counts) -> Counts:
        """The device that serves each choice, (R,), where row d of `slots_DS` lists the experts of device d.

        Copies of an expert are numbered by device. Choice i of a rank in step s goes to copy (i + s + rank) mod copies:

            slots_DS [[0, 1], [0, 2]]: expert 0 has copies on devices 0 and 1
            step 0, rank 0: the choices of expert 0 go to devices 0, 1, 0, 1, ...
            step 1, rank 0: the choices of expert 0 go to devices 1, 0, 1, 0, ...
        """
        slots_P = slots_DS.ravel()
        copies_E = np.bincount(slots_P)
        copy_R = (self.place_R + self.steps_B[self.step_R] + self.rank_R) % copies_E[self.expert_R]
        first_E = np.cumsum(copies_E) - copies_E
        physical_R = np.argsort(slots_P, kind="stable")[first_E[self.expert_R] + copy_R]
        return np.asarray(physical_R // slots_DS.shape[1])


def choices_of(ranks: Sequence[RoutingTrace], layer: str) -> Choices | None:
    """The choices of a layer in all ranks' traces of one phase; None if it has no rows."""
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
    place_R[by_slot] = copy_numbers(((step_R * len(ranks) + rank_R) * (expert_R.max() + 1) + expert_R)[by_slot])
    return Choices(step_R, expert_R, token_R, tokens_B, steps_B, rank_R, place_R, len(ranks))


@dataclass(frozen=True, eq=False)
class Flows:
    """Copies of tokens sent from device to device in one layer, one per choice, one way."""

    pairs_DD: Counts
    """Over all steps, from row to column; the diagonal is not sent."""
    unique_DD: Counts
    """The same if a token is sent to each device once."""
    node_unique_VV: Counts
    """The same from node to node, if a token is sent to each node once."""
    near_BD: Counts
    """In each step: the larger of what a device sends and receives within its node."""
    far_BD: Counts
    """The same between nodes."""


def between_nodes(pairs_DD: Counts, num_nodes: int) -> Counts:
    """What is sent from node to node, (V, V)."""
    each = len(pairs_DD) // num_nodes
    return np.asarray(pairs_DD.reshape(num_nodes, each, num_nodes, each).sum(axis=(1, 3)))


def flows(choices: Choices, slots_DS: Counts, cluster: Cluster) -> Flows:
    """The copies of tokens that devices send each other under a placement, (D, S)."""
    num_devices, num_steps = cluster.num_devices, len(choices.tokens_B)
    home_R, served_R = choices.home_R(num_devices), choices.served_R(slots_DS)
    each = num_devices // cluster.num_nodes
    moves_R = home_R != served_R
    leaves_R = home_R // each != served_R // each

    def busiest(keep_R: npt.NDArray[np.bool_]) -> Counts:
        cells = (choices.step_R[keep_R] * num_devices + end_R[keep_R] for end_R in (home_R, served_R))
        sent, received = (np.bincount(cell, minlength=num_steps * num_devices) for cell in cells)
        return np.maximum(sent, received).reshape(num_steps, num_devices)

    def once(place_R: Counts, number: int) -> Counts:
        """The first choice of every token at each of so many places."""
        return np.asarray(np.unique(choices.number_R * number + place_R, return_index=True)[1])

    def counted(kept_R: slice | Counts, per_place: int = 1) -> Counts:
        number = num_devices // per_place
        cells = home_R[kept_R] // per_place * number + served_R[kept_R] // per_place
        return np.bincount(cells, minlength=number**2).reshape(number, number)

    return Flows(
        counted(slice(None)),
        counted(once(served_R, num_devices)),
        counted(once(served_R // each, cluster.num_nodes), each),
        busiest(moves_R & ~leaves_R),
        busiest(leaves_R),
    )


@dataclass(frozen=True)
class DeviceLinks:
    """The bandwidth of each device, in bytes per second."""

    near: int
    """Within a node."""
    far: int
    """Between nodes."""


def times_ns(found: Flows, token_bytes: int, links: DeviceLinks) -> tuple[float, float]:
    """Mean over steps, both ways: the time until the slowest device is done, and the time that the mean device waits for it."""
    own_BD = np.maximum(found.near_BD / links.near, found.far_BD / links.far) * (WAYS * token_bytes * NS_PER_S)
    slowest_B = own_BD.max(axis=1)
    return float(slowest_B.mean()), float((slowest_B[:, None] - own_BD).mean())


def virtual_rows(
    balance: BalanceRequest, choices: Mapping[str, Choices], placements: Placed, cluster: Cluster
) -> Iterator[AddressedValue]:
    """Traffic and times per step, of every layer and summed over layers."""
    links, token_bytes = DeviceLinks(balance.bandwidth, balance.node_bandwidth), balance.trace.token_bytes
    sums: dict[tuple[str, str], float] = {}
    for layer, slots_DS in placements.items():
        found = flows(choices[layer], slots_DS, cluster)
        for metric, category, value in layer_values(found, len(choices[layer].tokens_B), cluster, token_bytes, links):
            sums[metric, category] = sums.get((metric, category), 0.0) + value
            if not category:
                yield metric, value, {"layer": layer}
    for (metric, category), value in sums.items():
        yield metric, value, {"category": category}


def layer_values(
    found: Flows, steps: int, cluster: Cluster, token_bytes: int | None, links: DeviceLinks
) -> Iterator[tuple[str, str, float]]:
    """Metric, category and value per step of one layer."""
    counts = {"": sent(found.pairs_DD, cluster.num_nodes), "unique_": sent(found.unique_DD, cluster.num_nodes)}
    if cluster.num_nodes > 1:
        counts["node_unique_"] = {"": leaving(found.node_unique_VV)} | pairs(found.node_unique_VV, "node ")
    for kind, by_category in counts.items():
        for category, count in by_category.items():
            yield f"virtual_comm_{kind}tokens", category, count / steps
            if token_bytes:
                yield f"virtual_comm_{kind}bytes", category, WAYS * count * token_bytes / steps
    if token_bytes:
        slowest, waiting = times_ns(found, token_bytes, links)
        yield "virtual_comm_time", "", slowest
        yield "virtual_wait_time", "", waiting


def sent(pairs_DD: Counts, num_nodes: int) -> dict[str, int]:
    """Tokens that leave their device: all, by node, and by pair."""
    nodes_VV = between_nodes(pairs_DD, num_nodes)
    moved, far = leaving(pairs_DD), leaving(nodes_VV)
    return {"": moved, NODE: moved - far, OTHER_NODES: far} | pairs(pairs_DD, "") | pairs(nodes_VV, "node ")


def leaving(tokens: Counts) -> int:
    """Tokens that are not for the place where they are."""
    return int(tokens.sum() - tokens.trace())


def pairs(tokens: Counts, kind: str) -> dict[str, int]:
    """Tokens by pair, such as `0>1` for those sent from device 0 to device 1; {} for a single device, or for more than MOST_PAIRS."""
    number = len(tokens)
    if not 1 < number <= MOST_PAIRS:
        return {}
    return {f"{kind}{a}>{b}": int(tokens[a, b]) for a in range(number) for b in range(number) if a != b}
