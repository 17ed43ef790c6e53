"""Makes placements from a trace's first half, tests them on the second, and leaves a run directory with the results."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moeprof.analysis.placement.balance_rows import PhaseLoads, balance_rows, feasible_pairs, phases_of
from moeprof.instrument.machine import host
from moeprof.policies.balancing.contiguous import CONTIGUOUS
from moeprof.policies.balancing.registry import BALANCERS, find_balancer, replicating
from moeprof.records.errors import UsageError
from moeprof.records.run.replay import BalanceRequest, PhaseChoice, TraceSource
from moeprof.records.run.run import Run, RunRecord
from moeprof.records.run.writer import RunWriter
from moeprof.studies.progress import Progress, Silent
from moeprof.studies.replay.loads import ReplayLoads
from moeprof.studies.replay.saving import placement_of

ALONG_TRACE = {"window": "--window", "most_moves": "--moves", "expert_ns": "--expert-time"}
"""The options that need `--every`, by the settings that they give."""

MOST_DEFAULT = 64
"""The largest default number of devices."""


@dataclass(frozen=True)
class PlacementOptions:
    """The options of `moeprof replay --balance`."""

    balancers: Sequence[str] = ()
    """Default: all of them."""
    devices: Sequence[int] = ()
    """Default: the powers of two that divide the experts, up to MOST_DEFAULT."""
    nodes: int = 1
    groups: int | None = None
    """Default: those of the model's router."""
    replicas: int = 1
    replica_numbers: Sequence[int] = ()
    """Numbers of extra slots that are compared, if there are several; the first one is `replicas`."""
    phase: PhaseChoice = "all"
    bandwidth: int = 12 * 10**9
    node_bandwidth: int | None = None
    """Default: as `bandwidth`."""
    every: Sequence[int] = ()
    """Numbers of steps after which experts are placed again, along the trace."""
    window: int | None = None
    """Steps that these placements are made from. Default: the largest of `every`."""
    most_moves: int | None = None
    """Default: that of `BalanceRequest`."""
    expert_ns: int | None = None
    save: Path | None = None
    """The file for the placement of the one balancer and number of devices."""


def replay_placements(
    loads: ReplayLoads,
    options: PlacementOptions,
    out: Path,
    *,
    force: bool = False,
    argv: Sequence[str] = (),
    progress: Progress | None = None,
) -> Run:
    """The finished run in `out`; UsageError if an option does not fit the loads."""
    shown, notes = progress or Silent(), [*loads.notes]
    balance = resolved(loads, options)
    pairs = possible_pairs(balance, notes)
    phases = phases_of(balance, loads.inputs)
    notes += [note for phase in phases for note in untested(phase)]
    check_replicas(phases)
    check_lengths(phases, notes)
    saved = placement_of(phases, pairs, options.save, notes, force=force) if options.save else None
    record = RunRecord(command="replay", argv=list(argv), balance=balance, environment=host(), notes=notes)
    writer = RunWriter(out, record, force=force)
    with writer.guarded():
        shown.stage("placements", len(phases) * len(pairs))
        writer.add_metrics(balance_rows(record, loads.inputs, shown.advance))
        if saved and options.save:
            saved.write(options.save)
        return writer.finish(*loads.reasons)


def resolved(loads: ReplayLoads, options: PlacementOptions) -> BalanceRequest:
    """The request with every default filled in: contiguous placement first, because it is the baseline of all others."""
    trace = loads.trace
    names = dict.fromkeys([CONTIGUOUS.name, *(find_balancer(name).name for name in options.balancers or BALANCERS)])
    if options.nodes < 2 and not options.balancers:
        names = dict.fromkeys(name for name in names if not BALANCERS[name].by_node)
    powers = [2**power for power in range(1, MOST_DEFAULT.bit_length())]
    devices = options.devices or [number for number in powers if trace.num_experts % number == 0]
    if not devices:
        raise UsageError(
            f"{trace.num_experts} experts: not divisible over 2, 4, ... {MOST_DEFAULT} devices", "Give --devices N,..."
        )
    if min(devices) < 1:
        raise UsageError(f"--devices {min(devices)}: must be at least 1", "Give 1 or more.")
    if wrong := [number for number in devices if number % options.nodes]:
        raise UsageError(f"--devices {wrong[0]}: not divisible over {options.nodes} nodes", "Give a multiple of --nodes.")
    return BalanceRequest(
        trace=trace,
        balancers=list(names),
        devices=sorted(set(devices)),
        nodes=options.nodes,
        groups=groups_for(trace, options),
        replicas=options.replicas,
        replica_numbers=list(dict.fromkeys(options.replica_numbers)),
        tokens_per_step=list(loads.tokens_per_step),
        **along_trace(options),
        phase=options.phase,
        bandwidth=options.bandwidth,
        node_bandwidth=options.node_bandwidth or options.bandwidth,
    )


def along_trace(options: PlacementOptions) -> dict[str, Any]:
    """The settings of placements that are made again; UsageError if one of them is given without `every`, or is no time."""
    asked = {"window": options.window, "most_moves": options.most_moves, "expert_ns": options.expert_ns}
    given = {name: value for name, value in asked.items() if value is not None}
    if not options.every:
        if given:
            raise UsageError(f"{ALONG_TRACE[next(iter(given))]}: an option of --every", "Add --every N, or remove it.")
        return {}
    if options.expert_ns is not None and options.expert_ns < 1:
        raise UsageError("--expert-time: must be more than 0", "Give the time of all layers' experts in a step, such as 5ms.")
    return {"window": max(options.every)} | given | {"every": sorted(set(options.every))}


def check_replicas(phases: Sequence[PhaseLoads]) -> None:
    """UsageError if numbers of extra slots are to be compared, and no phase has a placement to compare them by."""
    balance = phases[0].balance
    if balance.replica_numbers and not any(phase.trial.halves for phase in phases):
        given = ",".join(map(str, balance.replica_numbers))
        raise UsageError(
            f"--replicas {given}: no domain of {balance.trace.path} has two steps, one to place by and one to test on",
            "Give one number, the counts of one domain, or a trace.",
        )


def check_lengths(phases: Sequence[PhaseLoads], notes: list[str]) -> None:
    """UsageError if no phase is long enough for a number of `every`; phases that are too short are noted."""
    balance = phases[0].balance
    if not balance.every:
        return
    if all(not phase.ranks and all(matrix.num_steps == 1 for of in phase.layers for matrix in of) for phase in phases):
        given = ",".join(map(str, balance.every))
        raise UsageError(
            f"--every {given}: {balance.trace.path} has totals, which have no order of steps",
            "Remove --every, or give a trace.",
        )
    lengths = {phase.name: len(phase.timeline.steps_B) for phase in phases}
    for steps in balance.every:
        needed = balance.window + steps + 1
        if max(lengths.values()) < needed:
            found = ", ".join(f"{length:,} in {name}" for name, length in lengths.items())
            raise UsageError(
                f"--every {steps}: to place again from {balance.window:,} steps needs {needed:,} steps (--window + --every + 1); "
                f"the trace has {found}",
                "Give a smaller --every or --window, fewer --tokens-per-step, or a longer trace.",
            )
    short = {name: length for name, length in lengths.items() if length < balance.window + min(balance.every) + 1}
    notes += [f"{name}: too few steps to place experts again ({length:,})" for name, length in short.items()]


def groups_for(trace: TraceSource, options: PlacementOptions) -> int:
    """The groups of experts that stay on a node: those given, or else those of the model; UsageError if experts do not divide."""
    groups = trace.groups if options.groups is None else options.groups
    if options.groups and trace.num_experts % groups:
        raise UsageError(f"--groups {groups}: {trace.num_experts} experts do not divide over them", "Give a divisor.")
    return groups


def possible_pairs(balance: BalanceRequest, notes: list[str]) -> list[tuple[str, int]]:
    """Balancers with the devices that they can place on; the others are noted. UsageError if only contiguous placement is left."""
    pairs, infeasible = feasible_pairs(balance)
    if balance.replica_numbers and not any(BALANCERS[name].replicates for name in balance.balancers):
        given = ",".join(map(str, balance.replica_numbers))
        raise UsageError(
            f"--replicas {given}: no balancer of --balancer makes copies", f"Add one of {', '.join(replicating())}."
        )
    if infeasible and all(name == CONTIGUOUS.name for name, _ in pairs):
        raise infeasible[-1]
    if balance.unfilled == balance.devices:
        given = ",".join(map(str, balance.devices))
        raise UsageError(
            f"--devices {given}: {balance.trace.num_experts} experts cannot be divided equally",
            "Give a divisor of that number.",
        )
    notes += [f"left out: {error.what}" for error in infeasible]
    return pairs


def untested(phase: PhaseLoads) -> list[str]:
    """A note on layers that have one step only, and on numbers of tokens per step that leave fewer than two steps."""
    short = [tokens for tokens in phase.balance.tokens_per_step if not phase.trial_of_size(tokens).halves]
    if short:
        return [f"{phase.name}: fewer than two steps of {' or '.join(map(str, short))} tokens, so there is no placement"]
    layers = [matrices[0].layer for matrices in phase.layers if matrices[0].layer not in phase.trial.halves]
    if not layers or not phase.ranks:
        return []
    every = "all" if len(layers) == len(phase.layers) else ", ".join(layers)
    return [f"{phase.name}: only one recorded step (layers: {every}); no step is left to validate on, so there is no placement"]
