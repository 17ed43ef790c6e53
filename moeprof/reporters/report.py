"""What a run says: its result in a few lines, then each phase, then where the numbers come from."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from moeprof.records.run import Run
from moeprof.reporters import characterization, comparison
from moeprof.reporters.document import Block, Bullets, Document, Heading, Paragraph
from moeprof.reporters.numbers import Numbers
from moeprof.reporters.sections.provenance import provenance
from moeprof.reporters.sections.traffic import link_blocks
from moeprof.reporters.summary import summary
from moeprof.reporters.verdict import verdict

PHASE_TITLES = {
    "score": "score: whole sequences in one pass",
    "encode": "encode: source sentences in one pass",
    "decode": "decode: token by token",
}


@dataclass(frozen=True)
class Kind:
    """How the runs of one command are told."""

    title: str
    lines: Callable[[Run, Numbers], list[str]]
    """At most ten."""
    phase_blocks: Callable[[Run, Numbers, str], Iterator[Block]]


KINDS = {
    "characterize": Kind("Summary", summary, characterization.phase_blocks),
    "optimize": Kind("Verdict", verdict, comparison.phase_blocks),
}
"""By command; a run of any other is told as a characterization."""


def document_of(run: Run) -> Document:
    """All parts, in order; what was not recorded is said."""
    numbers, recipe = Numbers.of(run), run.record.recipe
    kind = KINDS.get(run.record.command, KINDS["characterize"])
    document: Document = [Heading(f"moeprof {run.record.command}: {recipe.name}", 1)]
    if not run.record.valid:
        document.append(Paragraph(f"THIS RUN IS NOT VALID: {'; '.join(run.record.reasons)}. What it recorded follows."))
    document += [Heading(kind.title), Bullets(kind.lines(run, numbers))]
    if run.record.notes:
        document += [Heading("Remarks", 3), Bullets(run.record.notes)]
    for phase in recipe.phases:
        nothing = [Paragraph("Nothing was recorded in this phase.")]
        blocks = kind.phase_blocks(run, numbers, phase) if numbers.recorded(phase) else nothing
        document += [Heading(f"Phase {PHASE_TITLES[phase]}"), *blocks]
    return [*document, Heading("Where the numbers come from"), *provenance(run), *link_blocks(run, numbers)]
