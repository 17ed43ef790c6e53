"""Whether the outputs of a run are finite, and where they were not for the first time."""

from collections.abc import Mapping
from typing import Any

from moeprof.records.run.raw_tables import NOT_FINITE
from moeprof.records.run.run import Run

Steps = list[Mapping[str, Any]]
"""Rows of the raw table `not_finite`, earliest step first."""


def not_finite(run: Run) -> dict[tuple[str, str], Steps]:
    """Layers and steps with outputs that are not finite, by phase and variant, over ranks."""
    found: dict[tuple[str, str], Steps] = {}
    for row in run.raw(NOT_FINITE).to_pylist():
        found.setdefault((row["phase"], row["variant"]), []).append(row)
    return {key: sorted(steps, key=lambda row: int(row["step"])) for key, steps in found.items()}


def not_finite_reasons(run: Run) -> list[str]:
    """Why the run is not valid: a sentence per phase and variant, with the first layer and step."""
    return [f"{phase}: {reason(variant, steps)}" for (phase, variant), steps in not_finite(run).items()]


def reason(variant: str, steps: Steps) -> str:
    """`outputs are not finite under static: 24 tokens, first in layer 1, step 0`; without the layer if it has no experts."""
    first, tokens = steps[0], sum(int(row["tokens"]) for row in steps if not row["layer"])
    where = f"in layer {first['layer']}, step" if first["layer"] else "at step"
    return f"outputs are not finite under {variant}: {tokens:,} tokens, first {where} {first['step']}"
