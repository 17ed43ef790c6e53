"""What a replay says: which policy and how many slots are worth it, the miss curves behind that, and the memory saved."""

from collections.abc import Iterator

from moeprof.analysis.caching.advice import CLOSE, FLOOR, Advice, advise, size_for
from moeprof.analysis.caching.knee import FEWEST
from moeprof.analysis.replayed import Replayed
from moeprof.records.run.replay import ALL
from moeprof.records.units import format_bytes
from moeprof.reporters.documents.document import Block, Heading
from moeprof.reporters.numbers import duration, percent, times
from moeprof.reporters.sections.caches import curve_blocks, place, size_name
from moeprof.reporters.sections.savings import saving_blocks

PHASE_TITLES = {
    "decode": "decode: one token per sequence and step",
    "prefill": "prefill: whole sequences in a step",
    ALL: "all: every phase, one after another",
}


def summary(replayed: Replayed) -> list[str]:
    """At most ten statements; nothing where the replay has no numbers."""
    if not replayed.phases:
        return []
    phase = replayed.phases[0]
    advice = advise(replayed, phase)
    lines = [*what_line(replayed), *first_use_line(replayed, phase)]
    if advice is None:
        return [*lines, "No policy was replayed that could run: all of these know the future. Name one more with --policy."]
    return [
        *advice_line(replayed, advice),
        *support_line(replayed, advice),
        *change_line(replayed, advice),
        *time_line(replayed, advice),
        *memory_line(replayed, advice),
        *lines,
    ]


def body(replayed: Replayed) -> Iterator[Block]:
    """Each phase, then memory."""
    for phase in replayed.phases:
        yield Heading(f"Phase {PHASE_TITLES.get(phase, phase)}")
        yield from curve_blocks(replayed, phase, advise(replayed, phase))
    if replayed.phases:
        yield from saving_blocks(replayed, advise(replayed, replayed.phases[0]))


def what_line(replayed: Replayed) -> Iterator[str]:
    """The trace, and how it was replayed."""
    replay = replayed.replay
    told = [
        f"{int(count):,} in {phase}"
        for phase in replayed.phases
        if phase != ALL and (count := replayed.get("expert_accesses", phase)) is not None
    ]
    spread = f" spread over {replay.devices} devices" if replay.devices > 1 else ""
    owner = "one cache of all layers" if replay.budgets else "a cache of every layer's own"
    mode = "each batch's experts protected until all are there" if replay.access == "batch" else "one expert after another"
    yield (
        f"Trace: accesses to {replay.trace.num_experts} experts{spread} in each of {len(replay.trace.layers)} layers, "
        f"{' and '.join(told)}; {owner}{' on each device' if spread else ''}, from a cold start, {mode}."
    )
    if replay.trace.forced:
        yield "Routing was forced: these misses are not this model's own."


def advice_line(replayed: Replayed, advice: Advice) -> Iterator[str]:
    """The recommendation."""
    floor = replayed.get("miss_rate", advice.phase, FLOOR, advice.size)
    told = [f"min, which knows the future: {percent(floor)}"] if floor is not None else []
    found = replayed.worst(advice.phase, advice.policy, advice.size)
    told += [f"worst, {place(*found[1:])}: {percent(found[0])}"] if found else []
    beside = f" ({'; '.join(told)})" if told else ""
    what = (
        "keep all experts"
        if advice.size == num_slots(replayed)
        else f"{advice.policy} with {sizes_in_words(replayed, advice.size)}"
    )
    yield f"Recommendation: {what}. In {advice.phase} {percent(advice.miss_rate)} of the accesses miss{beside}."


def num_slots(replayed: Replayed) -> int | None:
    """Experts of a layer on a device: with so many slots nothing is ever evicted; None where budgets were swept."""
    replay = replayed.replay
    return None if replay.budgets else replay.trace.num_experts // replay.devices


def sizes_in_words(replayed: Replayed, size: int) -> str:
    """`32 of 128 slots per layer`, `a budget of 2.00 GiB`."""
    replay = replayed.replay
    if replay.budgets:
        return f"a budget of {format_bytes(size)}{' per device' if replay.devices > 1 else ''}"
    where = "per layer and device" if replay.devices > 1 else "per layer"
    return f"{size} of {num_slots(replayed)} slots {where}"


def support_line(replayed: Replayed, advice: Advice) -> Iterator[str]:
    """The number that supports it."""
    sizes = replayed.replay.sizes
    if not advice.at_knee:
        why = (
            "too few sizes were replayed to see where more stops to pay"
            if len(sizes) < FEWEST
            else "every slot brings about as much as any other"
        )
        yield f"Size: {why}; {size_name(replayed, advice.size)} {'is' if len(sizes) == 1 else 'are'} the most that was replayed."
        return
    curve = dict(replayed.curve("miss_rate", advice.phase, advice.policy))
    others = (min(sizes, key=lambda one: abs(one - factor * advice.size)) for factor in (0.5, 2))
    told = [f"{percent(curve[size])} with {size_name(replayed, size)}" for size in others if size != advice.size]
    yield f"Size: there the curve of the fewest misses bends (its knee). {' and '.join(told)} would miss."


def change_line(replayed: Replayed, advice: Advice) -> Iterator[str]:
    """The sizes at which another policy would be the better one."""
    if not advice.rival or advice.size == num_slots(replayed):
        return
    alike = ", which is alike" if advice.rival_rate - advice.miss_rate < CLOSE else ""
    told = [
        f"with {size_name(replayed, size)} {policy} misses fewer"
        for size, policy in filter(None, (advice.better_below, advice.better_above))
    ]
    elsewhere = " and ".join(told) or "nothing here; no other policy that can run misses fewer at any replayed size"
    yield f"Policy: the next best, {advice.rival}, misses {percent(advice.rival_rate)}{alike}. What would change it: {elsewhere}."


def time_line(replayed: Replayed, advice: Advice) -> Iterator[str]:
    """Modelled copies per step, and what would halve them."""
    spent = replayed.get("transfer_time", advice.phase, advice.policy, advice.size)
    one = replayed.get("copy_time")
    if spent is None or one is None:
        return
    rate, twice = (format_rate(factor * replayed.replay.bandwidth) for factor in (1, 2))
    exposed = replayed.get("exposed_time", advice.phase, advice.policy, advice.size)
    hidden = f", {duration(exposed)} of it exposed behind {duration(replayed.replay.overlap_ns)} per layer" if exposed else ""
    taken = replayed.replay.trace.step_ns.get(advice.phase)
    measured = f" A step took {duration(taken)} when it was recorded." if taken else ""
    enough = size_for(replayed, advice.phase, advice.policy, spent / 2)
    change = f"{size_name(replayed, enough)} or" if enough else "no replayed size halves it, but"
    yield (
        f"Time (modelled): its copies take {duration(spent)} per {advice.phase} step at {rate}, {duration(one)} per miss{hidden}."
        f"{measured} Where a step cannot spare that: {change} a link of {twice} would halve it."
    )


def format_rate(bandwidth: int) -> str:
    """`12 GB/s`, decimal as links are sold."""
    return f"{bandwidth / 1e9:g} GB/s"


def memory_line(replayed: Replayed, advice: Advice) -> Iterator[str]:
    """Saved there, and at the other end: two operating points."""
    smallest = replayed.replay.sizes[0]
    saved, most = (replayed.get("memory_saved", size=size) for size in (advice.size, smallest))
    if saved is None or most is None:
        return
    line = f"Memory: {format_bytes(saved)} saved{relief(replayed, advice.size)}"
    worst = replayed.get("miss_rate", advice.phase, advice.policy, smallest)
    if smallest == advice.size or worst is None:
        yield f"{line}."
        return
    yield (
        f"{line}. The largest saving is another operating point, where {percent(worst)} miss: "
        f"{format_bytes(most)}{relief(replayed, smallest)} with {size_name(replayed, smallest)}."
    )


def relief(replayed: Replayed, size: int) -> str:
    """` (12.9% of all weights, 1.15x)` where the model's shape is known."""
    share, ratio = (replayed.get(metric, size=size) for metric in ("memory_saved_share", "memory_reduction"))
    return "" if share is None or ratio is None else f" ({percent(share)} of a device's weights, {times(ratio)})"


def first_use_line(replayed: Replayed, phase: str) -> Iterator[str]:
    """What no cache avoids."""
    first, count = (replayed.get(metric, phase) for metric in ("compulsory_misses", "expert_accesses"))
    if first is not None and count:
        yield f"First uses, which miss in every cache: {int(first):,} of {int(count):,} accesses in {phase} ({percent(first / count)})."
