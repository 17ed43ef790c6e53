"""The report on a run: a summary of at most ten lines, then each phase, then provenance."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from moeprof.analysis.run_metrics import RunMetrics, of_replay
from moeprof.records.run.run import Run
from moeprof.reporters.documents import balance, characterization, comparison, offloading, replay, trace
from moeprof.reporters.documents.answer import RunAnswer
from moeprof.reporters.documents.answers.registry import answer_of
from moeprof.reporters.documents.document import Block, Bullets, Document, Heading, Paragraph, Table
from moeprof.reporters.documents.summary import summary
from moeprof.reporters.documents.verdict import verdict
from moeprof.reporters.sections.provenance import provenance
from moeprof.reporters.sections.traffic import link_blocks

PHASE_TITLES = {
    "score": "score: whole sequences in one pass",
    "encode": "encode: source sentences in one pass",
    "decode": "decode: token by token",
}


@dataclass(frozen=True)
class ReportLayout:
    """How the runs of one command are reported."""

    title: str
    lines: Callable[[Run, RunMetrics], list[str]]
    """The summary, at most ten lines."""
    phase_blocks: Callable[[Run, RunMetrics, str], Iterator[Block]]


KINDS = {
    "characterize": ReportLayout("Summary", summary, characterization.phase_blocks),
    "optimize": ReportLayout("Verdict", verdict, comparison.phase_blocks),
}
"""By command; a run of a model under another command is reported as a characterization."""


def document_of(run: Run) -> Document:
    """All blocks in order; parts that were not recorded are named."""
    title, lines, body = parts_of(run)
    document: Document = [Heading(f"moeprof {run.record.command}: {run.record.name}", 1)]
    if not run.record.valid:
        document.append(
            Paragraph(f"THIS RUN IS NOT VALID: {'; '.join(run.record.reasons)}. The numbers that it recorded follow.")
        )
    document += [Heading(title), Bullets(lines)] if lines else []
    if run.record.notes:
        document += [Heading("Notes", 3), Bullets(run.record.notes)]
    origin = [*provenance(run), *timeline_block(run), *link_blocks(RunMetrics.of(run))]
    return [*document, *body, Heading("Where the numbers come from"), *origin]


def timeline_block(run: Run) -> Iterator[Block]:
    """Where the profiler traces of `--timeline` are, and how to open them; nothing without any."""
    found = sorted((run.path / "timeline").glob("*"))
    if found:
        name = found[0].name if len(found) == 1 else f"*{''.join(found[0].suffixes[-4:])}"
        yield Paragraph(
            f"Timeline: {run.path / 'timeline' / name} (open in https://ui.perfetto.dev, or in TensorBoard with torch-tb-profiler)"
        )


def document_of_all(runs: Sequence[Run]) -> Document:
    """The reports of the runs; of several, the verdicts come first, in one table."""
    overview: Document = []
    if len(runs) > 1:
        rows = [[str(run.path), answer_to(run).sentence] for run in runs]
        overview = [Heading(f"{len(runs)} runs", 1), Table(["run", "verdict"], rows, labels=2)]
    return [*overview, *(block for run in runs for block in document_of(run))]


def answer_to(run: Run) -> RunAnswer:
    """The answer of a run of any kind."""
    return answer_of(run, metrics_of(run))


def metrics_of(run: Run) -> RunMetrics:
    """The numbers of a run of any kind, as its reports read them."""
    return of_replay(run) if run.record.replay or run.record.balance else RunMetrics.of(run)


Parts = tuple[str, list[str], Iterable[Block]]
"""The title of the summary, its lines, and the blocks after it."""


def parts_of(run: Run) -> Parts:
    """The parts of a run, by what it is."""
    if run.record.characterization:
        metrics = RunMetrics.of(run)
        return "Summary", trace.summary(run, metrics), trace.body(run, metrics)
    return model_parts(run) if run.record.recipe else replay_parts(run)


def replay_parts(run: Run) -> Parts:
    """The parts of a replay."""
    kinds = {"replay": replay, "balance": balance, "offloading": offloading}
    results, kind = metrics_of(run), kinds[run.record.origin]
    return "Summary", kind.summary(results), kind.body(results)


def model_parts(run: Run) -> Parts:
    """The parts of a run of a model."""
    metrics = RunMetrics.of(run)
    kind = KINDS.get(run.record.command, KINDS["characterize"])
    return kind.title, kind.lines(run, metrics), phases(run, metrics, kind)


def phases(run: Run, metrics: RunMetrics, kind: ReportLayout) -> Iterator[Block]:
    """The blocks of every phase, each with its heading."""
    for phase in run.record.ran.phases:
        nothing = [Paragraph("Nothing was recorded in this phase.")]
        yield Heading(f"Phase {PHASE_TITLES[phase]}")
        yield from kind.phase_blocks(run, metrics, phase) if phase in metrics.phases else nothing
