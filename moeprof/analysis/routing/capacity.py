"""What a gating computes beside what its tokens need: rows handed to the experts, capacity, and waste."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from moeprof.records.metrics.registry import MetricRow
from moeprof.records.recipe.dispatch import dispatch_of
from moeprof.records.recipe.gating import capacity
from moeprof.records.recipe.recipe import Recipe


@dataclass(frozen=True)
class StepSize:
    """One forward pass by its size."""

    domain: str
    rows: int
    """S, padding included."""
    tokens: float
    """Padding left out."""
    slots: float
    """Rows that a layer handed to its experts, mean over layers."""


def averaged(ranks: Sequence[Sequence[StepSize]]) -> list[StepSize]:
    """Every step by the mean over ranks, of which some may have had nothing but padding."""
    return [
        StepSize(
            step[0].domain,
            step[0].rows,
            sum(size.tokens for size in step) / len(step),
            sum(size.slots for size in step) / len(step),
        )
        for step in zip(*ranks, strict=True)
    ]


def slot_rows(recipe: Recipe, phase: str, variant: str, sizes: Sequence[StepSize]) -> Iterator[MetricRow]:
    """`expert_slots`, `waste_factor`, `step_rows` and where there is one `capacity`: per domain, and over all of them."""
    domains = list(dict.fromkeys(size.domain for size in sizes))
    for domain in [*domains, ""]:
        chosen = [size for size in sizes if domain in ("", size.domain)]
        for metric, value in slot_metrics(recipe, variant, chosen).items():
            yield MetricRow(metric, value, workload=recipe.workload, phase=phase, domain=domain, variant=variant)


def slot_metrics(recipe: Recipe, variant: str, sizes: Iterable[StepSize]) -> dict[str, float]:
    """Means over steps; waste is all rows computed over all rows needed (paper: E x C / k)."""
    steps = [size for size in sizes if size.tokens]
    if not steps:
        return {}
    slots = sum(size.slots for size in steps)
    metrics = {
        "step_rows": sum(size.rows for size in steps) / len(steps),
        "expert_slots": slots / len(steps),
        "waste_factor": slots / (recipe.gating.top_k * sum(size.tokens for size in steps)),
    }
    if dispatch_of(variant).capacity == "fraction":
        metrics["capacity"] = sum(capacity(recipe.gating.capacity_fraction, size.rows) for size in steps) / len(steps)
    return metrics
