"""Numbers of virtual expert parallelism: what leaves the devices, and how long they wait for each other (modelled).

Shape suffixes: D devices, V nodes.
"""

from collections.abc import Iterator, Mapping

from moeprof.analysis.placement.trial import Placed
from moeprof.analysis.placement.virtual_parallel import WAYS, Choices, DeviceLinks, Flows, flows, times_ns
from moeprof.analysis.routing.load_matrix import Counts
from moeprof.policies.balancing.balancer import Cluster
from moeprof.records.run.replay import BalanceRequest

MOST_PAIRS = 16
"""Pairs of more devices, or nodes, have no rows of their own."""

NODE, OTHER_NODES = "same node", "other nodes"

AddressedValue = tuple[str, float, dict[str, str]]
"""Metric, value, address."""


def virtual_rows(
    balance: BalanceRequest, choices: Mapping[str, Choices], placements: Placed, cluster: Cluster
) -> Iterator[AddressedValue]:
    """Of every layer, per step of the layer; of all layers, the sum of theirs."""
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
    """(metric, category, value per step)."""
    nodes_VV = found.nodes_VV(cluster.num_nodes)
    leaving = int(found.pairs_DD.sum() - found.pairs_DD.trace())
    far = int(nodes_VV.sum() - nodes_VV.trace())
    tokens = {"": leaving, NODE: leaving - far, OTHER_NODES: far} | pairs(found.pairs_DD, "") | pairs(nodes_VV, "node ")
    for category, count in tokens.items():
        yield "virtual_comm_tokens", category, count / steps
        if token_bytes:
            yield "virtual_comm_bytes", category, WAYS * count * token_bytes / steps
    if token_bytes:
        slowest, waiting = times_ns(found, token_bytes, links)
        yield "virtual_comm_time", "", slowest
        yield "virtual_wait_time", "", waiting


def pairs(tokens: Counts, kind: str) -> dict[str, int]:
    """`0>1`: from one device, or node, to another; {} of one alone, or of too many."""
    number = len(tokens)
    if not 1 < number <= MOST_PAIRS:
        return {}
    return {f"{kind}{a}>{b}": int(tokens[a, b]) for a in range(number) for b in range(number) if a != b}
