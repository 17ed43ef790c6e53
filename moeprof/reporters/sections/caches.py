"""Miss curves of one phase, and the policies side by side."""

from collections.abc import Callable, Iterator, Sequence
from math import log

from moeprof.analysis.caching.advice import FLOOR, Advice
from moeprof.analysis.replayed import Replayed
from moeprof.records.run.replay import ALL
from moeprof.records.units import format_bytes, format_significant
from moeprof.reporters.documents.document import Block, Curves, Details, Paragraph, Table
from moeprof.reporters.numbers import MISSING, cell, duration, percent

COLUMNS = 6
"""Sizes that a table has room for beside the recommended one."""

MIB = 2**20


def curve_blocks(replayed: Replayed, phase: str, advice: Advice | None) -> Iterator[Block]:
    """The plot, the rates at some sizes, the policies at the recommended size, and every layer for who wants it."""
    if not avoidable(replayed, phase):
        yield Paragraph("No expert is used twice in this phase: every access misses in every cache.")
        return
    if phase != ALL:
        yield miss_curves(replayed, phase, advice)
    yield rate_table(replayed, phase, advice)
    if advice is not None:
        yield policy_table(replayed, phase, advice.size)
    parts = [worst_table(replayed, phase, advice)] + ([layer_table(replayed, phase, advice.size)] if advice else [])
    yield Details(f"the worst layer, and every layer, {phase}", parts)


def avoidable(replayed: Replayed, phase: str) -> bool:
    """Whether any access comes back to an expert."""
    return replayed.get("expert_accesses", phase) != replayed.get("compulsory_misses", phase)


def miss_curves(replayed: Replayed, phase: str, advice: Advice | None) -> Curves:
    """Miss rate over slots (paper figure 12); the recommended policy and the floor lie over the others."""
    unit = MIB if replayed.replay.budgets else 1
    on_top = ([advice.policy] if advice else []) + [FLOOR]
    order = sorted(replayed.policies, key=lambda policy: on_top.index(policy) + 1 if policy in on_top else 0)
    curves = [
        (policy, [(size / unit, rate) for size, rate in replayed.curve("miss_rate", phase, policy, replayed.landmarks) if rate])
        for policy in order
    ]
    return Curves(
        f"Miss rate over {swept_name(replayed)}, {phase}",
        "MiB for all layers" if replayed.replay.budgets else "slots per layer",
        "share of accesses that miss",
        curves,
        "No policy that keeps what it loads comes below min (Belady); where nothing misses a curve has no point.",
        write_y=percent,
        linear=True,
    )


def rate_table(replayed: Replayed, phase: str, advice: Advice | None) -> Table:
    """A row per policy, a column per size."""
    sizes = some(replayed.landmarks, COLUMNS, [advice.size] if advice else [])
    rows = [
        [policy, size_cell(replayed, replayed.knee(phase, policy)), *rate_cells(replayed, "miss_rate", phase, policy, sizes)]
        for policy in replayed.policies
    ]
    columns = ["policy", "knee", *(size_cell(replayed, size) for size in sizes)]
    caption = (
        f"Share of accesses that miss, mean over all layers, by {swept_name(replayed)}. Knee: where the policy's own curve lies "
        "deepest below the line between its ends (Kneedle)."
    )
    return Table(columns, rows, caption=caption)


def worst_table(replayed: Replayed, phase: str, advice: Advice | None) -> Table:
    """The same of the worst layer and domain (paper figure 12)."""
    sizes = some(replayed.landmarks, COLUMNS, [advice.size] if advice else [])
    rows = [[policy, *rate_cells(replayed, "worst_miss_rate", phase, policy, sizes)] for policy in replayed.policies]
    columns = ["policy", *(size_cell(replayed, size) for size in sizes)]
    return Table(columns, rows, caption="Share of accesses that miss in the layer and domain where it is largest.")


def rate_cells(replayed: Replayed, metric: str, phase: str, policy: str, sizes: Sequence[int]) -> list[str]:
    """A row of rates."""
    return [cell(replayed.get(metric, phase, policy, size), percent) for size in sizes]


def some(sizes: Sequence[int], most: int, wanted: Sequence[int]) -> list[int]:
    """At most so many that are about equal factors apart, both ends among them, and those wanted."""
    if not sizes:
        return sorted(wanted)
    first, growth = sizes[0], (sizes[-1] / sizes[0]) ** (1 / (most - 1))
    chosen = {min(sizes, key=lambda size: abs(log(size / first / growth**step))) for step in range(most)}
    return sorted(chosen | set(wanted))


def policy_table(replayed: Replayed, phase: str, size: int) -> Table:
    """Everything about one size; what is not known of any policy has no column."""
    columns: dict[str, Callable[[str], str]] = {
        "misses": lambda policy: cell(replayed.get("misses", phase, policy, size), lambda count: f"{count:,.0f}"),
        "mean": lambda policy: cell(replayed.get("miss_rate", phase, policy, size), percent),
        "worst": lambda policy: cell(replayed.get("worst_miss_rate", phase, policy, size), percent),
        "layer": lambda policy: ", ".join(filter(None, (replayed.worst(phase, policy, size) or ("", ""))[1:])),
        "loaded": lambda policy: cell(replayed.get("bytes_loaded", phase, policy, size), format_bytes),
        "per step": lambda policy: cell(replayed.get("transfer_time", phase, policy, size), duration),
        "exposed": lambda policy: cell(replayed.get("exposed_time", phase, policy, size), duration),
    }
    cells = {title: [write(policy) for policy in replayed.policies] for title, write in columns.items()}
    told = {title: column for title, column in cells.items() if any(text != MISSING for text in column)}
    caption = (
        f"At {size_name(replayed, size)}: misses, their share over all accesses and in the worst layer (of the worst domain)"
    )
    caption += ", bytes loaded" if "loaded" in told else ""
    caption += ", and the time of a step's copies (modelled)." if "per step" in told else "."
    return Table(["policy", *told], list(zip(replayed.policies, *told.values(), strict=True)), caption=caption)


def layer_table(replayed: Replayed, phase: str, size: int) -> Table:
    """Miss rate of every layer and domain under every policy."""
    rows = [
        [
            place(layer, domain),
            *(
                cell(replayed.get("miss_rate", phase, policy, size, layer=layer, domain=domain), percent)
                for policy in replayed.policies
            ),
        ]
        for layer, domain in replayed.parts
        if replayed.get("expert_accesses", phase, layer=layer, domain=domain)
    ]
    return Table(["", *replayed.policies], rows, caption=f"Share of accesses that miss at {size_name(replayed, size)}.")


def place(layer: str, domain: str) -> str:
    """`layer 7`, `layer dec.3, fr`."""
    return f"layer {layer}, {domain}" if domain else f"layer {layer}"


def swept_name(replayed: Replayed) -> str:
    """What the sizes are."""
    return "budget of all layers together" if replayed.replay.budgets else "slots of each layer"


def size_name(replayed: Replayed, size: int) -> str:
    """`16 slots`, `250 MiB`."""
    return format_bytes(size) if replayed.replay.budgets else f"{size} slot{'s' if size > 1 else ''}"


def size_cell(replayed: Replayed, size: int | None) -> str:
    """The same where a column has said what it is."""
    return cell(size, format_bytes if replayed.replay.budgets else format_significant)
