"""Whether a variant's outputs are the baseline's: what was compared, what was left out and why, and what differed."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from moeprof.analysis.comparison.finite import not_finite
from moeprof.records.metrics.registry import MetricRow, Samples
from moeprof.records.recipe.variant import OWN
from moeprof.records.run.raw_tables import AGREEMENT
from moeprof.records.run.run import Run


@dataclass
class Compared:
    """Tokens compared with each other; a token differs beyond the tolerance of the dtype."""

    tokens: int = 0
    differing: int = 0
    max_abs_diff: float = 0.0

    def add(self, tokens: int, differing: int, max_abs_diff: float) -> None:
        """Adds the counts of further tokens."""
        self.tokens += tokens
        self.differing += differing
        self.max_abs_diff = max(self.max_abs_diff, max_abs_diff)


@dataclass
class Agreement:
    """One variant compared with the baseline in one phase."""

    layers: dict[str, Compared] = field(default_factory=dict)
    """Each MoE layer on the baseline's inputs, over tokens that lost nothing in it."""
    whole: Compared = field(default_factory=Compared)
    """End to end, over tokens that depend on no drop and no flip."""
    tokens: int = 0
    """All tokens, padding left out."""
    flips: int = 0
    """Near-ties of the router that rounding decided differently, among tokens that had lost nothing so far."""
    jumps: int = 0
    """Decisions of the router that differ without a near-tie."""
    agreeing: int | None = None
    """Tokens for which both predict the same next token; None if nothing is predicted."""

    @property
    def equal(self) -> bool:
        """Whether speeds may be compared: something was compared, and nothing differed."""
        return self.compared and not (self.jumps or self.whole.differing or any(one.differing for one in self.layers.values()))

    @property
    def compared(self) -> bool:
        """Whether at least one token could be compared, in a layer or end to end."""
        return any(part.tokens for part in (self.whole, *self.layers.values()))

    def complaint(self, variant: str, baseline: str) -> str:
        """The sentence for outputs that are not equal."""
        if not self.compared:
            return (
                f"no token of {variant} could be compared with {baseline}'s: all lost a choice (raise gating.capacity_fraction)"
            )
        worst = [f"{layer.differing:,} in layer {name}" for name, layer in self.layers.items() if layer.differing]
        counts = [*worst, f"{self.whole.differing:,} end to end", f"{self.jumps:,} by other routing"]
        return f"outputs of {variant} differ from those of {baseline} on tokens without a drop: {', '.join(counts)}"


def agreements_of(run: Run) -> dict[tuple[str, str], Agreement]:
    """By phase and variant, over ranks: each rank compared its own tokens."""
    found: dict[tuple[str, str], Agreement] = {}
    for row in run.raw(AGREEMENT).to_pylist():
        mine = found.setdefault((row["phase"], row["variant"]), Agreement())
        part = mine.layers.setdefault(row["layer"], Compared()) if row["layer"] else mine.whole
        part.add(row["compared"], row["differing"], row["max_abs_diff"])
        if not row["layer"]:
            mine.tokens, mine.flips, mine.jumps = (
                mine.tokens + row["tokens"],
                mine.flips + row["flips"],
                mine.jumps + row["jumps"],
            )
            mine.agreeing = None if row["agreeing"] is None else (mine.agreeing or 0) + row["agreeing"]
    return found


def disagreements(run: Run) -> list[str]:
    """Sentences about variants whose outputs are not the baseline's, or could not be compared, though both are finite.

    A variant that computes with less precision on purpose is not among them: what it loses is reported beside its speed.
    Beside a Hugging Face model static gating shows what capacity would cost, and that may be every token.
    """
    baseline, broken = next(iter(run.record.routed_labels), ""), not_finite(run)
    return [
        f"{phase}: {found.complaint(variant, baseline)}"
        for (phase, variant), found in agreements_of(run).items()
        if not found.equal
        and variant not in run.record.lossy_labels
        and not broken.keys() & {(phase, variant), (phase, baseline)}
        and (found.compared or baseline != OWN.label)
    ]


def variants_without_speedup(run: Run, phase: str) -> list[str]:
    """Labels of variants that compute something else in a phase than the baseline does, unasked: they have no speed-up."""
    lossy = run.record.lossy_labels
    return [
        variant
        for (name, variant), found in agreements_of(run).items()
        if name == phase and not found.equal and variant not in lossy
    ]


def output_rows(run: Run) -> Iterator[Samples]:
    """The rows of every variant and phase."""
    for (phase, variant), found in agreements_of(run).items():
        for row in agreement_rows(run.record.workload, phase, variant, found, forced=run.record.ran.forced):
            yield row, []


def agreement_rows(workload: str, phase: str, variant: str, found: Agreement, *, forced: bool) -> Iterator[MetricRow]:
    """The metrics of one comparison, end to end and by layer."""
    row = MetricRow("output_tokens_compared", found.whole.tokens, workload, phase, variant=variant, forced=forced)
    yield row
    yield replace(row, metric="output_tokens_lost", value=found.tokens - found.whole.tokens)
    yield replace(row, metric="output_tokens_differing", value=found.whole.differing + found.jumps)
    yield replace(row, metric="routing_flips", value=found.flips)
    if found.whole.tokens and math.isfinite(found.whole.max_abs_diff):
        yield replace(row, metric="output_max_abs_diff", value=found.whole.max_abs_diff)
    if found.agreeing is not None:
        yield replace(row, metric="token_agreement", value=found.agreeing / found.tokens)
    for name, layer in found.layers.items():
        yield replace(row, metric="output_tokens_compared", value=layer.tokens, layer=name)
        yield replace(row, metric="output_tokens_differing", value=layer.differing, layer=name)
        if layer.tokens and math.isfinite(layer.max_abs_diff):
            yield replace(row, metric="output_max_abs_diff", value=layer.max_abs_diff, layer=name)
