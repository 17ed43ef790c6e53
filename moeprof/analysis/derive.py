"""From the raw files of a run directory to the rows of `metrics.csv`: the only place where these rows come from.

A pass records, a derivation computes. A new metric is declared in the registry and derived by one line of DERIVATIONS.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from moeprof.analysis.caching.offloading import movement_rows, offloading_rows
from moeprof.analysis.caching.residency import expert_load_rows
from moeprof.analysis.carbon import carbon_rows
from moeprof.analysis.comparison.output_agreement import output_rows
from moeprof.analysis.memory import memory_rows
from moeprof.analysis.model_size_rows import model_size_rows
from moeprof.analysis.placement.deployed_rows import payoff_rows, placement_rows
from moeprof.analysis.placement.rank_load import judged_load_rows
from moeprof.analysis.quality import score_rows, translation_rows
from moeprof.analysis.routing.capacity import step_rows
from moeprof.analysis.routing.entropy import gate_entropy_rows
from moeprof.analysis.routing.expert_calls import call_rows
from moeprof.analysis.routing.trace_rows import trace_rows
from moeprof.analysis.timing.breakdown import region_rows
from moeprof.analysis.timing.communication import communication_floor_rows, communication_rows, communication_share_rows
from moeprof.analysis.timing.decoding import decode_rows
from moeprof.analysis.timing.stalls import load_rows
from moeprof.analysis.timing.sweep_rows import (
    batch_rows,
    batch_throughput_rows,
    best_batch_rows,
    best_batch_speedup_rows,
    slot_rows,
)
from moeprof.analysis.timing.timing import equal_batch_rows, time_rows
from moeprof.records.metrics.registry import Samples
from moeprof.records.run.raw_tables import (
    AGREEMENT,
    BATCHES,
    DECODE_TIMES,
    EXPERT_CALLS,
    FOOTPRINTS,
    GATE_ENTROPIES,
    MOVEMENTS,
    MOVES,
    REGIONS,
    ROUNDS,
    SCORES,
    STALLS,
    STEPS,
    TRANSLATIONS,
    UNIT_EVENTS,
    RawTable,
)
from moeprof.records.run.run import Run

TRACES, EXPERT_LOADS, COLLECTIVES, LINKS = "routing", "loads.parquet", "traffic.parquet", "links.json"
"""Raw files that have a form of their own."""


@dataclass(frozen=True)
class Derivation:
    """One way from raw files to metrics."""

    name: str
    reads: tuple[str, ...]
    """Names of the raw files; the run record is always there."""
    reads_if_placed: tuple[str, ...]
    """Further raw files that it reads if a variant of the run places experts."""
    rows: Callable[[Run], Iterable[Samples]]
    """Rows beside the values behind them; nothing if the run did not measure this."""


def derivation(
    name: str, rows: Callable[[Run], Iterable[Samples]], *reads: RawTable | str, if_placed: Sequence[RawTable | str] = ()
) -> Derivation:
    """One line of the table; `reads` are raw tables, or names of files."""
    always, placed = (tuple(one if isinstance(one, str) else one.file_name for one in files) for files in (reads, if_placed))
    return Derivation(name, always, placed, rows)


DERIVATIONS = (
    derivation("model size", model_size_rows),
    derivation("routing", trace_rows, TRACES),
    derivation("capacity and waste", step_rows, STEPS),
    derivation("calls of experts", call_rows, EXPERT_CALLS),
    derivation("gate entropy", gate_entropy_rows, TRACES, GATE_ENTROPIES),
    derivation("expert loads", expert_load_rows, EXPERT_LOADS),
    derivation("offloading", offloading_rows, UNIT_EVENTS),
    derivation("movements", movement_rows, MOVEMENTS),
    derivation("load of ranks", judged_load_rows, TRACES, if_placed=[STEPS]),
    derivation("placements", placement_rows, TRACES, STEPS, MOVES),
    derivation("outputs", output_rows, AGREEMENT),
    derivation("cross-entropy", score_rows, SCORES),
    derivation("translations", translation_rows, TRANSLATIONS),
    derivation("time", time_rows, ROUNDS),
    derivation("carbon", carbon_rows, ROUNDS),
    derivation("latency of decoding", decode_rows, DECODE_TIMES),
    derivation("speed-ups", equal_batch_rows, ROUNDS, AGREEMENT),
    derivation("payoff of placements", payoff_rows, ROUNDS, MOVES, AGREEMENT),
    derivation("breakdown", region_rows, ROUNDS, REGIONS),
    derivation("memory", memory_rows, FOOTPRINTS),
    derivation("communication", communication_rows, COLLECTIVES),
    derivation("communication over its floor", communication_floor_rows, COLLECTIVES, LINKS),
    derivation("communication share", communication_share_rows, COLLECTIVES, ROUNDS),
    derivation("stalls", load_rows, ROUNDS, STALLS),
    derivation("sweep over slots", slot_rows, ROUNDS, STALLS),
    derivation("batches", batch_rows, BATCHES),
    derivation("throughput by batch", batch_throughput_rows, ROUNDS),
    derivation("best batches", best_batch_rows, ROUNDS),
    derivation("speed-ups at best batches", best_batch_speedup_rows, ROUNDS, AGREEMENT),
)
"""In the order of the rows."""


def missing_files(run: Run, one: Derivation) -> list[str]:
    """Raw files that a derivation reads and the run does not have."""
    placed = any(variant.placed for variant in run.record.variants_by_label.values())
    needed = [*one.reads, *(one.reads_if_placed if placed else ())]
    return [name for name in needed if not (run.path / name).exists()]


def derive(run: Run, derivations: Sequence[Derivation] = DERIVATIONS) -> Iterator[Samples]:
    """The rows of all derivations whose raw files are there."""
    for one in derivations:
        if not missing_files(run, one):
            yield from one.rows(run)


def salvage(run: Run) -> Iterator[Samples]:
    """The rows that can be derived of a run that stopped early: a derivation whose records are incomplete has none."""
    for one in DERIVATIONS:
        if not missing_files(run, one):
            with suppress(Exception):
                yield from list(one.rows(run))
