"""A report as one HTML page that needs no network: `report.html`."""

from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from moeprof.records.run import Run
from moeprof.reporters.characterization import document_of
from moeprof.reporters.document import Document, Heading


def render(run: Run) -> str:
    """The whole page."""
    return render_document(document_of(run))


def render_document(document: Document) -> str:
    """Parts in order; whatever text they hold is escaped."""
    title = next((block.text for block in document if isinstance(block, Heading)), "moeprof")
    return template().render(title=title, blocks=document, kind_of=lambda block: type(block).__name__, tint=tint)


def tint(value: float, top: float) -> int:
    """Opacity of a heat map's cell in percent; only an exact zero is empty."""
    return 0 if value <= 0 or top <= 0 else round(8 + 92 * min(value / top, 1.0))


@cache
def template() -> Template:
    """The page, with escaping on and unknown names refused."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("report.html.j2")
