"""What a gating computes and what its tokens need: rows handed to the experts, capacity, and waste."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moeprof.records.metrics.registry import MetricRow, Samples
from moeprof.records.recipe.dispatch import dispatch_of
from moeprof.records.recipe.gating import capacity
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.run.raw_tables import STEPS
from moeprof.records.run.run import Run


@dataclass(frozen=True)
class StepSize:
    """The size of one forward pass."""

    domain: str
    rows: int
    """S, padding included."""
    tokens: float
    """Tokens, padding left out."""
    slots: float
    """Rows that a layer hands to its experts, mean over layers."""


def step_sizes_of(run: Run) -> dict[tuple[str, str], list[StepSize]]:
    """By phase and variant: every step, the mean over ranks, of which some may have had nothing but padding."""
    found: dict[tuple[str, str], dict[int, dict[int, list[dict[str, Any]]]]] = {}
    for row in run.raw(STEPS).to_pylist():
        ranks = found.setdefault((row["phase"], row["variant"]), {})
        ranks.setdefault(row["rank"], {}).setdefault(row["step"], []).append(row)
    return {
        where: [averaged(together) for together in zip(*(steps.values() for steps in ranks.values()), strict=True)]
        for where, ranks in found.items()
    }


def averaged(ranks: Sequence[Sequence[Mapping[str, Any]]]) -> StepSize:
    """One step of all ranks, each with a row per layer."""
    tokens = [layers[0]["tokens"] for layers in ranks]
    expert_rows = [sum(layer["expert_rows"] for layer in layers) / len(layers) for layers in ranks]
    first = ranks[0][0]
    return StepSize(first["domain"], first["rows"], sum(tokens) / len(ranks), sum(expert_rows) / len(ranks))


def first_judged_steps(run: Run, phase: str) -> dict[str, int]:
    """The first step in every domain that variants are compared on."""
    starts: dict[str, int] = {}
    for row in run.raw(STEPS).to_pylist():
        if row["phase"] == phase and row["judged"] and row["rank"] == 0:
            starts[row["domain"]] = min(starts.get(row["domain"], row["step"]), row["step"])
    return starts


def step_rows(run: Run) -> Iterator[Samples]:
    """Everything that follows from the sizes of the recorded steps."""
    for (phase, variant), sizes in step_sizes_of(run).items():
        for row in capacity_rows(run.record.ran, phase, variant, sizes):
            yield row, []


def capacity_rows(recipe: Recipe, phase: str, variant: str, sizes: Sequence[StepSize]) -> Iterator[MetricRow]:
    """`expert_slots`, `waste_factor`, `step_rows` and, if there is one, `capacity`: per domain, and over all of them."""
    domains = list(dict.fromkeys(size.domain for size in sizes))
    for domain in [*domains, ""]:
        chosen = [size for size in sizes if domain in ("", size.domain)]
        for metric, value in capacity_metrics(recipe, variant, chosen).items():
            yield MetricRow(metric, value, workload=recipe.workload, phase=phase, domain=domain, variant=variant)


def capacity_metrics(recipe: Recipe, variant: str, sizes: Iterable[StepSize]) -> dict[str, float]:
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
