"""Makes placements from a trace's first half, judges them on the second, and leaves a run directory with what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moeprof.analysis.placement.balance_rows import PhaseLoads, balance_rows
from moeprof.analysis.placement.trial import cluster_for
from moeprof.instrument.machine import host
from moeprof.policies.balancing.contiguous import CONTIGUOUS
from moeprof.policies.balancing.registry import BALANCERS, check, find_balancer
from moeprof.records.errors import UsageError
from moeprof.records.run.replay import BalanceRequest, Choice, TraceSource
from moeprof.records.run.run import Run, RunRecord
from moeprof.records.run.writer import RunWriter
from moeprof.studies.progress import Progress, Silent
from moeprof.studies.replay.loads import Loads
from moeprof.studies.replay.saving import placement_of, write

MOST_DEFAULT = 64
"""Devices beyond which nothing is tried that was not asked for."""


@dataclass(frozen=True)
class AskedPlacements:
    """What the user wants to know."""

    balancers: Sequence[str] = ()
    """All of them where empty."""
    devices: Sequence[int] = ()
    """Powers of two that divide the experts, up to MOST_DEFAULT, where empty."""
    nodes: int = 1
    replicas: int = 1
    phase: Choice = "all"
    bandwidth: int = 12 * 10**9
    node_bandwidth: int | None = None
    """As `bandwidth` where nobody says."""
    save: Path | None = None
    """Where the placement goes, of one balancer and one number of devices."""


def replay_placements(
    loads: Loads,
    asked: AskedPlacements,
    out: Path,
    *,
    force: bool = False,
    argv: Sequence[str] = (),
    progress: Progress | None = None,
) -> Run:
    """The finished run in `out`; UsageError where the loads cannot answer what is asked."""
    told, notes = progress or Silent(), [*loads.notes]
    balance = resolved(loads.trace, asked)
    possible = possible_pairs(balance, notes)
    phases = [
        PhaseLoads(name, balance, loads.variant, layers, loads.ranks.get(name, ()), possible)
        for name, layers in loads.layers.items()
    ]
    notes += [note for phase in phases for note in unjudged(phase)]
    saved = placement_of(phases, asked.save, notes, force=force) if asked.save else None
    record = RunRecord(command="replay", argv=list(argv), balance=balance, environment=host(), notes=notes)
    writer = RunWriter(out, record, force=force)
    with writer.guarded():
        told.stage("placements", len(phases) * len(possible))
        for phase in phases:
            writer.add_metrics(balance_rows(phase, told.advance))
        if saved and asked.save:
            write(saved, asked.save)
    return writer.finish()


def resolved(trace: TraceSource, asked: AskedPlacements) -> BalanceRequest:
    """What will be replayed: contiguous placement first, for everything is held against it."""
    names = dict.fromkeys([CONTIGUOUS.name, *(find_balancer(name).name for name in asked.balancers or BALANCERS)])
    if asked.nodes < 2 and not asked.balancers:
        names = dict.fromkeys(name for name in names if not BALANCERS[name].by_node)
    devices = asked.devices or [2**power for power in range(1, MOST_DEFAULT.bit_length()) if trace.num_experts % 2**power == 0]
    if not devices:
        raise UsageError(f"{trace.num_experts} experts: no usual number of devices divides them", "Give --devices N,...")
    if min(devices) < 1:
        raise UsageError(f"--devices {min(devices)}: experts need a device", "Give 1 or more.")
    if wrong := [number for number in devices if number % asked.nodes]:
        raise UsageError(f"--devices {wrong[0]}: they do not divide over {asked.nodes} nodes", "Give a multiple of --nodes.")
    return BalanceRequest(
        trace=trace,
        balancers=list(names),
        devices=sorted(set(devices)),
        nodes=asked.nodes,
        replicas=asked.replicas,
        phase=asked.phase,
        bandwidth=asked.bandwidth,
        node_bandwidth=asked.node_bandwidth or asked.bandwidth,
    )


def possible_pairs(balance: BalanceRequest, notes: list[str]) -> list[tuple[str, int]]:
    """Balancers with the devices that they can use; what is left out is noted, and nothing at all left is a UsageError."""
    found, left_out = [], []
    for devices in balance.devices:
        for name in balance.balancers:
            cluster = cluster_for(name, balance.trace.num_experts, devices, nodes=balance.nodes, replicas=balance.replicas)
            try:
                check(BALANCERS[name], balance.trace.num_experts, cluster)
                found.append((name, devices))
            except UsageError as error:
                left_out.append(error)
    if not any(name != CONTIGUOUS.name for name, _ in found) and left_out:
        raise left_out[-1]
    notes += [f"left out: {error.what}" for error in left_out]
    return found


def unjudged(phase: PhaseLoads) -> list[str]:
    """Layers that have one step only."""
    layers = [matrices[0].layer for matrices in phase.layers if matrices[0].layer not in phase.trial.halves]
    if not layers or not phase.ranks:
        return []
    return [f"{phase.name}: a single step of layer {', '.join(layers)} cannot both place and judge, so it has no placement"]
