"""How the run was made: commands, machine, hashes, and what its metrics mean."""

import shlex
from collections.abc import Iterator

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.metrics.registry import METRICS
from moeprof.records.run.run import Run
from moeprof.reporters.documents.document import Bullets, Details, Heading, Table
from moeprof.reporters.page.blocks import PageBlock
from moeprof.reporters.sections.provenance import provenance
from moeprof.reporters.sections.traffic import link_blocks


def method(run: Run, metrics: RunMetrics) -> Iterator[PageBlock]:
    """Commands, machine, inputs, the dictionary of metrics, and how to open the timeline."""
    yield Heading("Commands", 3)
    yield Bullets(list(commands(run)))
    yield Heading("Machine and inputs", 3)
    yield from provenance(run)
    yield from link_blocks(metrics)
    yield Details("Dictionary of the metrics of this run", [dictionary(metrics)])


def commands(run: Run) -> Iterator[str]:
    """How this run was made, how to render it again, and how to see its timeline."""
    yield f"Made by: {shlex.join(run.record.argv)}" if run.record.argv else "The command was not recorded."
    yield f"Render it again, or as tables: moeprof report {shlex.quote(str(run.path))} --format html|markdown|json|csv"
    timeline = run.path / "timeline"
    if timeline.is_dir():
        yield f"Timeline: {timeline}; open its files at https://ui.perfetto.dev, or with tensorboard --logdir {shlex.quote(str(timeline))}"
    elif run.record.recipe:
        yield "Timeline: not recorded; the option --timeline of the command records it."


def dictionary(metrics: RunMetrics) -> Table:
    """Name, unit, direction, kind and formula of every metric that the run has."""
    known = [METRICS[name] for name in dict.fromkeys(key.metric for key in metrics.by_key) if name in METRICS]
    rows = [[metric.name, metric.unit, metric.better, metric.kind, metric.formula] for metric in known]
    return Table(["metric", "unit", "better", "kind", "formula"], rows, labels=5)
