"""A comparison for GitHub Actions: a summary of the job, and annotations, which are commands on its log."""

from collections.abc import Iterator

from moeprof.analysis.comparison.compare import UNDECIDED, Comparison
from moeprof.reporters.comparison_formats.document import document_of
from moeprof.reporters.comparison_formats.verdict import ranked, sentence
from moeprof.reporters.comparison_formats.words import one_line, place, told
from moeprof.reporters.documents.document import Details, Document, Paragraph
from moeprof.reporters.formats.markdown import render_document

SUMMARY_BYTES = 1024 * 1024
"""GitHub drops a step's summary that is larger."""

ANNOTATIONS = 10
"""GitHub shows as many of each level per step, and drops the rest without a word."""

LEVELS = {"worse": "error", "inconclusive": "warning", "better": "notice"}

ESCAPES = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
PROPERTY_ESCAPES = ESCAPES | str.maketrans({":": "%3A", ",": "%2C"})


def summary(comparison: Comparison) -> str:
    """Markdown to append to the file that $GITHUB_STEP_SUMMARY names; what is folded is left out where it does not fit."""
    document = document_of(comparison)
    text = render_document(document)
    return text if len(text.encode()) <= SUMMARY_BYTES else render_document(shortened(document))


def shortened(document: Document) -> Document:
    """Without what is folded: what remains has bounds of its own."""
    kept = [block for block in document if not isinstance(block, Details)]
    return [*kept, Paragraph("Tables of what did not change are left out: GitHub takes no summary beyond 1 MiB.")]


def annotations(comparison: Comparison) -> str:
    """A command a line, to print on stdout; empty where there is nothing to say."""
    lines = [*overall(comparison), *(line for verdict in LEVELS for line in of_level(comparison, verdict))]
    return "".join(f"{line}\n" for line in lines)


def overall(comparison: Comparison) -> Iterator[str]:
    """An error where nothing was decided."""
    if comparison.exit_code(strict=False) == UNDECIDED:
        yield command("error", "moeprof compare", sentence(comparison))


def of_level(comparison: Comparison, verdict: str) -> Iterator[str]:
    """The largest changes first; the last line counts those that GitHub would drop."""
    found = ranked(comparison.of(verdict))
    shown = found if len(found) <= ANNOTATIONS else found[: ANNOTATIONS - 1]
    for one in shown:
        yield command(LEVELS[verdict], f"{one_line(one.metric)}: {verdict}", f"{place(one)}: {told(one)}")
    if left := len(found) - len(shown):
        yield command(LEVELS[verdict], f"{left} more: {verdict}", f"{left} more metrics are {verdict}; the summary lists them.")


def command(level: str, title: str, message: str) -> str:
    """A workflow command, escaped as the runner unescapes it."""
    return f"::{level} title={title.translate(PROPERTY_ESCAPES)}::{message.translate(ESCAPES)}"
