"""The answer of every kind of run."""

from dataclasses import replace

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.run.run import Run
from moeprof.reporters.documents.answer import RunAnswer
from moeprof.reporters.documents.answers import (
    caches,
    characterized,
    offloaded,
    optimized,
    placements,
    recorded,
    replayed,
    traced,
)
from moeprof.reporters.sections.offloading import systems_of


def answer_of(run: Run, metrics: RunMetrics) -> RunAnswer:
    """What a reader needs who reads nothing else; of a replay, `metrics` are those of `of_replay`."""
    found = answer_of_kind(run, metrics)
    return found if run.record.valid else replace(found, sentence=f"NOT VALID: {found.sentence}")


def answer_of_kind(run: Run, metrics: RunMetrics) -> RunAnswer:
    """The answer as the kind of run gives it, valid or not."""
    if systems_of(run):
        return offloaded.answer(run, metrics)
    if run.record.recipe:
        kind = {"optimize": optimized.answer, "record": recorded.answer}.get(run.record.command, characterized.answer)
        return kind(run, metrics)
    readers = {
        "characterization": traced.answer,
        "balance": placements.answer,
        "offloading": replayed.answer,
        "replay": caches.answer,
    }
    return readers[run.record.origin](run, metrics)
