"""A comparison as GitHub-flavoured markdown: what a pipe receives."""

from moeprof.analysis.comparison.compare import Comparison
from moeprof.reporters.comparison_formats.document import document_of
from moeprof.reporters.formats.markdown import render_document


def render(comparison: Comparison) -> str:
    """The whole document."""
    return render_document(document_of(comparison))
