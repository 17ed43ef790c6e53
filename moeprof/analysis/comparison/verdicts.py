"""The verdict on every metric of two measurements: better, worse, the same, or why it cannot be decided."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from moeprof.analysis.comparison.measurement import Measurement, Number, is_gated
from moeprof.analysis.comparison.significance import (
    ALPHA,
    MIN_PROCESSES,
    ProcessRounds,
    enough,
    fewest_rounds,
    holm,
    p_value,
    pooled,
    processes_needed,
    ratio,
    ratio_interval,
    spread,
)
from moeprof.records.metrics.registry import METRICS
from moeprof.records.metrics.row import RowKey

Verdict = Literal["better", "worse", "same", "inconclusive", "not comparable", "new", "removed"]

THRESHOLD = 0.05
"""The relative change below which a timed metric is never better or worse, whatever its p value."""


@dataclass(frozen=True)
class Finding:
    """The comparison of one metric at one address."""

    recipe: str
    command: str
    address: RowKey
    unit: str
    kind: str
    verdict: Verdict
    baseline: float | None = None
    candidate: float | None = None
    gated: bool = False
    """Whether CI may fail because of it."""
    change: float | None = None
    """Relative change: candidate / baseline - 1."""
    interval: tuple[float, float] | None = None
    """95% bootstrap interval of the change."""
    p: float | None = None
    """p value after Holm's correction."""
    why: str = ""
    spread: tuple[float | None, float | None] | None = None
    """Relative spread between processes of the baseline and the candidate; None for a side with one process."""
    rounds: "Rounds | None" = field(default=None, repr=False, compare=False)
    """The samples for a test."""

    @property
    def metric(self) -> str:
        """The name of the metric."""
        return self.address.metric

    @property
    def where(self) -> str:
        """The non-empty key cells without workload and metric: `score, static, layer 3`."""
        key = self.address
        plain = (key.phase, key.domain, key.variant, key.point)
        named = {"rank": key.rank, "layer": key.layer, "region": key.region, "category": key.category}
        return ", ".join(filter(None, [*plain, *(f"{name} {cell}" for name, cell in named.items() if cell)]))


@dataclass(frozen=True)
class Rounds:
    """Raw samples of both sides, one list per process."""

    baseline: ProcessRounds
    candidate: ProcessRounds
    paired: bool
    """Whether round i of process j was interleaved with the same round of the other side."""


@dataclass(frozen=True)
class Rules:
    """Thresholds and options of a comparison."""

    thresholds: Mapping[str, float]
    """Relative threshold by metric; the default is THRESHOLD for timed metrics, 0 for others."""
    only: Sequence[str] = ()
    """Metrics to compare; all if empty."""
    allow_machine_mismatch: bool = False

    def threshold(self, metric: str, kind: str) -> float:
        """The largest relative change of a metric that counts as the same."""
        return self.thresholds.get(metric, THRESHOLD if kind == "timed" else 0.0)


def findings(pairs: Sequence[tuple[Measurement, Measurement]], rules: Rules) -> list[Finding]:
    """Findings of all pairs of baseline and candidate, in the order of each candidate's numbers; removed numbers come last.

    The gated timed metrics of all pairs are one family of tests.
    """
    return corrected([one for baseline, candidate in pairs for one in described(baseline, candidate, rules)], rules)


def described(baseline: Measurement, candidate: Measurement, rules: Rules) -> Iterator[Finding]:
    """Findings of one pair; gated timed metrics are still inconclusive and hold the rounds for their test."""
    before, after = baseline.by_address, candidate.by_address
    obstacle = why_not(baseline, candidate, meant=in_turns(baseline, candidate))
    machine = "" if rules.allow_machine_mismatch else different_machines(baseline, candidate)
    for address in [*after, *(address for address in before if address not in after)]:
        if rules.only and address.metric not in rules.only:
            continue
        ours, theirs = before.get(address), after.get(address)
        if ours is None or theirs is None:
            yield one_sided(candidate, ours, theirs)
            continue
        blank = Finding(
            candidate.recipe,
            candidate.command,
            address,
            theirs.unit,
            theirs.kind,
            "not comparable",
            ours.value,
            theirs.value,
            change=change(ours, theirs),
            rounds=Rounds(ours.samples, theirs.samples, in_turns(baseline, candidate) and alike(ours, theirs)),
        )
        reason = obstacle or number_obstacle(ours, theirs, machine, routing_differs(baseline, candidate, address))
        yield replace(blank, why=reason) if reason else judged(blank, ours, theirs, rules)


def in_turns(baseline: Measurement, candidate: Measurement) -> bool:
    """Whether both sides come from one A/B test whose processes ran interleaved rounds."""
    return bool(candidate.turns) and baseline.turns == candidate.turns


def alike(ours: Number, theirs: Number) -> bool:
    """Whether both sides have the same number of rounds in every process."""
    return list(map(len, ours.samples)) == list(map(len, theirs.samples))


def one_sided(subject: Measurement, ours: Number | None, theirs: Number | None) -> Finding:
    """The finding for a number that only one side has; `subject` is either measurement."""
    one = theirs or ours
    assert one is not None
    verdict: Verdict = "new" if ours is None else "removed"
    values = (ours.value if ours else None, theirs.value if theirs else None)
    return Finding(subject.recipe, subject.command, one.address, one.unit, one.kind, verdict, *values)


def change(ours: Number, theirs: Number) -> float | None:
    """The relative change; None if the baseline is 0 and the candidate is not."""
    if ours.value == 0:
        return 0.0 if theirs.value == 0 else None
    return theirs.value / ours.value - 1


def why_not(baseline: Measurement, candidate: Measurement, *, meant: bool) -> str:
    """Why two measurements cannot be compared; empty if they can. With `meant`, differing settings are what is compared."""
    for name, subject in (("baseline", baseline), ("candidate", candidate)):
        if not subject.valid:
            return f"the {name} is not valid: {'; '.join(subject.reasons) or 'no reason given'}"
    if baseline.command != candidate.command:
        return f"different commands: {baseline.command}, {candidate.command}"
    if meant:
        return ""
    if keys := differing(baseline.settings, candidate.settings):
        what = "different settings" if baseline.command == "replay" else "different recipes"
        return f"{what}: {', '.join(keys[:3])}" + (f" and {len(keys) - 3} more keys" if len(keys) > 3 else "")
    for domain in {**baseline.texts, **candidate.texts}:
        if baseline.texts.get(domain) != candidate.texts.get(domain):
            return f"different text {domain!r}: {short(baseline.texts.get(domain))}, {short(candidate.texts.get(domain))}"
    if baseline.weights != candidate.weights:
        return f"different weights: {short(baseline.weights)}, {short(candidate.weights)}"
    return ""


def differing(one: Any, other: Any, path: str = "") -> list[str]:
    """Keys at which two documents differ, as `section.key`."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            found
            for key in dict.fromkeys([*one, *other])
            for found in differing(one.get(key), other.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if one == other else [path]


def short(digest: str | None) -> str:
    """The first 12 digits of a hash; `none` without a hash."""
    return (digest or "none")[:12]


def different_machines(baseline: Measurement, candidate: Measurement) -> str:
    """How the machines differ; empty if they do not."""
    keys = differing(baseline.machine, candidate.machine)
    differences = [f"{key} {baseline.machine.get(key) or 'none'}, {candidate.machine.get(key) or 'none'}" for key in keys]
    return f"different machines: {'; '.join(differences)}" if differences else ""


def routing_differs(baseline: Measurement, candidate: Measurement, key: RowKey) -> bool:
    """Whether the routing decisions behind a number differ."""
    phase = "" if baseline.command == "replay" else key.phase  # a replayed phase starts with the caches of the one before
    wanted = [name for name in {**baseline.routing, **candidate.routing} if phase in ("", name.partition("/")[0])]
    mine = [name for name in wanted if name.partition("/")[2] == key.variant] or wanted
    return any(baseline.routing.get(name) != candidate.routing.get(name) for name in mine)


def number_obstacle(ours: Number, theirs: Number, machine: str, other_routing: bool) -> str:
    """Why a number cannot be compared; empty if it can."""
    if (ours.unit, ours.kind) != (theirs.unit, theirs.kind):
        return f"unit or kind changed: {ours.unit} ({ours.kind}), {theirs.unit} ({theirs.kind})"
    if theirs.address.metric not in METRICS:
        return "unknown metric in this version of moeprof"
    if theirs.kind == "timed":
        return machine
    return "different routing" if theirs.kind == "routed" and other_routing else ""


def judged(blank: Finding, ours: Number, theirs: Number, rules: Rules) -> Finding:
    """The verdict by value; gated timed metrics stay inconclusive until they are tested together."""
    gate = theirs.kind != "timed" and METRICS[theirs.address.metric].better != "neither"
    if is_gated(blank.address) and not (ours.samples and theirs.samples):
        return replace(blank, why="one side has no raw samples")
    if theirs.kind == "timed":
        return replace(blank, verdict="inconclusive", why="timed, not gated")
    size = abs(blank.change) if blank.change is not None else float("inf")
    if size <= rules.threshold(blank.metric, blank.kind):
        return replace(blank, verdict="same", gated=gate)
    if not gate:
        return replace(blank, verdict="not comparable", why="changed, but neither direction is better")
    return replace(blank, verdict=direction(blank.metric, ours.value, theirs.value), gated=True)


def direction(metric: str, before: float, after: float) -> Verdict:
    """Whether a change of the metric is an improvement."""
    return "better" if (after > before) == (METRICS[metric].better == "higher") else "worse"


def corrected(found: Sequence[Finding], rules: Rules) -> list[Finding]:
    """Decides the gated timed metrics as one family: p values with Holm's correction, thresholds, and intervals of the ratio."""
    family = {
        index: one.rounds
        for index, one in enumerate(found)
        if one.rounds is not None and is_gated(one.address) and one.verdict == "inconclusive"
    }
    p_values = holm({index: p_value(sides.baseline, sides.candidate, paired=sides.paired) for index, sides in family.items()})
    return [tested(one, p_values[index], len(family), rules) if index in family else one for index, one in enumerate(found)]


def tested(finding: Finding, p: float, family: int, rules: Rules) -> Finding:
    """Decides one member of the family by its corrected p value, the size of its change, and its number of processes."""
    assert finding.rounds is not None
    before, after, paired = finding.rounds.baseline, finding.rounds.candidate, finding.rounds.paired
    threshold, size = rules.threshold(finding.metric, finding.kind), ratio(before, after, paired=paired) - 1
    low, high = (end - 1 for end in ratio_interval(before, after, paired=paired))
    whole = replace(finding, gated=True, change=size, interval=(low, high), p=p, why="", spread=(spread(before), spread(after)))
    if not enough(before, after):
        return replace(whole, why=few_processes(before, after))
    if p < ALPHA and abs(size) > threshold:
        return replace(whole, verdict=direction(finding.metric, 0, size))
    rounds = min(len(pooled(side)) for side in (before, after))
    if -threshold < low and high < threshold and rounds >= fewest_rounds(family):
        return replace(whole, verdict="same")
    return replace(whole, why=undecided(finding.rounds, threshold or abs(size), family))


def few_processes(before: ProcessRounds, after: ProcessRounds) -> str:
    """Why the spread between processes is unknown."""
    fewest = min(len(before), len(after))
    return f"{fewest} process{'' if fewest == 1 else 'es'} per side; at least {MIN_PROCESSES} are needed to judge speed"


def undecided(rounds: Rounds, threshold: float, family: int) -> str:
    """Why the rounds do not decide, and how many would."""
    if not threshold:
        return "no measurable difference, and a threshold of 0 is never met"
    before, after = rounds.baseline, rounds.candidate
    needed = processes_needed(before, after, threshold, family, paired=rounds.paired)
    if needed > min(len(before), len(after)):
        each = min(len(one) for one in (*before, *after))
        rounds_each = f"{each} round{'' if each == 1 else 's'}"
        return f"about {needed * each} rounds per side would decide ({needed} processes of {rounds_each})"
    return f"the change is too close to the threshold of {100 * threshold:.3g}%"
