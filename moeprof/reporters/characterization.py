"""What a characterization says: a summary first, then each phase, then where the numbers come from."""

from collections.abc import Iterator

from moeprof.records.run import Run
from moeprof.reporters.document import Block, Bullets, Document, Heading, Paragraph
from moeprof.reporters.numbers import Numbers
from moeprof.reporters.sections.experts import expert_blocks
from moeprof.reporters.sections.locality import locality_blocks
from moeprof.reporters.sections.memory import memory_blocks
from moeprof.reporters.sections.provenance import provenance
from moeprof.reporters.sections.quality import quality_blocks
from moeprof.reporters.sections.speed import breakdown_blocks, speed_table
from moeprof.reporters.summary import summary

PHASE_TITLES = {
    "score": "score: whole sequences in one pass",
    "encode": "encode: source sentences in one pass",
    "decode": "decode: token by token",
}


def document_of(run: Run) -> Document:
    """All parts, in order."""
    numbers = Numbers.of(run)
    recipe = run.record.recipe
    document: Document = [Heading(f"moeprof {run.record.command}: {recipe.name}", 1)]
    if not run.record.valid:
        document.append(Paragraph(f"THIS RUN IS NOT VALID: {'; '.join(run.record.reasons)}. What it recorded follows."))
    document += [Heading("Summary"), Bullets(summary(run, numbers))]
    if run.record.notes:
        document += [Heading("Remarks", 3), Bullets(run.record.notes)]
    for phase in recipe.phases:
        document += [Heading(f"Phase {PHASE_TITLES[phase]}"), *phase_blocks(run, numbers, phase)]
    return [*document, Heading("Where the numbers come from"), *provenance(run)]


def phase_blocks(run: Run, numbers: Numbers, phase: str) -> Iterator[Block]:
    """Speed, time, memory, experts, locality; what was not recorded is said."""
    if not numbers.recorded(phase):
        yield Paragraph("Nothing was recorded in this phase.")
        return
    trace = run.trace(phase)
    yield speed_table(numbers, phase)
    yield from quality_blocks(numbers, phase)
    yield from breakdown_blocks(run, numbers, phase)
    yield from memory_blocks(numbers, phase)
    yield from expert_blocks(trace, numbers, phase)
    yield from locality_blocks(trace, numbers, phase)
