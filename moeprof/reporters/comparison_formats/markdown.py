"""A comparison as GitHub-flavoured markdown, the default off a terminal."""

from moeprof.analysis.comparison.compare import Comparison
from moeprof.reporters.comparison_formats.document import document_of
from moeprof.reporters.formats.markdown import render_document


def render(comparison: Comparison) -> str:
    """The comparison as markdown text."""
    return render_document(document_of(comparison))
