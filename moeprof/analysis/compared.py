"""A whole comparison: pairs of subjects, their findings, and what a pipeline should make of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from moeprof.analysis.verdicts import Finding, Rules, findings, lonely
from moeprof.records.errors import UsageError
from moeprof.records.subject import Subject

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


def compare(baseline: str, before: Sequence[Subject], candidate: str, after: Sequence[Subject], rules: Rules) -> Comparison:
    """Subjects of the same recipe and command belong together; one that stands alone is new or removed as a whole."""
    for path, subjects in ((baseline, before), (candidate, after)):
        names = [(subject.recipe, subject.command) for subject in subjects]
        if repeated := [name for name in names if names.count(name) > 1]:
            raise UsageError(f"{path}: {repeated[0][0]} stands in it twice", "Give each recipe once.")
    ours = {(subject.recipe, subject.command): subject for subject in before}
    theirs = {(subject.recipe, subject.command): subject for subject in after}
    if len(ours) == len(theirs) == 1:  # two runs that were named: whatever differs between their recipes is said there
        return Comparison(baseline, candidate, findings(before[0], after[0], rules), rules)
    found: list[Finding] = []
    for name in [*theirs, *(name for name in ours if name not in theirs)]:
        if name in ours and name in theirs:
            found += findings(ours[name], theirs[name], rules)
        else:
            alone = ours.get(name) or theirs[name]
            for number in alone.numbers:
                if not rules.only or number.address[-1] in rules.only:
                    found.append(lonely(alone.recipe, *((number, None) if name in ours else (None, number))))
    return Comparison(baseline, candidate, found, rules)
