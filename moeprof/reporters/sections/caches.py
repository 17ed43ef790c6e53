"""Miss curves of one phase, and tables that compare the policies."""

from collections.abc import Callable, Iterator, Sequence
from math import log

from moeprof.analysis.caching import replay_results
from moeprof.analysis.caching.advice import LOWER_BOUND, Advice
from moeprof.analysis.caching.replay_results import policy_point
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.run.replay import ALL
from moeprof.records.units import format_bytes, format_significant
from moeprof.reporters.cells import Write, cell, duration, percent
from moeprof.reporters.documents.document import Block, Curves, Details, Paragraph, Table
from moeprof.reporters.sections.tables import with_values

COLUMNS = 6
"""Sizes that fit into a table besides the recommended one."""

MIB = 2**20

USUAL = "lru"
"""The policy that engines use without being asked."""


def curve_blocks(results: RunMetrics, phase: str, advice: Advice | None) -> Iterator[Block]:
    """The plot, miss rates at some sizes, the policies at the recommended size, and details of every layer."""
    if not reuses_experts(results, phase):
        yield Paragraph("No expert is used twice in this phase, so every access is a compulsory miss.")
        return
    if phase != ALL:
        yield miss_curves(results, phase, advice)
    yield mean_table(results, phase, advice)
    if advice is not None:
        yield policy_table(results, phase, advice.size)
    parts = [worst_table(results, phase, advice)] + ([layer_table(results, phase, advice.size)] if advice else [])
    yield Details(f"worst layer and every layer, {phase}", parts)


def reuses_experts(results: RunMetrics, phase: str) -> bool:
    """Whether any access is to an expert that was used before."""
    accesses, compulsory = map(results.at(phase=phase).or_none, ("expert_accesses", "compulsory_misses"))
    return accesses != compulsory


def miss_curves(results: RunMetrics, phase: str, advice: Advice | None) -> Curves:
    """Miss rate over slots (paper figure 12) of the recommended policy, the lower bound and the usual policy; tables have the others."""
    unit = MIB if results.record.replayed.budgets else 1
    drawn = (USUAL, advice.policy if advice else "", LOWER_BOUND)
    known = replay_results.policies(results)
    order = [policy for policy in dict.fromkeys(drawn) if policy in known] or known[:3]
    sizes = replay_results.landmarks(results)
    rates = {policy: dict(replay_results.curve(results, "miss_rate", phase, policy)) for policy in order}
    curves = [(policy, [(size / unit, rates[policy][size]) for size in sizes if rates[policy].get(size)]) for policy in order]
    return Curves(
        f"Miss rate by {swept_name(results)}, {phase}",
        "MiB for all layers" if results.record.replayed.budgets else "slots per layer",
        "miss rate",
        curves,
        "MIN (Belady) is the lower bound for policies without bypass. Sizes without misses have no point."
        + (f" Here: {len(order)} of {len(known)} policies; the next table has all." if len(order) < len(known) else ""),
        write_y=percent,
        linear=True,
    )


def mean_table(results: RunMetrics, phase: str, advice: Advice | None) -> Table:
    """Mean miss rate with a row per policy and a column per size, and each policy's knee."""
    knees = [size_cell(results, replay_results.knee(results, phase, name)) for name in replay_results.policies(results)]
    caption = (
        f"Miss rate over all layers, by {swept_name(results)}. knee = the size at which the policy's curve is deepest below the line "
        "between its ends (Kneedle)."
    )
    return rate_table(results, "miss_rate", phase, advice, {"knee": knees}, caption)


def worst_table(results: RunMetrics, phase: str, advice: Advice | None) -> Table:
    """Miss rate of the worst layer and domain (paper figure 12), with a row per policy and a column per size."""
    return rate_table(
        results, "worst_miss_rate", phase, advice, {}, "Miss rate of the layer and domain in which it is highest."
    )


def rate_table(
    results: RunMetrics, metric: str, phase: str, advice: Advice | None, extra: dict[str, list[str]], caption: str
) -> Table:
    """A metric at some sizes; the columns `extra` come first."""
    names, sizes = replay_results.policies(results), some(replay_results.landmarks(results), COLUMNS, sizes_of(advice))
    columns = {
        size_cell(results, size): [
            cell(replay_results.policy_value(results, metric, phase, name, size), percent) for name in names
        ]
        for size in sizes
    }
    table = extra | columns
    return Table(["policy", *table], list(zip(names, *table.values(), strict=True)), caption=caption)


def sizes_of(advice: Advice | None) -> list[int]:
    """The recommended size, if there is one."""
    return [] if advice is None else [advice.size]


def some(sizes: Sequence[int], most: int, wanted: Sequence[int]) -> list[int]:
    """At most `most` sizes at about equal ratios, including both ends, and the wanted ones."""
    if not sizes:
        return sorted(wanted)
    first, growth = sizes[0], (sizes[-1] / sizes[0]) ** (1 / (most - 1))
    chosen = {min(sizes, key=lambda size: abs(log(size / first / growth**step))) for step in range(most)}
    return sorted(chosen | set(wanted))


def policy_table(results: RunMetrics, phase: str, size: int) -> Table:
    """Every policy at one size; columns without any value are omitted."""

    def column(metric: str, write: Write) -> Callable[[str], str]:
        return lambda policy: cell(replay_results.policy_value(results, metric, phase, policy, size), write)

    columns: dict[str, Callable[[str], str]] = {
        "misses": column("misses", lambda count: f"{count:,.0f}"),
        "mean": column("miss_rate", percent),
        "worst": column("worst_miss_rate", percent),
        "layer": lambda policy: ", ".join(filter(None, (replay_results.worst(results, phase, policy, size) or ("", ""))[1:])),
        "loaded": column("bytes_loaded", format_bytes),
        "copies/step": column("transfer_time", duration),
        "exposed": column("exposed_time", duration),
    }
    names = replay_results.policies(results)
    cells = {title: [write(policy) for policy in names] for title, write in columns.items()}
    known = with_values(cells)
    caption = f"At {size_name(results, size)}: misses, and the miss rate over all accesses and in the worst layer (and domain)"
    caption += "; bytes loaded" if "loaded" in known else ""
    caption += "; time of a step's copies (modelled)." if "copies/step" in known else "."
    return Table(["policy", *known], list(zip(names, *known.values(), strict=True)), caption=caption)


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
    return Table(["", *policies], rows, caption=f"Miss rate at {size_name(results, size)}.")


def place(layer: str, domain: str) -> str:
    """`layer 7`, or `layer dec.3, fr` if there are several domains."""
    return f"layer {layer}, {domain}" if domain else f"layer {layer}"


def swept_name(results: RunMetrics) -> str:
    """The quantity that was swept, in words."""
    return "budget of all layers" if results.record.replayed.budgets else "slots per layer"


def size_name(results: RunMetrics, size: int) -> str:
    """A size with its unit: `16 slots`, `250 MiB`."""
    return format_bytes(size) if results.record.replayed.budgets else f"{size} slot{'s' if size > 1 else ''}"


def size_cell(results: RunMetrics, size: int | None) -> str:
    """A size for a column whose title names the unit: `16`, `250 MiB`; a dash without a size."""
    return cell(size, format_bytes if results.record.replayed.budgets else format_significant)
