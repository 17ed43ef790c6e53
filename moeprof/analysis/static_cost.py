"""What static gating processes, whatever the routing: capacity, slots and waste of the steps that were run."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from moeprof.records.gating import capacity, expert_slots
from moeprof.records.metrics import MetricRow
from moeprof.records.recipe import Recipe


@dataclass(frozen=True)
class StepSize:
    """One forward pass by its size."""

    domain: str
    rows: int
    """S, padding included."""
    tokens: int
    """Padding left out."""


def static_cost_rows(recipe: Recipe, phase: str, variant: str, sizes: Sequence[StepSize]) -> Iterator[MetricRow]:
    """`capacity`, `expert_slots`, `waste_factor` and `step_rows` of a layer's step: per domain, and over all of them."""
    domains = list(dict.fromkeys(size.domain for size in sizes))
    for domain in [*domains, ""]:
        chosen = [size for size in sizes if domain in ("", size.domain)]
        for metric, value in static_cost(recipe, chosen).items():
            yield MetricRow(metric, value, workload=recipe.workload, phase=phase, domain=domain, variant=variant)


def static_cost(recipe: Recipe, sizes: Iterable[StepSize]) -> dict[str, float]:
    """Means over steps; waste is all slots processed over all slots needed (paper: E x C / k)."""
    experts, fraction, top_k = recipe.model.experts, recipe.gating.capacity_fraction, recipe.gating.top_k
    steps = [size for size in sizes if size.tokens]
    if not steps:
        return {}
    slots = sum(expert_slots(experts, fraction, size.rows) for size in steps)
    return {
        "step_rows": sum(size.rows for size in steps) / len(steps),
        "capacity": sum(capacity(fraction, size.rows) for size in steps) / len(steps),
        "expert_slots": slots / len(steps),
        "waste_factor": slots / (top_k * sum(size.tokens for size in steps)),
    }
