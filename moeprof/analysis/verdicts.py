"""Metric by metric, what got better or worse between two subjects, and what cannot be said."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from moeprof.analysis.significance import ALPHA, fewest_rounds, holm, p_value, ratio, ratio_interval, rounds_needed
from moeprof.records.metrics import KEYS, METRICS
from moeprof.records.subject import GATED, Address, Number, Subject

Verdict = Literal["better", "worse", "same", "inconclusive", "not comparable", "new", "removed"]

THRESHOLD = 0.05
"""A timed metric must change by more than this, whatever the test says."""


@dataclass(frozen=True)
class Finding:
    """One metric at one address on both sides."""

    recipe: str
    address: Address
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

    @property
    def metric(self) -> str:
        """The last of the key cells."""
        return self.address[-1]

    def key(self, name: str) -> str:
        """One of the key cells."""
        return self.address[KEYS.index(name)]

    @property
    def where(self) -> str:
        """`score, static, layer 3`: the cells that are not empty, workload and metric left out."""
        plain = ("phase", "domain", "variant", "point")
        cells = [self.key(name) for name in plain] + [
            f"{name} {self.key(name)}" for name in ("rank", "layer", "region", "category") if self.key(name)
        ]
        return ", ".join(cell for cell in cells if cell)


@dataclass(frozen=True)
class Rules:
    """What a comparison is told to do."""

    thresholds: Mapping[str, float]
    """By metric; a metric that is not in it has THRESHOLD where it is timed, 0 elsewhere."""
    only: Sequence[str] = ()
    """Metrics to look at; all where empty."""
    allow_machine_mismatch: bool = False

    def threshold(self, number: Number) -> float:
        """The relative change that a metric may show without being better or worse."""
        return self.thresholds.get(number.address[-1], THRESHOLD if number.kind == "timed" else 0.0)


def findings(baseline: Subject, candidate: Subject, rules: Rules) -> list[Finding]:
    """All of them, in the order of the candidate's numbers, then what it lacks."""
    before, after = baseline.by_address, candidate.by_address
    obstacle = why_not(baseline, candidate)
    machine = "" if rules.allow_machine_mismatch else another_machine(baseline, candidate)
    found = []
    for address in [*after, *(address for address in before if address not in after)]:
        if rules.only and address[-1] not in rules.only:
            continue
        ours, theirs = before.get(address), after.get(address)
        if ours is None or theirs is None:
            found.append(lonely(candidate.recipe, ours, theirs))
            continue
        blank = Finding(
            candidate.recipe,
            address,
            theirs.unit,
            theirs.kind,
            "not comparable",
            ours.value,
            theirs.value,
            change=change(ours, theirs),
        )
        reason = obstacle or number_obstacle(ours, theirs, machine, routing_differs(baseline, candidate, address))
        found.append(replace(blank, why=reason) if reason else judged(blank, ours, theirs, rules))
    return corrected(found, before, after, rules)


def lonely(recipe: str, ours: Number | None, theirs: Number | None) -> Finding:
    """Of a number that one side has."""
    one = theirs or ours
    assert one is not None
    verdict: Verdict = "new" if ours is None else "removed"
    values = (ours.value if ours else None, theirs.value if theirs else None)
    return Finding(recipe, one.address, one.unit, one.kind, verdict, *values)


def change(ours: Number, theirs: Number) -> float | None:
    """Relative; None where the baseline is 0 and the candidate is not."""
    if ours.value == 0:
        return 0.0 if theirs.value == 0 else None
    return theirs.value / ours.value - 1


def why_not(baseline: Subject, candidate: Subject) -> str:
    """Why nothing of the two can be compared; empty where it can."""
    for name, subject in (("baseline", baseline), ("candidate", candidate)):
        if not subject.valid:
            return f"the {name} is not valid: {'; '.join(subject.reasons) or 'no reason given'}"
    if baseline.command != candidate.command:
        return f"another command: {baseline.command}, {candidate.command}"
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


def another_machine(baseline: Subject, candidate: Subject) -> str:
    """What differs between the machines; empty where nothing does."""
    keys = differing(baseline.machine, candidate.machine)
    told = [f"{key} {baseline.machine.get(key) or 'none'}, {candidate.machine.get(key) or 'none'}" for key in keys]
    return f"another machine: {'; '.join(told)}" if told else ""


def routing_differs(baseline: Subject, candidate: Subject, address: Address) -> bool:
    """Whether the routers decided otherwise where a number comes from."""
    phase, variant = address[KEYS.index("phase")], address[KEYS.index("variant")]
    if baseline.command == "replay":  # its caches enter a phase as the one before has left them
        phase = ""
    wanted = [name for name in {**baseline.routing, **candidate.routing} if phase in ("", name.partition("/")[0])]
    mine = [name for name in wanted if name.partition("/")[2] == variant] or wanted
    return any(baseline.routing.get(name) != candidate.routing.get(name) for name in mine)


def number_obstacle(ours: Number, theirs: Number, machine: str, other_routing: bool) -> str:
    """Why this number cannot be compared; empty where it can."""
    if (ours.unit, ours.kind) != (theirs.unit, theirs.kind):
        return f"its unit or kind changed: {ours.unit} ({ours.kind}), {theirs.unit} ({theirs.kind})"
    if theirs.address[-1] not in METRICS:
        return "this moeprof does not know the metric"
    if theirs.kind == "timed":
        return machine
    return "the routing is another one" if theirs.kind == "routed" and other_routing else ""


def judged(blank: Finding, ours: Number, theirs: Number, rules: Rules) -> Finding:
    """By value; of timed metrics only what no test is needed for, the gated ones are corrected together later."""
    gate = theirs.kind != "timed" and METRICS[theirs.address[-1]].better != "neither"
    if theirs.kind == "timed":
        return replace(blank, verdict="inconclusive", why="described, not gated")
    size = abs(blank.change) if blank.change is not None else float("inf")
    if size <= rules.threshold(theirs):
        return replace(blank, verdict="same", gated=gate)
    if not gate:
        return replace(blank, verdict="not comparable", why="it changed, and neither way is better")
    return replace(blank, verdict=direction(theirs, ours.value, theirs.value), gated=True)


def direction(number: Number, before: float, after: float) -> Verdict:
    """Better or worse."""
    return "better" if (after > before) == (METRICS[number.address[-1]].better == "higher") else "worse"


def in_family(finding: Finding) -> bool:
    """Throughput of a workload, phase and variant; parts of it are only described."""
    return finding.metric == GATED and not any(finding.key(name) for name in ("domain", "point", "rank", "layer", "region"))


def corrected(
    found: list[Finding], before: Mapping[Address, Number], after: Mapping[Address, Number], rules: Rules
) -> list[Finding]:
    """The gated timed metrics decided together."""
    family = {one.address: one for one in found if in_family(one) and one.verdict == "inconclusive"}
    told = dict(tested(family.values(), before, after, rules))
    return [told.get(one.address, one) for one in found]


def tested(
    family: Collection[Finding], before: Mapping[Address, Number], after: Mapping[Address, Number], rules: Rules
) -> Iterator[tuple[Address, Finding]]:
    """Rank test with Holm's correction, a size threshold, and the interval of the ratio."""
    rounds = {one.address: (pooled(before[one.address]), pooled(after[one.address])) for one in family}
    p_values = holm({address: p_value(*sides) for address, sides in rounds.items() if all(map(len, sides))})
    for one in family:
        sides, threshold = rounds[one.address], rules.threshold(after[one.address])
        if one.address not in p_values:
            yield one.address, replace(one, verdict="not comparable", why="a side has no raw samples")
            continue
        size = ratio(*sides) - 1
        low, high = ratio_interval(*sides)
        whole = replace(one, gated=True, change=size, interval=(low - 1, high - 1), p=p_values[one.address], why="")
        if whole.p is not None and whole.p < ALPHA and abs(size) > threshold:
            yield one.address, replace(whole, verdict=direction(after[one.address], 0, size))
        elif -threshold < low - 1 and high - 1 < threshold and min(map(len, sides)) >= fewest_rounds(len(p_values)):
            yield one.address, replace(whole, verdict="same")
        else:
            yield one.address, replace(whole, why=undecided(*sides, threshold or abs(size), len(p_values)))


def undecided(baseline: Sequence[float], candidate: Sequence[float], threshold: float, family: int) -> str:
    """Why the rounds do not tell, and how many would."""
    if not threshold:
        return "the two are alike, and no change is small enough for a threshold of 0"
    needed = rounds_needed(baseline, candidate, threshold, family)
    if needed > min(len(baseline), len(candidate)):
        return f"about {needed} rounds a side would tell"
    return f"it lies about as far off as the threshold of {threshold:.3g}"


def pooled(number: Number) -> list[float]:
    """The rounds of all processes."""
    return [value for rounds in number.samples for value in rounds]
