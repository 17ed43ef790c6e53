"""Every balancer by the name that commands and files use; a new one is one file and one line here."""

from moeprof.policies.balancing.anti_correlation import ANTI_CORRELATION, ANTI_CORRELATION_RESCALED
from moeprof.policies.balancing.balancer import Balancer, Cluster, History, Slots
from moeprof.policies.balancing.contiguous import CONTIGUOUS
from moeprof.policies.balancing.eplb import EPLB, EPLB_HIERARCHICAL
from moeprof.policies.balancing.eplb_distinct import EPLB_DISTINCT
from moeprof.policies.balancing.greedy import GREEDY
from moeprof.records.errors import UsageError, suggestion

BALANCERS = {
    balancer.name: balancer
    for balancer in (
        CONTIGUOUS,
        GREEDY,
        ANTI_CORRELATION,
        ANTI_CORRELATION_RESCALED,
        EPLB,
        EPLB_HIERARCHICAL,
        EPLB_DISTINCT,
    )
}


def find_balancer(name: str) -> Balancer:
    """UsageError where there is none of that name."""
    if name not in BALANCERS:
        raise UsageError(
            f"balancer {name!r} is not known", f"{suggestion(name.lower(), BALANCERS)}Known are {', '.join(BALANCERS)}."
        )
    return BALANCERS[name]


def placed(name: str, history: History, cluster: Cluster) -> Slots:
    """(D, S), the experts of one layer on every device; UsageError where they cannot be placed as the cluster is."""
    balancer = find_balancer(name)
    check(balancer, history.num_experts, cluster)
    return balancer.place(history, cluster)


def check(balancer: Balancer, num_experts: int, cluster: Cluster) -> None:
    """UsageError where the balancer cannot place so many experts on the cluster."""
    where = f"{cluster.num_devices} devices with {cluster.num_slots} slots each"
    if min(cluster.num_devices, cluster.num_slots, cluster.num_nodes) < 1 or cluster.total_slots < num_experts:
        raise UsageError(
            f"{balancer.name}: {where} cannot hold {num_experts} experts", "Give more devices, or more slots on each."
        )
    if cluster.num_devices % cluster.num_nodes:
        raise UsageError(f"{cluster.num_devices} devices do not divide over {cluster.num_nodes} nodes", "Give a divisor.")
    if not balancer.replicates and cluster.total_slots != num_experts:
        raise UsageError(
            f"{balancer.name}: {num_experts} experts do not fill {where}, and it makes no copies",
            f"Give a number of devices that divides {num_experts}, or a balancer that replicates: {', '.join(replicating())}.",
        )
    if not balancer.repeats and cluster.num_slots > num_experts:
        raise UsageError(
            f"{balancer.name}: {cluster.num_slots} slots of a device, but only {num_experts} experts to tell apart",
            f"Give at most {num_experts}.",
        )
    if balancer.by_node:
        check_nodes(balancer, num_experts, cluster)


def check_nodes(balancer: Balancer, num_experts: int, cluster: Cluster) -> None:
    """UsageError where groups of experts do not divide over the nodes."""
    groups = cluster.num_groups or num_experts
    if num_experts % groups or groups % cluster.num_nodes:
        grouped = f" as {groups} groups" if cluster.num_groups else ""
        raise UsageError(
            f"{balancer.name}: {num_experts} experts{grouped} do not divide over {cluster.num_nodes} nodes",
            "Give a number of nodes that divides them.",
        )


def replicating() -> list[str]:
    """Names of those that make copies."""
    return [name for name, balancer in BALANCERS.items() if balancer.replicates]
