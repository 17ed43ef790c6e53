"""Every table of the report, for readers who look for a number that no figure shows."""

from collections.abc import Iterable, Iterator

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.run.run import Run
from moeprof.reporters.documents.document import Block, Curves, Details, Heading, HeatMap, Stacked
from moeprof.reporters.documents.report import parts_of
from moeprof.reporters.page.blocks import PageBlock


def every_table(run: Run, _: RunMetrics) -> Iterator[PageBlock]:
    """The blocks of the linear report without its drawings, which the figures of the page replace."""
    yield from without_drawings(parts_of(run)[2])


def without_drawings(blocks: Iterable[Block]) -> Iterator[Block]:
    """The blocks that are text or tables; headings go one level down."""
    for block in blocks:
        match block:
            case HeatMap() | Stacked() | Curves():
                continue
            case Heading(text, level):
                yield Heading(text, level + 1)
            case Details(title, inner):
                yield Details(title, list(without_drawings(inner)))
            case _:
                yield block
