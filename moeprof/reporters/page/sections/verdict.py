"""The answer of the run, first on the page."""

from collections.abc import Iterator

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.run.run import Run
from moeprof.reporters.documents.answers.registry import answer_of
from moeprof.reporters.documents.document import Bullets, Details, Paragraph
from moeprof.reporters.documents.report import parts_of
from moeprof.reporters.page.blocks import AnswerBlock, PageBlock


def verdict(run: Run, metrics: RunMetrics) -> Iterator[PageBlock]:
    """The answer, further statements, and notes of the run."""
    if not run.record.valid:
        yield Paragraph(f"THIS RUN IS NOT VALID: {'; '.join(run.record.reasons)}. The numbers that it recorded follow.")
    yield AnswerBlock(answer_of(run, metrics))
    if lines := parts_of(run)[1]:
        yield Details("All statements", [Bullets(lines)])
    if run.record.notes:
        yield Details(f"Notes ({len(run.record.notes)})", [Bullets(run.record.notes)])
