"""Metric by metric, what got better or worse between two subjects, and what cannot be said."""

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
"""A timed metric must change by more than this, whatever the test says."""


@dataclass(frozen=True)
class Finding:
    """One metric at one address on both sides."""

    recipe: str
    command: str
    address: RowKey
    unit: str
    kind: str
    verdict: Verdict
    baseline: float | None = None
    candidate: float | None = None
    gated: bool = False
    """Whether a pipeline may fail on it."""
    change: float | None = None
    """Candidate over baseline, minus 1."""
    interval: tuple[float, float] | None = None
    """95% bootstrap interval of the change."""
    p: float | None = None
    """Corrected for the family."""
    why: str = ""
    spread: tuple[float | None, float | None] | None = None
    """From process to process, relative, of baseline and candidate; None where a side has one process."""
    rounds: "Rounds | None" = field(default=None, repr=False, compare=False)
    """What a test needs."""

    @property
    def metric(self) -> str:
        """The name of the metric."""
        return self.address.metric

    @property
    def where(self) -> str:
        """`score, static, layer 3`: the cells that are not empty, workload and metric left out."""
        key = self.address
        plain = (key.phase, key.domain, key.variant, key.point)
        named = {"rank": key.rank, "layer": key.layer, "region": key.region, "category": key.category}
        return ", ".join(filter(None, [*plain, *(f"{name} {cell}" for name, cell in named.items() if cell)]))


@dataclass(frozen=True)
class Rounds:
    """Raw samples of both sides, a list per process."""

    baseline: ProcessRounds
    candidate: ProcessRounds
    paired: bool
    """Whether round i of process j of one side ran beside that of the other."""


@dataclass(frozen=True)
class Rules:
    """What a comparison is told to do."""

    thresholds: Mapping[str, float]
    """By metric; a metric that is not in it has THRESHOLD where it is timed, 0 elsewhere."""
    only: Sequence[str] = ()
    """Metrics to look at; all where empty."""
    allow_machine_mismatch: bool = False

    def threshold(self, metric: str, kind: str) -> float:
        """The relative change that a metric may show without being better or worse."""
        return self.thresholds.get(metric, THRESHOLD if kind == "timed" else 0.0)


def findings(pairs: Sequence[tuple[Measurement, Measurement]], rules: Rules) -> list[Finding]:
    """Of baselines and candidates: in the order of each candidate's numbers, then what it lacks.

    The gated times of all pairs are one family.
    """
    return corrected([one for baseline, candidate in pairs for one in described(baseline, candidate, rules)], rules)


def described(baseline: Measurement, candidate: Measurement, rules: Rules) -> Iterator[Finding]:
    """Of one pair; the gated times still inconclusive, with the rounds that will decide them."""
    before, after = baseline.by_address, candidate.by_address
    obstacle = why_not(baseline, candidate, meant=in_turns(baseline, candidate))
    machine = "" if rules.allow_machine_mismatch else another_machine(baseline, candidate)
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
    """Whether both come from one measurement, process by process."""
    return bool(candidate.turns) and baseline.turns == candidate.turns


def alike(ours: Number, theirs: Number) -> bool:
    """Whether every round of one has its counterpart."""
    return list(map(len, ours.samples)) == list(map(len, theirs.samples))


def one_sided(subject: Measurement, ours: Number | None, theirs: Number | None) -> Finding:
    """Of a number that one side has; `subject` is either."""
    one = theirs or ours
    assert one is not None
    verdict: Verdict = "new" if ours is None else "removed"
    values = (ours.value if ours else None, theirs.value if theirs else None)
    return Finding(subject.recipe, subject.command, one.address, one.unit, one.kind, verdict, *values)


def change(ours: Number, theirs: Number) -> float | None:
    """Relative; None where the baseline is 0 and the candidate is not."""
    if ours.value == 0:
        return 0.0 if theirs.value == 0 else None
    return theirs.value / ours.value - 1


def why_not(baseline: Measurement, candidate: Measurement, *, meant: bool) -> str:
    """Why nothing of the two can be compared; empty where it can, and where what differs is what was to be compared."""
    for name, subject in (("baseline", baseline), ("candidate", candidate)):
        if not subject.valid:
            return f"the {name} is not valid: {'; '.join(subject.reasons) or 'no reason given'}"
    if baseline.command != candidate.command:
        return f"another command: {baseline.command}, {candidate.command}"
    if meant:
        return ""
    if keys := differing(baseline.settings, candidate.settings):
        what = "other settings" if baseline.command == "replay" else "another recipe"
        return f"{what}: {', '.join(keys[:3])}" + (f" and {len(keys) - 3} more keys" if len(keys) > 3 else "")
    for domain in {**baseline.texts, **candidate.texts}:
        if baseline.texts.get(domain) != candidate.texts.get(domain):
            return f"another text {domain!r}: {short(baseline.texts.get(domain))}, {short(candidate.texts.get(domain))}"
    if baseline.weights != candidate.weights:
        return f"other weights: {short(baseline.weights)}, {short(candidate.weights)}"
    return ""


def differing(one: Any, other: Any, path: str = "") -> list[str]:
    """Keys at which two documents differ, `section.key`."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            found
            for key in dict.fromkeys([*one, *other])
            for found in differing(one.get(key), other.get(key), f"{path}.{key}" if path else str(key))
        ]
    return [] if one == other else [path]


def short(digest: str | None) -> str:
    """The beginning of a hash."""
    return (digest or "none")[:12]


def another_machine(baseline: Measurement, candidate: Measurement) -> str:
    """What differs between the machines; empty where nothing does."""
    keys = differing(baseline.machine, candidate.machine)
    told = [f"{key} {baseline.machine.get(key) or 'none'}, {candidate.machine.get(key) or 'none'}" for key in keys]
    return f"another machine: {'; '.join(told)}" if told else ""


def routing_differs(baseline: Measurement, candidate: Measurement, key: RowKey) -> bool:
    """Whether the routers decided otherwise where a number comes from."""
    phase = "" if baseline.command == "replay" else key.phase  # a replayed phase starts with the caches of the one before
    wanted = [name for name in {**baseline.routing, **candidate.routing} if phase in ("", name.partition("/")[0])]
    mine = [name for name in wanted if name.partition("/")[2] == key.variant] or wanted
    return any(baseline.routing.get(name) != candidate.routing.get(name) for name in mine)


def number_obstacle(ours: Number, theirs: Number, machine: str, other_routing: bool) -> str:
    """Why this number cannot be compared; empty where it can."""
    if (ours.unit, ours.kind) != (theirs.unit, theirs.kind):
        return f"its unit or kind changed: {ours.unit} ({ours.kind}), {theirs.unit} ({theirs.kind})"
    if theirs.address.metric not in METRICS:
        return "this moeprof does not know the metric"
    if theirs.kind == "timed":
        return machine
    return "the routing is another one" if theirs.kind == "routed" and other_routing else ""


def judged(blank: Finding, ours: Number, theirs: Number, rules: Rules) -> Finding:
    """By value; of timed metrics only what no test is needed for, the gated ones are corrected together later."""
    gate = theirs.kind != "timed" and METRICS[theirs.address.metric].better != "neither"
    if is_gated(blank.address) and not (ours.samples and theirs.samples):
        return replace(blank, why="a side has no raw samples")
    if theirs.kind == "timed":
        return replace(blank, verdict="inconclusive", why="described, not gated")
    size = abs(blank.change) if blank.change is not None else float("inf")
    if size <= rules.threshold(blank.metric, blank.kind):
        return replace(blank, verdict="same", gated=gate)
    if not gate:
        return replace(blank, verdict="not comparable", why="it changed, and neither way is better")
    return replace(blank, verdict=direction(blank.metric, ours.value, theirs.value), gated=True)


def direction(metric: str, before: float, after: float) -> Verdict:
    """Better or worse."""
    return "better" if (after > before) == (METRICS[metric].better == "higher") else "worse"


def corrected(found: Sequence[Finding], rules: Rules) -> list[Finding]:
    """The gated times decided together: the tests with Holm's correction, a size threshold, and the ratio's interval."""
    family = {
        index: one.rounds
        for index, one in enumerate(found)
        if one.rounds is not None and is_gated(one.address) and one.verdict == "inconclusive"
    }
    p_values = holm({index: p_value(sides.baseline, sides.candidate, paired=sides.paired) for index, sides in family.items()})
    return [tested(one, p_values[index], len(family), rules) if index in family else one for index, one in enumerate(found)]


def tested(finding: Finding, p: float, family: int, rules: Rules) -> Finding:
    """One of the family, decided by its corrected p value, its size, and the number of its processes."""
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
    """What a side lacks that was recorded once."""
    fewest = min(len(before), len(after))
    return f"recorded in {fewest} process{'' if fewest == 1 else 'es'} a side, {MIN_PROCESSES} or more show how much two of them differ"


def undecided(rounds: Rounds, threshold: float, family: int) -> str:
    """Why the rounds do not tell, and how many would."""
    if not threshold:
        return "the two are alike, and no change is small enough for a threshold of 0"
    before, after = rounds.baseline, rounds.candidate
    needed = processes_needed(before, after, threshold, family, paired=rounds.paired)
    if needed > min(len(before), len(after)):
        each = min(len(one) for one in (*before, *after))
        return f"about {needed * each} rounds a side would tell, {each} in each of {needed} processes"
    return f"it lies about as far off as the threshold of {threshold:.3g}"
