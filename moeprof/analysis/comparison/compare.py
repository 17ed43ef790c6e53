"""A whole comparison: pairs of subjects, their findings, and what a pipeline should make of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from moeprof.analysis.comparison.measurement import Measurement
from moeprof.analysis.comparison.verdicts import Finding, Rules, differing, findings, in_turns, one_sided, short
from moeprof.records.errors import UsageError

FINE, REGRESSION, UNDECIDED = 0, 3, 4
"""Exit codes."""


@dataclass(frozen=True)
class Comparison:
    """What every format renders."""

    baseline: str
    """As the user named it."""
    candidate: str
    findings: Sequence[Finding]
    rules: Rules
    remarks: Sequence[str] = ()
    """What differs between the sides and kept nothing from being compared."""

    @property
    def gated(self) -> list[Finding]:
        """Those that a pipeline may fail on."""
        return [one for one in self.findings if one.gated]

    def of(self, verdict: str) -> list[Finding]:
        """Gated findings with a verdict; `new`, `removed` and `not comparable` are never gated."""
        chosen = self.findings if verdict in ("new", "removed", "not comparable") else self.gated
        return [one for one in chosen if one.verdict == verdict]

    def exit_code(self, *, strict: bool) -> int:
        """3 for anything worse; 4 where nothing could be compared, or under `strict` where something is undecided."""
        if self.of("worse"):
            return REGRESSION
        undecided = self.of("inconclusive") or self.of("not comparable") or self.of("removed")
        return UNDECIDED if not self.gated or (strict and undecided) else FINE


def compare(
    baseline: str, before: Sequence[Measurement], candidate: str, after: Sequence[Measurement], rules: Rules
) -> Comparison:
    """Subjects of the same recipe and command belong together; one that stands alone is new or removed as a whole."""
    for path, subjects in ((baseline, before), (candidate, after)):
        names = [(subject.recipe, subject.command) for subject in subjects]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise UsageError(f"{path}: {repeated[0][0]} stands in it twice", "Give each recipe once.")
    ours = {(subject.recipe, subject.command): subject for subject in before}
    theirs = {(subject.recipe, subject.command): subject for subject in after}
    if len(ours) == len(theirs) == 1:  # two runs that were named: whatever differs between their recipes is said there
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
    return Comparison(baseline, candidate, found, rules, [remark for pair in pairs for remark in remarks(*pair)])


def remarks(baseline: Measurement, candidate: Measurement) -> Iterator[str]:
    """Of one pair: other versions of libraries, and, of two that ran in turns, whatever else they were meant to differ in."""
    sides: list[tuple[dict[str, Any], dict[str, Any]]] = [(baseline.packages, candidate.packages)]
    if in_turns(baseline, candidate):
        sides.append((baseline.settings, candidate.settings))
        if baseline.weights != candidate.weights:
            yield f"{candidate.recipe}: other weights, {short(baseline.weights)} and {short(candidate.weights)}"
        if keys := differing(baseline.texts, candidate.texts):
            yield f"{candidate.recipe}: other texts, {', '.join(keys)}"
    for before, after in sides:
        for key in differing(before, after):
            yield f"{candidate.recipe}: {key} {value_at(before, key)}, {value_at(after, key)}"


def value_at(document: dict[str, Any], path: str) -> str:
    """What stands at `section.key`."""
    value: Any = document
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return "none" if value is None else str(value)
