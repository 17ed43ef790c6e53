"""Whether a contender's outputs are the baseline's: what was compared, what was left out and why, and what differed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from moeprof.records.metrics.registry import MetricRow


@dataclass
class Compared:
    """Tokens held against each other; a token differs beyond the tolerance of the dtype."""

    tokens: int = 0
    differing: int = 0
    max_abs_diff: float = 0.0

    def add(self, tokens: int, differing: int, max_abs_diff: float) -> None:
        """More of them."""
        self.tokens += tokens
        self.differing += differing
        self.max_abs_diff = max(self.max_abs_diff, max_abs_diff)


@dataclass
class Agreement:
    """One contender beside the baseline in one phase."""

    layers: dict[str, Compared] = field(default_factory=dict)
    """Each MoE layer on the inputs that the baseline's had, over tokens that lost nothing in it."""
    whole: Compared = field(default_factory=Compared)
    """End to end, over tokens with no drop and no flip in anything they see."""
    tokens: int = 0
    """All of them, padding left out."""
    flips: int = 0
    """Near-ties of the router that rounding decided another way, among tokens that had lost nothing so far."""
    jumps: int = 0
    """Other decisions of the router that no near-tie explains."""
    agreeing: int | None = None
    """Tokens for which both predict the same next one; None where nothing is predicted."""

    @property
    def equal(self) -> bool:
        """Whether speeds may be compared: something was held against the baseline, and nothing differed."""
        return self.compared and not (self.jumps or self.whole.differing or any(one.differing for one in self.layers.values()))

    @property
    def compared(self) -> bool:
        """Whether a single token could be held against the baseline's, in a layer or end to end."""
        return any(part.tokens for part in (self.whole, *self.layers.values()))

    def complaint(self, variant: str, baseline: str) -> str:
        """What is wrong where it is not."""
        if not self.compared:
            return (
                f"no token of {variant} could be held against {baseline}'s: all lost a choice (raise gating.capacity_fraction)"
            )
        worst = [f"{layer.differing:,} in layer {name}" for name, layer in self.layers.items() if layer.differing]
        counts = [*worst, f"{self.whole.differing:,} end to end", f"{self.jumps:,} by another routing"]
        return f"outputs of {variant} differ from {baseline}'s on tokens that lost nothing: {', '.join(counts)}"


def merged(parts: Sequence[Agreement]) -> Agreement:
    """Over ranks: each compared its own tokens."""
    whole = Agreement(agreeing=None if parts[0].agreeing is None else 0)
    for part in parts:
        for mine, theirs in [(whole.whole, part.whole)] + [
            (whole.layers.setdefault(name, Compared()), layer) for name, layer in part.layers.items()
        ]:
            mine.add(theirs.tokens, theirs.differing, theirs.max_abs_diff)
        whole.tokens, whole.flips, whole.jumps = whole.tokens + part.tokens, whole.flips + part.flips, whole.jumps + part.jumps
        whole.agreeing = None if part.agreeing is None else (whole.agreeing or 0) + part.agreeing
    return whole


def agreement_rows(workload: str, phase: str, variant: str, found: Agreement, *, forced: bool) -> Iterator[MetricRow]:
    """What was compared and what came of it, end to end and by layer."""
    row = MetricRow("output_tokens_compared", found.whole.tokens, workload, phase, variant=variant, forced=forced)
    yield row
    yield replace(row, metric="output_tokens_lost", value=found.tokens - found.whole.tokens)
    yield replace(row, metric="output_tokens_differing", value=found.whole.differing + found.jumps)
    yield replace(row, metric="routing_flips", value=found.flips)
    if found.whole.tokens:
        yield replace(row, metric="output_max_abs_diff", value=found.whole.max_abs_diff)
    if found.agreeing is not None:
        yield replace(row, metric="token_agreement", value=found.agreeing / found.tokens)
    for name, layer in found.layers.items():
        yield replace(row, metric="output_tokens_compared", value=layer.tokens, layer=name)
        yield replace(row, metric="output_tokens_differing", value=layer.differing, layer=name)
        if layer.tokens:
            yield replace(row, metric="output_max_abs_diff", value=layer.max_abs_diff, layer=name)
