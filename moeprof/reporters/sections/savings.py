"""The memory that each size saves, with its miss rate and copy time."""

from collections.abc import Iterator

from moeprof.analysis.caching import replay_results
from moeprof.analysis.caching.advice import Advice
from moeprof.analysis.caching.replay_results import size_point
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.units import format_bytes
from moeprof.reporters.cells import cell, duration, percent, times
from moeprof.reporters.documents.document import Block, Details, Heading, Table
from moeprof.reporters.sections.caches import size_cell, some

COLUMNS = 8


def saving_blocks(results: RunMetrics, advice: Advice | None) -> Iterator[Block]:
    """Savings by size and by layer; nothing if the size of an expert is unknown."""
    if results.or_none("memory_saved", point=size_point(results, results.record.replayed.sizes[0])) is None:
        return
    yield Heading("Memory saved")
    yield saving_table(results, advice)
    if not results.record.replayed.budgets:
        yield Details("memory saved by layer", [layer_table(results, advice)])


def saving_table(results: RunMetrics, advice: Advice | None) -> Table:
    """Memory saved (paper 5.5), and the miss rate that it costs."""
    known = results.or_none("memory_reduction", point=size_point(results, results.record.replayed.sizes[0])) is not None
    rows = []
    for size in sorted({*replay_results.landmarks(results), *([advice.size] if advice else [])}, reverse=True):
        row = [size_cell(results, size), cell(results.or_none("memory_saved", point=size_point(results, size)), exact_gib)]
        if known:
            row.append(cell(results.or_none("memory_saved_share", point=size_point(results, size)), percent))
            row.append(cell(results.or_none("memory_reduction", point=size_point(results, size)), times))
        if advice:
            row.append(cell(replay_results.policy_value(results, "miss_rate", advice.phase, advice.policy, size), percent))
            row.append(cell(replay_results.policy_value(results, "transfer_time", advice.phase, advice.policy, size), duration))
        rows.append(row)
    columns = ["budget" if results.record.replayed.budgets else "slots", "saved"]
    columns += ["of weights", "reduction"] if known else []
    columns += ["misses", "copies/step"] if advice else []
    with_policy = f" Misses and copies (modelled) are those of {advice.policy} in {advice.phase}." if advice else ""
    shape = " reduction = all weights of a device / weights that remain." if known else ""
    return Table(columns, rows, caption=f"Per device, over the layers of this trace.{shape}{with_policy}")


def exact_gib(size_bytes: float) -> str:
    """Two decimals from 1 GiB on, as in the tables of the paper."""
    return f"{size_bytes / 2**30:.2f} GiB" if size_bytes >= 2**30 else format_bytes(size_bytes)


def layer_table(results: RunMetrics, advice: Advice | None) -> Table:
    """Memory saved with a row per layer and a column per size."""
    sizes = some(replay_results.landmarks(results), COLUMNS, [advice.size] if advice else [])
    rows = [
        [
            layer,
            *(
                cell(results.or_none("memory_saved", point=size_point(results, size), layer=layer), format_bytes)
                for size in sizes
            ),
        ]
        for layer in results.record.replayed.trace.expert_bytes
    ]
    columns = ["layer", *(f"{size} slot{'s' if size > 1 else ''}" for size in sizes)]
    return Table(columns, rows, caption="(experts / devices - slots) x bytes of an expert.")
