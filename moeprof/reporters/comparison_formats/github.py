"""A comparison for GitHub Actions: a job summary, and annotations (workflow commands in the log)."""

from collections.abc import Iterator

from moeprof.analysis.comparison.compare import UNDECIDED, Comparison
from moeprof.reporters.comparison_formats.document import document_of
from moeprof.reporters.comparison_formats.verdict import ranked, sentence
from moeprof.reporters.comparison_formats.words import described, one_line, place
from moeprof.reporters.documents.document import Details, Document, Paragraph
from moeprof.reporters.formats.markdown import render_document

SUMMARY_BYTES = 1024 * 1024
"""GitHub drops larger step summaries."""

ANNOTATIONS = 10
"""GitHub shows this many annotations per level and step, and silently drops the rest."""

LEVELS = {"worse": "error", "inconclusive": "warning", "better": "notice"}

ESCAPES = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
PROPERTY_ESCAPES = ESCAPES | str.maketrans({":": "%3A", ",": "%2C"})


def summary(comparison: Comparison) -> str:
    """Markdown to append to $GITHUB_STEP_SUMMARY; folded tables are omitted if it is too large."""
    document = document_of(comparison)
    text = render_document(document)
    return text if len(text.encode()) <= SUMMARY_BYTES else render_document(shortened(document))


def shortened(document: Document) -> Document:
    """The document without folded tables, whose size is bounded."""
    kept = [block for block in document if not isinstance(block, Details)]
    return [*kept, Paragraph("Tables of unchanged metrics are omitted: GitHub accepts no summary over 1 MiB.")]


def annotations(comparison: Comparison) -> str:
    """Workflow commands for stdout, one per line; empty if no finding needs one."""
    lines = [*overall(comparison), *(line for verdict in LEVELS for line in of_level(comparison, verdict))]
    return "".join(f"{line}\n" for line in lines)


def overall(comparison: Comparison) -> Iterator[str]:
    """An error if nothing was decided."""
    if comparison.exit_code(strict=False) == UNDECIDED:
        yield command("error", "moeprof compare", sentence(comparison))


def of_level(comparison: Comparison, verdict: str) -> Iterator[str]:
    """Commands of one level, largest changes first; the last one counts those that GitHub would drop."""
    found = ranked(comparison.of(verdict))
    shown = found if len(found) <= ANNOTATIONS else found[: ANNOTATIONS - 1]
    for one in shown:
        yield command(LEVELS[verdict], f"{one_line(one.metric)}: {verdict}", f"{place(one)}: {described(one)}")
    if left := len(found) - len(shown):
        yield command(LEVELS[verdict], f"{left} more: {verdict}", f"{left} more metrics are {verdict}; the summary lists them.")


def command(level: str, title: str, message: str) -> str:
    """A workflow command, with the escapes that the runner decodes."""
    return f"::{level} title={title.translate(PROPERTY_ESCAPES)}::{message.translate(ESCAPES)}"
