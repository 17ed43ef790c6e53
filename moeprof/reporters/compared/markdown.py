"""A comparison as GitHub-flavoured markdown: what a pipe receives."""

from moeprof.analysis.compared import Comparison
from moeprof.reporters.compared.document import document_of
from moeprof.reporters.markdown import render_document


def render(comparison: Comparison) -> str:
    """The whole document."""
    return render_document(document_of(comparison))
