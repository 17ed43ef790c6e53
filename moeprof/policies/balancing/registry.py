"""All balancers by the names that commands and files use; a new one is one file and one line here."""

from moeprof.policies.balancing.anti_correlation import ANTI_CORRELATION, ANTI_CORRELATION_RESCALED
from moeprof.policies.balancing.balancer import Balancer, Cluster, History, Slots
from moeprof.policies.balancing.contiguous import CONTIGUOUS
from moeprof.policies.balancing.eplb import EPLB, EPLB_HIERARCHICAL
from moeprof.policies.balancing.eplb_distinct import EPLB_DISTINCT
from moeprof.policies.balancing.greedy import GREEDY
from moeprof.policies.balancing.mean_square import MEAN_SQUARE, MEAN_SQUARE_COPIES
from moeprof.policies.balancing.round_robin import ROUND_ROBIN
from moeprof.records.errors import UsageError, suggestion

BALANCERS = {
    balancer.name: balancer
    for balancer in (
        CONTIGUOUS,
        ROUND_ROBIN,
        GREEDY,
        ANTI_CORRELATION,
        ANTI_CORRELATION_RESCALED,
        MEAN_SQUARE,
        EPLB,
        EPLB_HIERARCHICAL,
        EPLB_DISTINCT,
        MEAN_SQUARE_COPIES,
    )
}


def find_balancer(name: str) -> Balancer:
    """The balancer with this name; UsageError if it is unknown."""
    if name not in BALANCERS:
        raise UsageError(f"unknown balancer {name!r}", f"{suggestion(name.lower(), BALANCERS)}Known: {', '.join(BALANCERS)}.")
    return BALANCERS[name]


def placed(name: str, history: History, cluster: Cluster) -> Slots:
    """(D, S), the experts of one layer on every device; UsageError if the balancer cannot place them on this cluster."""
    balancer = find_balancer(name)
    check(balancer, history.num_experts, cluster)
    return balancer.place(history, cluster)


def check(balancer: Balancer, num_experts: int, cluster: Cluster) -> None:
    """UsageError if the balancer cannot place this number of experts on the cluster."""
    where = f"{cluster.num_devices} devices with {cluster.num_slots} slots each"
    if min(cluster.num_devices, cluster.num_slots, cluster.num_nodes) < 1 or cluster.total_slots < num_experts:
        raise UsageError(
            f"{balancer.name}: {where} cannot hold {num_experts} experts", "Use more devices or more slots per device."
        )
    if cluster.num_devices % cluster.num_nodes:
        raise UsageError(f"{cluster.num_devices} devices do not divide over {cluster.num_nodes} nodes", "Use a divisor.")
    if not balancer.replicates and cluster.total_slots != num_experts:
        raise UsageError(
            f"{balancer.name}: {num_experts} experts do not fill {where}, and it makes no replicas",
            f"Use a number of devices that divides {num_experts}, or a balancer that replicates: {', '.join(replicating())}.",
        )
    if not balancer.repeats and cluster.num_slots > num_experts:
        raise UsageError(
            f"{balancer.name}: {cluster.num_slots} slots per device, but only {num_experts} different experts",
            f"Use at most {num_experts}.",
        )
    if balancer.by_node:
        check_nodes(balancer, num_experts, cluster)


def check_nodes(balancer: Balancer, num_experts: int, cluster: Cluster) -> None:
    """UsageError if groups of experts do not divide over the nodes."""
    groups = cluster.num_groups or num_experts
    if num_experts % groups or groups % cluster.num_nodes:
        grouped = f" as {groups} groups" if cluster.num_groups else ""
        raise UsageError(
            f"{balancer.name}: {num_experts} experts{grouped} do not divide over {cluster.num_nodes} nodes",
            "Use a number of nodes that divides them.",
        )


def replicating() -> list[str]:
    """Names of the balancers that make replicas."""
    return [name for name, balancer in BALANCERS.items() if balancer.replicates]
