"""A replay as its run directory tells it: every number by phase, policy and size."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from moeprof.records.metrics.point import parse_point
from moeprof.records.run.replay import ALL, DECODE, ReplayRequest
from moeprof.records.run.run import Run

Key = tuple[str, str, str, str, str, int]
"""Metric, phase, layer, domain, policy, size; size 0 where a number has none."""


@dataclass(frozen=True)
class Replayed:
    """What was replayed, and what came of it."""

    replay: ReplayRequest
    values: dict[Key, float]

    @classmethod
    def of(cls, run: Run) -> "Replayed":
        """Read once."""
        replay, table = run.record.replayed, run.metrics
        columns = (table[name] for name in ("metric", "phase", "layer", "domain", "point", "value"))
        values = {}
        for metric, phase, layer, domain, point, value in zip(*columns, strict=True):
            swept = parse_point(point)
            size = swept.get(replay.swept, "0")
            values[metric, phase, layer, domain, swept.get("policy", ""), int(size) if size.isdecimal() else 0] = float(value)
        return cls(replay, values)

    def get(
        self, metric: str, phase: str = "", policy: str = "", size: int = 0, *, layer: str = "", domain: str = ""
    ) -> float | None:
        """The number, or None where the run has none."""
        return self.values.get((metric, phase, layer, domain, policy, size))

    @cached_property
    def policies(self) -> list[str]:
        """Those that have numbers, in the order in which they were asked for."""
        known = {key[4] for key in self.values}
        return [policy for policy in self.replay.policies if policy in known]

    @cached_property
    def phases(self) -> list[str]:
        """Those that have numbers: decode before prefill, and both together last."""
        known = {key[1] for key in self.values if key[0] == "expert_accesses"}
        order = [DECODE, *(phase for phase in known if phase not in (DECODE, ALL)), ALL]
        return [phase for phase in order if phase in known]

    @cached_property
    def landmarks(self) -> list[int]:
        """Sizes at which layers have numbers of their own, rising."""
        return sorted({key[5] for key in self.values if key[0] == "miss_rate" and key[2]})

    @cached_property
    def parts(self) -> list[tuple[str, str]]:
        """Layers by domain, as they have accesses; the domain is empty where there is only one."""
        found = dict.fromkeys((key[2], key[3]) for key in self.values if key[0] == "expert_accesses" and key[2])
        several = any(domain for _, domain in found)
        return [(layer, domain) for layer, domain in found if bool(domain) == several]

    def curve(self, metric: str, phase: str, policy: str, sizes: Sequence[int] = ()) -> list[tuple[int, float]]:
        """A metric over sizes, all of them where none are named."""
        pairs = ((size, self.get(metric, phase, policy, size)) for size in sizes or self.replay.sizes)
        return [(size, value) for size, value in pairs if value is not None]

    def worst(self, phase: str, policy: str, size: int) -> tuple[float, str, str] | None:
        """The largest miss rate of any layer and domain, and which; None at a size where they have no numbers."""
        rates = [
            (rate, layer, domain)
            for layer, domain in self.parts
            if (rate := self.get("miss_rate", phase, policy, size, layer=layer, domain=domain)) is not None
        ]
        return max(rates, key=lambda found: found[0], default=None)

    def knee(self, phase: str, policy: str = "") -> int | None:
        """Where a policy's curve bends; without a policy, where that of the fewest misses online does."""
        found = self.get("knee_budget" if self.replay.budgets else "knee_slots", phase, policy)
        return None if found is None else int(found)
