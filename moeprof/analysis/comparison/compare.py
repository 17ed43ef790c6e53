"""A comparison: pairs of measurements, their findings, and the exit code for CI."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from moeprof.analysis.comparison.measurement import Measurement
from moeprof.analysis.comparison.verdicts import Finding, Rules, differing, findings, in_turns, one_sided, short
from moeprof.records.errors import UsageError
from moeprof.records.run.machine_load import MachineLoad, busiest

FINE, REGRESSION, UNDECIDED = 0, 3, 4
"""Exit codes of `moeprof compare`."""


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison, which every format renders."""

    baseline: str
    """The name that the user gave."""
    candidate: str
    findings: Sequence[Finding]
    rules: Rules
    remarks: Sequence[str] = ()
    """Differences between the sides that do not prevent the comparison."""
    machine_load: MachineLoad | None = None
    """What else the machine did, on the side where it did more."""
    repeat: str = ""
    """The command that prints all of it; empty if it is not known."""

    @property
    def gated(self) -> list[Finding]:
        """Findings that CI may fail on."""
        return [one for one in self.findings if one.gated]

    def of(self, verdict: str) -> list[Finding]:
        """Gated findings with a verdict, or all of them if it is `new`, `removed` or `not comparable`, which are never gated."""
        chosen = self.findings if verdict in ("new", "removed", "not comparable") else self.gated
        return [one for one in chosen if one.verdict == verdict]

    def exit_code(self, *, strict: bool) -> int:
        """3 if anything is worse; 4 if nothing was comparable or, with `strict`, if anything is undecided; else 0."""
        if self.of("worse"):
            return REGRESSION
        undecided = self.of("inconclusive") or self.of("not comparable") or self.of("removed")
        return UNDECIDED if not self.gated or (strict and undecided) else FINE


def compare(
    baseline: str, before: Sequence[Measurement], candidate: str, after: Sequence[Measurement], rules: Rules
) -> Comparison:
    """Pairs measurements by recipe and command; one without a partner is new or removed as a whole."""
    for path, subjects in ((baseline, before), (candidate, after)):
        names = [subject.subject for subject in subjects]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise UsageError(f"{path}: contains {repeated[0][0]} twice", "Pass each recipe once.")
    ours = {subject.subject: subject for subject in before}
    theirs = {subject.subject: subject for subject in after}
    if len(ours) == len(theirs) == 1:  # two named runs: any difference between their recipes is a finding
        theirs = dict(zip(ours, theirs.values(), strict=True))
    pairs = [(ours[name], subject) for name, subject in theirs.items() if name in ours]
    found = findings(pairs, rules)
    alone = [(theirs[name], False) for name in theirs if name not in ours] + [
        (ours[name], True) for name in ours if name not in theirs
    ]
    for subject, removed in alone:
        for number in subject.numbers:
            if not rules.only or number.address.metric in rules.only:
                found.append(one_sided(subject, *((number, None) if removed else (None, number))))
    remarked = [remark for pair in pairs for remark in remarks(*pair)]
    return Comparison(baseline, candidate, found, rules, remarked, busiest(one.machine_load for pair in pairs for one in pair))


def remarks(baseline: Measurement, candidate: Measurement) -> Iterator[str]:
    """Differing versions of packages and, in an A/B test, the differences that are under test."""
    sides: list[tuple[dict[str, Any], dict[str, Any]]] = [(baseline.packages, candidate.packages)]
    if in_turns(baseline, candidate):
        sides.append((baseline.settings, candidate.settings))
        if baseline.weights != candidate.weights:
            yield f"{candidate.recipe}: different weights, {short(baseline.weights)} and {short(candidate.weights)}"
        if keys := differing(baseline.texts, candidate.texts):
            yield f"{candidate.recipe}: different texts, {', '.join(keys)}"
    for before, after in sides:
        for key in differing(before, after):
            yield f"{candidate.recipe}: {key} {value_at(before, key)}, {value_at(after, key)}"


def value_at(document: dict[str, Any], path: str) -> str:
    """The value at `section.key`; `none` if there is none."""
    value: Any = document
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return "none" if value is None else str(value)
