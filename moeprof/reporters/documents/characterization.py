"""The blocks of a phase in the report on a characterization."""

from collections.abc import Iterator

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.run.run import Run
from moeprof.reporters.documents.document import Block
from moeprof.reporters.sections.calls import call_blocks
from moeprof.reporters.sections.decoding import latency_blocks
from moeprof.reporters.sections.experts import expert_blocks
from moeprof.reporters.sections.locality import locality_blocks
from moeprof.reporters.sections.memory import memory_blocks
from moeprof.reporters.sections.quality import quality_blocks
from moeprof.reporters.sections.speed import breakdown_blocks, columns_of, speed_table
from moeprof.reporters.sections.tables import scopes
from moeprof.reporters.sections.traffic import traffic_section


def phase_blocks(run: Run, metrics: RunMetrics, phase: str) -> Iterator[Block]:
    """Speed, quality, time, communication, memory, experts and locality."""
    trace = run.trace(phase, metrics.baseline)
    yield speed_table(metrics, phase)
    yield from latency_blocks(metrics, phase, columns_of(metrics), scopes(metrics, phase))
    yield from quality_blocks(metrics, phase)
    yield from breakdown_blocks(metrics, phase)
    yield from traffic_section(run, metrics, phase)
    yield from memory_blocks(metrics, phase)
    yield from call_blocks(metrics, phase, columns_of(metrics))
    yield from expert_blocks(trace, metrics, phase, run.record.ran.parallel.ranks)
    yield from locality_blocks(trace, metrics, phase)
