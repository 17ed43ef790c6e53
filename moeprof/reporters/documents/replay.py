"""What a replay says: which policy and how many slots are worth it, the miss curves behind that, and the memory saved."""

from collections.abc import Iterator

from moeprof.analysis.caching import replay_results
from moeprof.analysis.caching.advice import CLOSE, FLOOR, Advice, advise, size_for
from moeprof.analysis.caching.knee import FEWEST
from moeprof.analysis.caching.replay_results import size_point
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.run.replay import ALL
from moeprof.records.units import format_bytes
from moeprof.reporters.cells import duration, percent, times
from moeprof.reporters.documents.document import Block, Heading
from moeprof.reporters.sections.caches import curve_blocks, place, size_name
from moeprof.reporters.sections.savings import saving_blocks

PHASE_TITLES = {
    "decode": "decode: one token per sequence and step",
    "prefill": "prefill: whole sequences in a step",
    ALL: "all: every phase, one after another",
}


def summary(results: RunMetrics) -> list[str]:
    """At most ten statements; nothing where the replay has no numbers."""
    if not replay_results.phases(results):
        return []
    phase = replay_results.phases(results)[0]
    advice = advise(results, phase)
    lines = [*what_line(results), *first_use_line(results, phase)]
    if advice is None:
        return [*lines, "No policy was replayed that could run: all of these know the future. Name one more with --policy."]
    return [
        *advice_line(results, advice),
        *support_line(results, advice),
        *change_line(results, advice),
        *time_line(results, advice),
        *memory_line(results, advice),
        *lines,
    ]


def body(results: RunMetrics) -> Iterator[Block]:
    """Each phase, then memory."""
    for phase in replay_results.phases(results):
        yield Heading(f"Phase {PHASE_TITLES.get(phase, phase)}")
        yield from curve_blocks(results, phase, advise(results, phase))
    if replay_results.phases(results):
        yield from saving_blocks(results, advise(results, replay_results.phases(results)[0]))


def what_line(results: RunMetrics) -> Iterator[str]:
    """The trace, and how it was replayed."""
    replay = results.record.replayed
    told = [
        f"{int(count):,} in {phase}"
        for phase in replay_results.phases(results)
        if phase != ALL and (count := results.or_none("expert_accesses", phase=phase)) is not None
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


def advice_line(results: RunMetrics, advice: Advice) -> Iterator[str]:
    """The recommendation."""
    floor = replay_results.policy_value(results, "miss_rate", advice.phase, FLOOR, advice.size)
    told = [f"min, which knows the future: {percent(floor)}"] if floor is not None else []
    found = replay_results.worst(results, advice.phase, advice.policy, advice.size)
    told += [f"worst, {place(*found[1:])}: {percent(found[0])}"] if found else []
    beside = f" ({'; '.join(told)})" if told else ""
    what = (
        "keep all experts"
        if advice.size == num_slots(results)
        else f"{advice.policy} with {sizes_in_words(results, advice.size)}"
    )
    yield f"Recommendation: {what}. In {advice.phase} {percent(advice.miss_rate)} of the accesses miss{beside}."


def num_slots(results: RunMetrics) -> int | None:
    """Experts of a layer on a device: with so many slots nothing is ever evicted; None where budgets were swept."""
    replay = results.record.replayed
    return None if replay.budgets else replay.trace.num_experts // replay.devices


def sizes_in_words(results: RunMetrics, size: int) -> str:
    """`32 of 128 slots per layer`, `a budget of 2.00 GiB`."""
    replay = results.record.replayed
    if replay.budgets:
        return f"a budget of {format_bytes(size)}{' per device' if replay.devices > 1 else ''}"
    where = "per layer and device" if replay.devices > 1 else "per layer"
    return f"{size} of {num_slots(results)} slots {where}"


def support_line(results: RunMetrics, advice: Advice) -> Iterator[str]:
    """The number that supports it."""
    sizes = results.record.replayed.sizes
    if not advice.at_knee:
        why = (
            "too few sizes were replayed to see where more stops to pay"
            if len(sizes) < FEWEST
            else "every slot brings about as much as any other"
        )
        yield f"Size: {why}; {size_name(results, advice.size)} {'is' if len(sizes) == 1 else 'are'} the most that was replayed."
        return
    curve = dict(replay_results.curve(results, "miss_rate", advice.phase, advice.policy))
    others = (min(sizes, key=lambda one: abs(one - factor * advice.size)) for factor in (0.5, 2))
    told = [f"{percent(curve[size])} with {size_name(results, size)}" for size in others if size != advice.size]
    yield f"Size: there the curve of the fewest misses bends (its knee). {' and '.join(told)} would miss."


def change_line(results: RunMetrics, advice: Advice) -> Iterator[str]:
    """The sizes at which another policy would be the better one."""
    if not advice.rival or advice.size == num_slots(results):
        return
    alike = ", which is alike" if advice.rival_rate - advice.miss_rate < CLOSE else ""
    told = [
        f"with {size_name(results, size)} {policy} misses fewer"
        for size, policy in filter(None, (advice.better_below, advice.better_above))
    ]
    elsewhere = " and ".join(told) or "nothing here; no other policy that can run misses fewer at any replayed size"
    yield f"Policy: the next best, {advice.rival}, misses {percent(advice.rival_rate)}{alike}. What would change it: {elsewhere}."


def time_line(results: RunMetrics, advice: Advice) -> Iterator[str]:
    """Modelled copies per step, and what would halve them."""
    spent = replay_results.policy_value(results, "transfer_time", advice.phase, advice.policy, advice.size)
    one = results.or_none("copy_time")
    if spent is None or one is None:
        return
    rate, twice = (format_rate(factor * results.record.replayed.bandwidth) for factor in (1, 2))
    exposed = replay_results.policy_value(results, "exposed_time", advice.phase, advice.policy, advice.size)
    hidden = (
        f", {duration(exposed)} of it exposed behind {duration(results.record.replayed.overlap_ns)} per layer"
        if exposed
        else ""
    )
    taken = results.record.replayed.trace.step_ns.get(advice.phase)
    measured = f" A step took {duration(taken)} when it was recorded." if taken else ""
    enough = size_for(results, advice.phase, advice.policy, spent / 2)
    change = f"{size_name(results, enough)} or" if enough else "no replayed size halves it, but"
    yield (
        f"Time (modelled): its copies take {duration(spent)} per {advice.phase} step at {rate}, {duration(one)} per miss{hidden}."
        f"{measured} Where a step cannot spare that: {change} a link of {twice} would halve it."
    )


def format_rate(bandwidth: int) -> str:
    """`12 GB/s`, decimal as links are sold."""
    return f"{bandwidth / 1e9:g} GB/s"


def memory_line(results: RunMetrics, advice: Advice) -> Iterator[str]:
    """Saved there, and at the other end: two operating points."""
    smallest = results.record.replayed.sizes[0]
    saved, most = (results.or_none("memory_saved", point=size_point(results, size)) for size in (advice.size, smallest))
    if saved is None or most is None:
        return
    line = f"Memory: {format_bytes(saved)} saved{relief(results, advice.size)}"
    worst = replay_results.policy_value(results, "miss_rate", advice.phase, advice.policy, smallest)
    if smallest == advice.size or worst is None:
        yield f"{line}."
        return
    yield (
        f"{line}. The largest saving is another operating point, where {percent(worst)} miss: "
        f"{format_bytes(most)}{relief(results, smallest)} with {size_name(results, smallest)}."
    )


def relief(results: RunMetrics, size: int) -> str:
    """` (12.9% of all weights, 1.15x)` where the model's shape is known."""
    share, ratio = (
        results.or_none(metric, point=size_point(results, size)) for metric in ("memory_saved_share", "memory_reduction")
    )
    return "" if share is None or ratio is None else f" ({percent(share)} of a device's weights, {times(ratio)})"


def first_use_line(results: RunMetrics, phase: str) -> Iterator[str]:
    """What no cache avoids."""
    first, count = (results.or_none(metric, phase=phase) for metric in ("compulsory_misses", "expert_accesses"))
    if first is not None and count:
        yield f"First uses, which miss in every cache: {int(first):,} of {int(count):,} accesses in {phase} ({percent(first / count)})."
