"""Placements in a run: made from each domain's earlier batches, deployed before the later ones, which alone are judged."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from moeprof.analysis.placement.deployed_rows import placed_rows, trial_over_ranks
from moeprof.analysis.placement.trial import Trial, cluster_for
from moeprof.moe.deployment import deploy_placement
from moeprof.moe.kernels.auto import auto
from moeprof.moe.layer import MoELayer, moe_layers
from moeprof.parallel.collectives import all_gather_json, barrier, largest, total
from moeprof.records.metrics.registry import Address, MetricRow
from moeprof.records.placement import Placement
from moeprof.records.recipe.variant import Variant
from moeprof.records.traces.routing_trace import RoutingTrace
from moeprof.studies.session import Session, first_steps
from moeprof.workloads.episodes import Episode

Layers = Mapping[str, Sequence[Sequence[int]]]
"""By layer, the experts of every rank."""


def place_experts(
    session: Session, phase: str, variant: Variant, episodes: Sequence[Episode], traces: Sequence[RoutingTrace]
) -> None:
    """Moves the experts of a phase's layers to the ranks where the variant wants them; writes the placement and its cost.

    `traces` are those of the same variant without a placement, on the first rank; nobody else needs them.
    """
    trial = trial_over_ranks(traces, first_steps(session.judged(episodes))) if session.group.first else None
    mine = layers_of(session, phase, variant, trial) if trial is not None else {}
    placement = with_layers(session, variant, all_gather_json(session.group, mine)[0])
    session.placements[variant] = placement
    move_bytes, move_ns = deployed(session, phase, variant, placement)
    if trial is None:
        return
    folder = session.writer.path / "placements"
    folder.mkdir(exist_ok=True)
    placement.write(folder / f"{phase}-{variant.label}.json")
    header = traces[0].header.model_copy(update={"variant": variant.label})
    session.writer.add_metrics(placed_rows(header, trial, placement))
    address = Address(workload=session.recipe.workload, phase=phase, variant=variant.label)
    session.writer.add_metrics(
        [
            MetricRow("moved_bytes", move_bytes, **address, forced=session.recipe.forced),
            MetricRow("move_time", move_ns, **address),
        ]
    )


def layers_of(session: Session, phase: str, variant: Variant, trial: Trial) -> Layers:
    """What the file says, or what the balancer makes of the history; a layer without one stays as it is, which is noted."""
    names, recipe = session.recipe.moe_layers(phase), session.recipe
    if variant.placement_file:
        whole = Placement.read(Path(variant.placement_file)).layers
        return {name: whole[name] for name in names}
    cluster = cluster_for(variant.placement, recipe.model.experts, recipe.parallel.ranks, replicas=variant.replicas)
    found = {layer: slots_DS.tolist() for layer, slots_DS in trial.place(variant.placement, cluster).items()}
    if unknown := [name for name in names if name not in found]:
        session.writer.record.notes.append(
            f"{phase}: no two batches of a domain reach layer {', '.join(unknown)}, one to place its experts by and one to judge "
            f"that on; under {variant.label} they stay where they are"
        )
    return found


def with_layers(session: Session, variant: Variant, layers: Layers) -> Placement:
    """Where all experts of the model lie now: these layers so, the others as before."""
    recipe = session.recipe
    before = session.placements.get(variant) or Placement.contiguous(
        recipe.model.moe_layers_of("all"), recipe.model.experts, recipe.parallel.ranks
    )
    changed = {name: tuple(map(tuple, ranks)) for name, ranks in layers.items()}
    return Placement(recipe.model.experts, before.layers | changed, session.writer.record.weights_hash)


def deployed(session: Session, phase: str, variant: Variant, placement: Placement) -> tuple[int, int]:
    """Moves weights; the bytes that crossed from rank to rank, and the nanoseconds of the slowest rank."""
    layers = [layer for layer in moe_layers(session.contenders[variant]) if layer.name in session.recipe.moe_layers(phase)]
    barrier(session.group)
    started_ns = session.clock()
    received = sum(moved(session, layer, variant, placement.layers[layer.name]) for layer in layers)
    elapsed_ns = session.clock() - started_ns
    for layer in layers if variant.kernel == "auto" else []:  # now, so that no instrument sees the trials
        auto.prepare(layer.stores[variant].weights, layer.ffn)
    return total(session.group, [received])[0], largest(session.group, [elapsed_ns])[0]


def moved(session: Session, layer: MoELayer, variant: Variant, ranks: Sequence[Sequence[int]]) -> int:
    """One layer; the bytes that this rank got from others: none where its experts lie behind slots, and come when they are used."""
    if layer.name not in session.recipe.buffered_layers(variant):
        return deploy_placement(layer, variant, ranks)
    assert session.buffers is not None
    session.buffers.fit_layer(layer, variant, layer.place(variant, ranks).held)
    return 0


def weigh_moves(session: Session, phase: str, episodes: Sequence[Episode]) -> None:
    """Writes after how many steps a move has paid for itself, by the times of the pass `time`; nothing where it never does."""
    domains = {episode.domain for episode in episodes}
    domain = domains.pop() if len(domains) == 1 else ""
    known = {
        (row.metric, row.variant): row.value
        for row in session.writer.metrics.rows
        if (row.phase, row.rank, row.layer, row.point) == (phase, "", "", "") and row.domain in ("", domain)
    }
    for variant in session.contenders:
        move_ns = known.get(("move_time", variant.label))
        before, after = (known.get(("step_latency", one.label)) for one in (variant.unplaced, variant))
        if variant.placed and move_ns and before and after and before > after and variant.label not in session.untold(phase):
            address = Address(workload=session.recipe.workload, phase=phase, variant=variant.label)
            session.writer.add_metrics([MetricRow("payoff_steps", move_ns / (before - after), **address)])
