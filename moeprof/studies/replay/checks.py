"""Checks of a run's routing traces against its recipe: experts, layers, and the ranks that recorded them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from moeprof.analysis.routing.analyses import by_variant
from moeprof.analysis.routing.load_matrix import LoadMatrix
from moeprof.records.errors import UsageError
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.system.resources import free_memory
from moeprof.records.traces.routing_trace import RoutingTrace
from moeprof.records.units import format_bytes


def check_ranks(traces: Sequence[RoutingTrace], num_ranks: int, path: Path, recorded: Iterable[tuple[str, str]] = ()) -> None:
    """UsageError unless every phase and variant, those that were `recorded` among them, has one trace of each rank."""
    found = by_variant(traces)
    for phase, variant in dict.fromkeys([*recorded, *found]):
        ranks = [trace.header.rank for trace in found.get((phase, variant), [])]
        if ranks != list(range(num_ranks)):
            listed = ", ".join(map(str, ranks)) or "none"
            raise UsageError(
                f"run {path}: traces of {phase}, {variant}: ranks {listed}; each of 0 to {num_ranks - 1} is needed once",
                "Restore the files of the run, or repeat the run.",
            )


def check_shapes(traces: Sequence[RoutingTrace], recipe: Recipe, path: Path) -> None:
    """UsageError unless the experts and layers of every trace are those of the run's recipe."""
    for header in (trace.header for trace in traces):
        has = (header.num_experts, header.top_k, header.layers)
        needed = (recipe.model.experts, recipe.gating.top_k, recipe.moe_layers(header.phase))
        for name, value, expected in zip(("experts", "top_k", "layers"), has, needed, strict=True):
            if value != expected:
                raise UsageError(
                    f"trace {path}: {header.phase}, {header.variant}: {name} {shown(value)}; the run's recipe has {shown(expected)}",
                    "Restore the files of the run; traces of another run are in its routing/ folder.",
                )


def check_matrices(phases: Iterable[Sequence[Sequence[LoadMatrix]]], path: Path) -> None:
    """UsageError if the matrices of a replay of placements, which are yet to be made, do not fit in the free memory.

    Correlations of experts, (E, E), are kept for every layer of a phase and four more are made on the way, beside three (E, B).
    """
    matrices = [matrix for layers in phases for of_domain in layers for matrix in of_domain]
    experts = max((matrix.num_experts for matrix in matrices), default=0)
    steps = max((matrix.num_steps for matrix in matrices), default=0)
    layers = len({matrix.layer for matrix in matrices})
    needed_bytes = 8 * experts * (experts * (layers + 4) + 3 * steps)
    if needed_bytes > (free_bytes := free_memory()):
        raise UsageError(
            f"trace {path}: {experts:,} experts in {steps:,} steps of {layers:,} layers need matrices of {format_bytes(needed_bytes)}, "
            f"but {format_bytes(free_bytes)} of memory are free",
            "Give a trace with fewer experts, layers or steps.",
        )


def shown(value: object) -> str:
    """A number, or names in a row."""
    return ", ".join(value) if isinstance(value, list) else str(value)
