"""Placements in a run: made from each domain's earlier batches, deployed before the later ones, which alone are judged."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from moeprof.analysis.placement.deployed_rows import trial_over_ranks
from moeprof.analysis.placement.trial import Trial, cluster_for
from moeprof.analysis.routing.analyses import by_variant
from moeprof.moe.deployment import deploy_placement
from moeprof.moe.kernels.auto import auto
from moeprof.moe.layer import MoELayer, moe_layers
from moeprof.parallel.collectives import all_gather_json, barrier
from moeprof.records.placement import Placement
from moeprof.records.recipe.variant import Variant
from moeprof.records.run.raw_tables import MOVES
from moeprof.records.run.run import Run
from moeprof.records.traces.routing_trace import RoutingTrace
from moeprof.studies.passes.routing import record_variant
from moeprof.studies.selection import first_steps, judged
from moeprof.studies.services import Findings, Services
from moeprof.workloads.episodes import Episode

Layers = Mapping[str, Sequence[Sequence[int]]]
"""By layer, the experts of every rank."""


def place_experts(services: Services, phase: str, episodes: Sequence[Episode]) -> Findings:
    """Places experts by the decisions recorded so far, and records those under the placements.

    The result has notes on layers that could not be placed.
    """
    variants = [variant for variant in services.runner.routed if variant.placed]
    starts, notes = first_steps(judged(services.runner.variants, episodes)), list[str]()
    # The traces are on the first rank's disk, and are read once for all variants.
    known = by_variant(Run(services.writer.path, services.writer.record).traces) if variants and services.group.first else {}
    for variant in variants:
        services.progress.stage(f"{phase}: placement, {variant.label}", len(episodes))
        unplaced = variant.unplaced if variant.unplaced in services.runner.routed else services.runner.baseline
        notes += deploy(services, phase, variant, starts, known.get((phase, unplaced.label), []))
        record_variant(services, phase, variant, episodes)
    return Findings(notes)


def deploy(
    services: Services, phase: str, variant: Variant, starts: Mapping[str, int], traces: Sequence[RoutingTrace]
) -> list[str]:
    """Moves the experts of a phase's layers to the ranks that the variant assigns; records the placement and the move.

    `starts` is each domain's first judged step; `traces` are those of the same variant without a placement, or else of the baseline,
    on the first rank. The result is notes on layers that could not be placed.
    """
    notes: list[str] = []
    mine = layers_of(services, phase, variant, trial_over_ranks(traces, starts), notes) if services.group.first else {}
    placement = with_layers(services, variant, all_gather_json(services.group, mine)[0])
    services.runner.placements[variant] = placement
    received_bytes, time_ns = deployed(services, phase, variant, placement)
    move_row = {"phase": phase, "variant": variant.label, "received_bytes": received_bytes, "time_ns": time_ns}
    services.record(MOVES, [move_row])
    if services.group.first:
        folder = services.writer.path / "placements"
        folder.mkdir(exist_ok=True)
        placement.write(folder / f"{phase}-{variant.label}.json")
    return notes


def layers_of(services: Services, phase: str, variant: Variant, trial: Trial, notes: list[str]) -> Layers:
    """The layers of the placement file, or those that the balancer computes from the history; others are noted and stay."""
    names, recipe = services.recipe.moe_layers(phase), services.recipe
    if variant.placement_file:
        whole = Placement.read(Path(variant.placement_file)).layers
        return {name: whole[name] for name in names}
    cluster = cluster_for(variant.placement, recipe.model.experts, recipe.parallel.ranks, replicas=variant.replicas)
    found = {layer: slots_DS.tolist() for layer, slots_DS in trial.place(variant.placement, cluster).items()}
    if unknown := [name for name in names if name not in found]:
        notes.append(
            f"{phase}: layer {', '.join(unknown)} stays contiguous under {variant.label}: no domain has two batches that reach it, "
            "one to place its experts by and one to judge that on"
        )
    return found


def with_layers(services: Services, variant: Variant, layers: Layers) -> Placement:
    """The placement of the whole model: these layers as given, the others as they were."""
    recipe = services.recipe
    before = services.runner.placements.get(variant) or Placement.contiguous(
        recipe.model.moe_layers_of("all"), recipe.model.experts, recipe.parallel.ranks
    )
    changed = {name: tuple(map(tuple, ranks)) for name, ranks in layers.items()}
    return Placement(recipe.model.experts, before.layers | changed, services.writer.record.weights_hash)


def deployed(services: Services, phase: str, variant: Variant, placement: Placement) -> tuple[int, int]:
    """Moves weights; the bytes that this rank received from others, and the nanoseconds until it had them."""
    names = services.recipe.moe_layers(phase)
    layers = [layer for layer in moe_layers(services.runner.models[variant]) if layer.name in names]
    barrier(services.group)
    started_ns = services.clock()
    received_bytes = sum(moved(services, layer, variant, placement.layers[layer.name]) for layer in layers)
    elapsed_ns = services.clock() - started_ns
    for layer in layers if variant.kernel == "auto" else []:  # now, so that no instrument sees the trials
        auto.prepare(layer.stores[variant].weights, layer.ffn)
    return received_bytes, elapsed_ns


def moved(services: Services, layer: MoELayer, variant: Variant, ranks: Sequence[Sequence[int]]) -> int:
    """Moves one layer; the bytes that this rank received: none if its experts are behind slots, from which they are fetched."""
    if layer.name not in services.recipe.buffered_layers(variant):
        return deploy_placement(layer, variant, ranks)
    assert services.runner.buffers is not None
    services.runner.buffers.fit_layer(layer, variant, layer.place(variant, ranks).held)
    return 0
