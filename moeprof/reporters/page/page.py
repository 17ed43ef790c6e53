"""Assembles sections to the report page: one HTML file without references to anything outside, for one run or several side by side."""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from moeprof.records.marks import MarkedText, marked_numbers, pieces, unmarked
from moeprof.records.metrics.number import RecordedNumber, as_json
from moeprof.records.run.run import Run
from moeprof.reporters.cells import CellText
from moeprof.reporters.documents.document import Heading
from moeprof.reporters.documents.report import metrics_of
from moeprof.reporters.page.blocks import PageBlock
from moeprof.reporters.page.data_table import data_table
from moeprof.reporters.page.encoding import encoded, script_json
from moeprof.reporters.page.figure import Figure
from moeprof.reporters.page.palette import Palette, palette_of
from moeprof.reporters.page.sections.registry import SECTIONS

HERE = Path(__file__).parent
LIBRARY = "vendor/plotly-cartesian.min.js"
"""Draws the figures; unmodified."""
GLOBAL_FACETS = ("phase", "domain", "layer")
"""Selectors that the bar at the top sets for every figure that has them."""


@dataclass(frozen=True)
class RunPart:
    """What one run has in a section; `number` is the index of the run in the page."""

    number: int
    blocks: Sequence[PageBlock]


@dataclass(frozen=True)
class PagePart:
    """A section of the page with the runs that have it."""

    name: str
    title: str
    folded: bool
    runs: Sequence[RunPart]


def render(runs: Sequence[Run]) -> str:
    """The page of these runs, in their order."""
    with marked_numbers():
        parts = list(parts_of(runs))
    return page("moeprof: " + ", ".join(title_of(run) for run in runs), runs, parts)


def render_document(blocks: Sequence[PageBlock]) -> str:
    """Blocks that belong to no run, in a page of one part; a heading of level 1 becomes the title."""
    titles = [block.text for block in blocks if isinstance(block, Heading) and block.level == 1]
    rest = [block for block in blocks if not (isinstance(block, Heading) and block.level == 1)]
    return page(next(iter(titles), "moeprof"), [], [PagePart("document", "", False, [RunPart(0, rest)])])


def title_of(run: Run) -> str:
    """`optimize lm-tiny`: the command and what it ran."""
    return f"{run.record.command} {run.record.name}"


def names_of(runs: Sequence[Run]) -> list[str]:
    """The folder names of the runs, or their paths if two folders have the same name."""
    names = [run.path.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def parts_of(runs: Sequence[Run]) -> Iterator[PagePart]:
    """The sections for which any run has something to show."""
    metrics = [metrics_of(run) for run in runs]
    for section in SECTIONS:
        found = [
            RunPart(number, blocks)
            for number, (run, numbers) in enumerate(zip(runs, metrics, strict=True))
            if (blocks := list(section.build(run, numbers)))
        ]
        if found:
            yield PagePart(section.name, section.title, section.folded, found)


def page(title: str, runs: Sequence[Run], parts: Sequence[PagePart]) -> str:
    """The page with its style, its scripts, and the data of its figures."""
    scripts = [*([file_text(LIBRARY)] if figures_of(parts) else []), file_text("page.js")]
    return template().render(
        title=title,
        runs=runs,
        names=names_of(runs),
        parts=parts,
        style=file_text("page.css"),
        scripts=scripts,
        hashes=" ".join(f"'sha256-{digest(script)}'" for script in scripts),
        choices=choices_of(figures_of(parts), GLOBAL_FACETS),
        palette=palette_of(figures_of(parts)),
    )


def figures_of(parts: Iterable[PagePart]) -> list[Figure]:
    """All figures of the page; they are top-level blocks of their sections."""
    return [block for part in parts for run in part.runs for block in run.blocks if isinstance(block, Figure)]


def choices_of(figures: Iterable[Figure], only: Sequence[str] = ()) -> dict[str, list[str]]:
    """The choices of every facet of figures, in order; a facet with a single choice is left out."""
    found: dict[str, dict[str, None]] = {name: {} for name in only}
    for figure in figures:
        for view in figure.views:
            for name, choice in view.facets.items():
                if not only or name in only:
                    found.setdefault(name, {})[choice] = None
    return {name: list(choices) for name, choices in found.items() if len(choices) > 1}


def figure_data(figure: Figure, name: str, palette: Palette) -> str:
    """The data of a figure as the content of a script element, in which `<`, `>` and `&` are escaped."""
    return script_json(encoded(figure, name, palette))


def origin_json(number: object) -> str:
    """The origin of a number or of the text of a cell as JSON; empty if it has none."""
    return script_json(as_json(number.origin)) if isinstance(number, RecordedNumber | CellText) else ""


def value_of(number: object) -> str:
    """The value behind the text of a cell, or of a number, with all digits; empty if there is none."""
    if isinstance(number, CellText):
        return repr(number.value)
    return repr(float(number)) if isinstance(number, RecordedNumber) else ""


def with_origins(shown: Any) -> Any:
    """What the template shows: numbers in texts are elements with their origins; the rest stays."""
    if not isinstance(shown, str) or isinstance(shown, Markup):
        return shown
    return Markup("").join(number_element(piece) if isinstance(piece, MarkedText) else piece for piece in pieces(shown))


def number_element(number: MarkedText) -> Markup:
    """A number in a text."""
    element = Markup('<span data-origin="{}" data-value="{}">{}</span>')
    return element.format(number.origin, number.value, number.text)


def digest(script: str) -> str:
    """The hash by which a content security policy allows a script."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


@cache
def file_text(name: str) -> str:
    """A file of this package."""
    return (HERE / name).read_text(encoding="utf-8")


@cache
def template() -> Template:
    """The page template; it escapes text and rejects undefined names."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=with_origins,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["unmarked"] = unmarked
    environment.globals |= {
        "kind_of": lambda block: type(block).__name__,
        "choices_of": choices_of,
        "data_table": data_table,
        "figure_data": figure_data,
        "origin_json": origin_json,
        "value_of": value_of,
        "title_of": title_of,
    }
    return environment.get_template("page.html.j2")
