"""The sections of the page in order; a new one is one file and one line here."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.run.run import Run
from moeprof.reporters.page.blocks import PageBlock
from moeprof.reporters.page.sections.batch import batch
from moeprof.reporters.page.sections.caching import caching
from moeprof.reporters.page.sections.every_table import every_table
from moeprof.reporters.page.sections.experts import experts
from moeprof.reporters.page.sections.memory import memory
from moeprof.reporters.page.sections.method import method
from moeprof.reporters.page.sections.placement import placement
from moeprof.reporters.page.sections.quality import quality
from moeprof.reporters.page.sections.time import time
from moeprof.reporters.page.sections.verdict import verdict


@dataclass(frozen=True)
class PageSection:
    """A section: what it shows of a run, or nothing if the run has nothing for it."""

    name: str
    title: str
    build: Callable[[Run, RunMetrics], Iterable[PageBlock]]
    folded: bool = False


SECTIONS = (
    PageSection("verdict", "Verdict", verdict),
    PageSection("time", "Time", time),
    PageSection("memory", "Memory", memory),
    PageSection("batch", "Batch", batch),
    PageSection("experts", "Experts", experts),
    PageSection("caching", "Caching", caching),
    PageSection("placement", "Placement", placement),
    PageSection("quality", "Outputs and quality", quality),
    PageSection("tables", "All tables", every_table, folded=True),
    PageSection("method", "Method and provenance", method, folded=True),
)
