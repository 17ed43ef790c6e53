"""Miss curves of one phase, and the policies side by side."""

from collections.abc import Iterator, Sequence
from math import log

from moeprof.analysis.advice import FLOOR, Advice
from moeprof.analysis.replayed import Replayed
from moeprof.records.replay import ALL
from moeprof.records.units import format_bytes, format_significant
from moeprof.reporters.document import Block, Curves, Details, Paragraph, Table
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
        yield Details(f"miss rates by layer, {phase}", [layer_table(replayed, phase, advice.size)])


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
        [
            policy,
            size_cell(replayed, replayed.knee(phase, policy)),
            *(rate_cell(replayed, phase, policy, size) for size in sizes),
        ]
        for policy in replayed.policies
    ]
    columns = ["policy", "knee", *(size_cell(replayed, size) for size in sizes)]
    caption = (
        f"Share of accesses that miss, mean over all layers, by {swept_name(replayed)}. Knee: where the policy's own curve lies "
        "deepest below the line between its ends (Kneedle)."
    )
    return Table(columns, rows, caption=caption)


def some(sizes: Sequence[int], most: int, wanted: Sequence[int]) -> list[int]:
    """At most so many that are about equal factors apart, both ends among them, and those wanted."""
    first, growth = sizes[0], (sizes[-1] / sizes[0]) ** (1 / (most - 1))
    chosen = {min(sizes, key=lambda size: abs(log(size / first / growth**step))) for step in range(most)}
    return sorted(chosen | set(wanted))


def policy_table(replayed: Replayed, phase: str, size: int) -> Table:
    """Everything about one size."""
    rows = [
        [
            policy,
            cell(replayed.get("misses", phase, policy, size), lambda count: f"{count:,.0f}"),
            rate_cell(replayed, phase, policy, size),
            cell(replayed.get("worst_miss_rate", phase, policy, size), percent),
            ", ".join(filter(None, found[1:])) if (found := replayed.worst(phase, policy, size)) else MISSING,
            cell(replayed.get("bytes_loaded", phase, policy, size), format_bytes),
            cell(replayed.get("transfer_time", phase, policy, size), duration),
        ]
        for policy in replayed.policies
    ]
    columns = ["policy", "misses", "mean", "worst", "layer", "loaded", "per step"]
    caption = (
        f"At {size_name(replayed, size)}: misses, their share over all accesses and in the worst layer (of the worst domain), "
        "bytes loaded, and the time of a step's copies (modelled)."
    )
    return Table(columns, rows, caption=caption)


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


def rate_cell(replayed: Replayed, phase: str, policy: str, size: int) -> str:
    """A miss rate over all layers."""
    return cell(replayed.get("miss_rate", phase, policy, size), percent)


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
