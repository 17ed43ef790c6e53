"""Miss curves of one phase, and the policies side by side."""

from collections.abc import Callable, Iterator, Sequence
from math import log

from moeprof.analysis.caching import replay_results
from moeprof.analysis.caching.advice import FLOOR, Advice
from moeprof.analysis.caching.replay_results import policy_point
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.run.replay import ALL
from moeprof.records.units import format_bytes, format_significant
from moeprof.reporters.cells import MISSING, cell, duration, percent
from moeprof.reporters.documents.document import Block, Curves, Details, Paragraph, Table

COLUMNS = 6
"""Sizes that a table has room for beside the recommended one."""

MIB = 2**20


def curve_blocks(results: RunMetrics, phase: str, advice: Advice | None) -> Iterator[Block]:
    """The plot, the rates at some sizes, the policies at the recommended size, and every layer for who wants it."""
    if not avoidable(results, phase):
        yield Paragraph("No expert is used twice in this phase: every access misses in every cache.")
        return
    if phase != ALL:
        yield miss_curves(results, phase, advice)
    yield rate_table(results, phase, advice)
    if advice is not None:
        yield policy_table(results, phase, advice.size)
    parts = [worst_table(results, phase, advice)] + ([layer_table(results, phase, advice.size)] if advice else [])
    yield Details(f"the worst layer, and every layer, {phase}", parts)


def avoidable(results: RunMetrics, phase: str) -> bool:
    """Whether any access comes back to an expert."""
    return results.or_none("expert_accesses", phase=phase) != results.or_none("compulsory_misses", phase=phase)


def miss_curves(results: RunMetrics, phase: str, advice: Advice | None) -> Curves:
    """Miss rate over slots (paper figure 12); the recommended policy and the floor lie over the others."""
    unit = MIB if results.record.replayed.budgets else 1
    on_top = ([advice.policy] if advice else []) + [FLOOR]
    order = sorted(replay_results.policies(results), key=lambda policy: on_top.index(policy) + 1 if policy in on_top else 0)
    shown = replay_results.landmarks(results)
    rates = {policy: dict(replay_results.curve(results, "miss_rate", phase, policy)) for policy in order}
    curves = [(policy, [(size / unit, rates[policy][size]) for size in shown if rates[policy].get(size)]) for policy in order]
    return Curves(
        f"Miss rate over {swept_name(results)}, {phase}",
        "MiB for all layers" if results.record.replayed.budgets else "slots per layer",
        "share of accesses that miss",
        curves,
        "No policy that keeps what it loads comes below min (Belady); where nothing misses a curve has no point.",
        write_y=percent,
        linear=True,
    )


def rate_table(results: RunMetrics, phase: str, advice: Advice | None) -> Table:
    """A row per policy, a column per size."""
    sizes = some(replay_results.landmarks(results), COLUMNS, [advice.size] if advice else [])
    rows = [
        [
            policy,
            size_cell(results, replay_results.knee(results, phase, policy)),
            *rate_cells(results, "miss_rate", phase, policy, sizes),
        ]
        for policy in replay_results.policies(results)
    ]
    columns = ["policy", "knee", *(size_cell(results, size) for size in sizes)]
    caption = (
        f"Share of accesses that miss, mean over all layers, by {swept_name(results)}. Knee: where the policy's own curve lies "
        "deepest below the line between its ends (Kneedle)."
    )
    return Table(columns, rows, caption=caption)


def worst_table(results: RunMetrics, phase: str, advice: Advice | None) -> Table:
    """The same of the worst layer and domain (paper figure 12)."""
    sizes = some(replay_results.landmarks(results), COLUMNS, [advice.size] if advice else [])
    rows = [
        [policy, *rate_cells(results, "worst_miss_rate", phase, policy, sizes)] for policy in replay_results.policies(results)
    ]
    columns = ["policy", *(size_cell(results, size) for size in sizes)]
    return Table(columns, rows, caption="Share of accesses that miss in the layer and domain where it is largest.")


def rate_cells(results: RunMetrics, metric: str, phase: str, policy: str, sizes: Sequence[int]) -> list[str]:
    """A row of rates."""
    return [cell(replay_results.policy_value(results, metric, phase, policy, size), percent) for size in sizes]


def some(sizes: Sequence[int], most: int, wanted: Sequence[int]) -> list[int]:
    """At most so many that are about equal factors apart, both ends among them, and those wanted."""
    if not sizes:
        return sorted(wanted)
    first, growth = sizes[0], (sizes[-1] / sizes[0]) ** (1 / (most - 1))
    chosen = {min(sizes, key=lambda size: abs(log(size / first / growth**step))) for step in range(most)}
    return sorted(chosen | set(wanted))


def policy_table(results: RunMetrics, phase: str, size: int) -> Table:
    """Everything about one size; what is not known of any policy has no column."""
    columns: dict[str, Callable[[str], str]] = {
        "misses": lambda policy: cell(
            replay_results.policy_value(results, "misses", phase, policy, size), lambda count: f"{count:,.0f}"
        ),
        "mean": lambda policy: cell(replay_results.policy_value(results, "miss_rate", phase, policy, size), percent),
        "worst": lambda policy: cell(replay_results.policy_value(results, "worst_miss_rate", phase, policy, size), percent),
        "layer": lambda policy: ", ".join(filter(None, (replay_results.worst(results, phase, policy, size) or ("", ""))[1:])),
        "loaded": lambda policy: cell(replay_results.policy_value(results, "bytes_loaded", phase, policy, size), format_bytes),
        "per step": lambda policy: cell(replay_results.policy_value(results, "transfer_time", phase, policy, size), duration),
        "exposed": lambda policy: cell(replay_results.policy_value(results, "exposed_time", phase, policy, size), duration),
    }
    cells = {title: [write(policy) for policy in replay_results.policies(results)] for title, write in columns.items()}
    told = {title: column for title, column in cells.items() if any(text != MISSING for text in column)}
    caption = (
        f"At {size_name(results, size)}: misses, their share over all accesses and in the worst layer (of the worst domain)"
    )
    caption += ", bytes loaded" if "loaded" in told else ""
    caption += ", and the time of a step's copies (modelled)." if "per step" in told else "."
    return Table(["policy", *told], list(zip(replay_results.policies(results), *told.values(), strict=True)), caption=caption)


def layer_table(results: RunMetrics, phase: str, size: int) -> Table:
    """Miss rate of every layer and domain under every policy."""
    policies = replay_results.policies(results)
    rows = [
        [
            place(layer, domain),
            *(cell(here.or_none("miss_rate", point=policy_point(results, policy, size)), percent) for policy in policies),
        ]
        for layer, domain in replay_results.parts(results)
        for here in [results.at(phase=phase, layer=layer, domain=domain)]
        if here.or_none("expert_accesses")
    ]
    return Table(["", *policies], rows, caption=f"Share of accesses that miss at {size_name(results, size)}.")


def place(layer: str, domain: str) -> str:
    """`layer 7`, `layer dec.3, fr`."""
    return f"layer {layer}, {domain}" if domain else f"layer {layer}"


def swept_name(results: RunMetrics) -> str:
    """What the sizes are."""
    return "budget of all layers together" if results.record.replayed.budgets else "slots of each layer"


def size_name(results: RunMetrics, size: int) -> str:
    """`16 slots`, `250 MiB`."""
    return format_bytes(size) if results.record.replayed.budgets else f"{size} slot{'s' if size > 1 else ''}"


def size_cell(results: RunMetrics, size: int | None) -> str:
    """The same where a column has said what it is."""
    return cell(size, format_bytes if results.record.replayed.budgets else format_significant)
