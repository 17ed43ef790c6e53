"""The report on a replay of caches: the recommended policy and size, the miss curves behind it, and the memory saved."""

from collections.abc import Iterator

from moeprof.analysis.caching import replay_results
from moeprof.analysis.caching.advice import CLOSE, LOWER_BOUND, Advice, advise, size_for
from moeprof.analysis.caching.knee import FEWEST_POINTS
from moeprof.analysis.caching.replay_results import size_point
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.run.replay import ALL
from moeprof.records.units import format_bytes
from moeprof.reporters.cells import duration, percent, times
from moeprof.reporters.documents.document import Block, Heading
from moeprof.reporters.sections.caches import curve_blocks, place, size_cell, size_name
from moeprof.reporters.sections.savings import saving_blocks

PHASE_TITLES = {
    "decode": "decode: one token per sequence and step",
    "prefill": "prefill: whole sequences in a step",
    ALL: "all: every phase, one after another",
}


def summary(results: RunMetrics) -> list[str]:
    """At most ten statements; none if the replay has no numbers."""
    phases = replay_results.phases(results)
    if not phases:
        return []
    advice = advise(results, phases[0])
    lines = [*setup_lines(results), *compulsory_line(results, phases[0])]
    if advice is None:
        return [*lines, "No recommendation: every replayed policy needs future accesses. Add an online one with --policy."]
    return [
        *advice_line(results, advice),
        *size_line(results, advice),
        *policy_line(results, advice),
        *time_line(results, advice),
        *memory_line(results, advice),
        *lines,
    ]


def body(results: RunMetrics) -> Iterator[Block]:
    """Miss rates phase by phase, then memory."""
    phases = replay_results.phases(results)
    for phase in phases:
        yield Heading(f"Phase {PHASE_TITLES.get(phase, phase)}")
        yield from curve_blocks(results, phase, advise(results, phase))
    if phases:
        yield from saving_blocks(results, advise(results, phases[0]))


def setup_lines(results: RunMetrics) -> Iterator[str]:
    """The trace, and how it was replayed."""
    replay = results.record.replayed
    accesses = [
        f"{int(results.value('expert_accesses', phase=phase)):,} accesses in {phase}"
        for phase in replay_results.phases(results)
        if phase != ALL
    ]
    spread = f" on {replay.devices} devices" if replay.devices > 1 else ""
    yield f"Trace: {replay.trace.num_experts} experts in each of {len(replay.trace.layers)} layers{spread}; {', '.join(accesses)}."
    cache = "one cache for all layers" if replay.budgets else "one cache per layer"
    access = "batch access (experts of a step stay until all are loaded)" if replay.access == "batch" else "sequential access"
    yield f"Setup: {cache}{' on each device' if spread else ''}, cold start, {access}."
    if replay.trace.forced:
        yield "Routing was forced: the misses are not those of this model."


def advice_line(results: RunMetrics, advice: Advice) -> Iterator[str]:
    """The recommended policy and size with their miss rate."""
    bound = replay_results.policy_value(results, "miss_rate", advice.phase, LOWER_BOUND, advice.size)
    remarks = [f"MIN, which needs future accesses: {percent(bound)}"] if bound is not None else []
    worst = replay_results.worst(results, advice.phase, advice.policy, advice.size)
    remarks += [f"worst, {place(*worst[1:])}: {percent(worst[0])}"] if worst else []
    details = f" ({'; '.join(remarks)})" if remarks else ""
    everything = advice.size == num_slots(results)
    what = "keep all experts resident" if everything else f"{advice.policy} with {size_in_words(results, advice.size)}"
    yield f"Recommendation: {what}. In {advice.phase}, {percent(advice.miss_rate)} of accesses miss{details}."


def num_slots(results: RunMetrics) -> int | None:
    """Experts of a layer on a device, which as many slots hold without evictions; None if budgets were swept."""
    replay = results.record.replayed
    return None if replay.budgets else replay.trace.num_experts // replay.devices


def size_in_words(results: RunMetrics, size: int) -> str:
    """`32 of 128 slots per layer`, `a budget of 2.00 GiB per device`."""
    replay = results.record.replayed
    if replay.budgets:
        return f"a budget of {format_bytes(size)}{' per device' if replay.devices > 1 else ''}"
    where = "per layer and device" if replay.devices > 1 else "per layer"
    return f"{size} of {num_slots(results)} slots {where}"


def size_line(results: RunMetrics, advice: Advice) -> Iterator[str]:
    """Why this size: the knee of the miss-rate curve, with the rates at half and double the size."""
    sizes, why = results.record.replayed.sizes, f"Why {size_cell(results, advice.size)}"
    if not advice.at_knee:
        few = len(sizes) < FEWEST_POINTS
        reason = "too few sizes were replayed to find a knee" if few else "the miss-rate curve has no knee"
        yield f"{why}: {reason}, so this is the largest replayed size."
        return
    rates = dict(replay_results.curve(results, "miss_rate", advice.phase, advice.policy))
    others = {
        name: min(sizes, key=lambda one: abs(one - factor * advice.size)) for name, factor in (("Half", 0.5), ("double", 2))
    }
    compared = [
        f"{name} ({size_cell(results, size)}): {percent(rates[size])} misses"
        for name, size in others.items()
        if size != advice.size
    ]
    yield f"{why}: it is the knee of the miss-rate curve. {'; '.join(compared)}."


def policy_line(results: RunMetrics, advice: Advice) -> Iterator[str]:
    """The range of sizes in which the policy is the best one, and the next best policy."""
    if not advice.rival or advice.size == num_slots(results):
        return
    close = " (about the same)" if advice.rival_rate - advice.miss_rate < CLOSE else ""
    yield (
        f"Policy: {best_range(results, advice)} Next best at {size_name(results, advice.size)}: {advice.rival}, "
        f"{percent(advice.rival_rate)} misses{close}."
    )


def best_range(results: RunMetrics, advice: Advice) -> str:
    """`lfu is best between 8 and 75 slots; below, batch-aware; above, lfu-reset.`"""
    sizes, below, above = results.record.replayed.sizes, advice.better_below, advice.better_above
    first = next((size for size in sizes if below and size > below[0]), sizes[0])
    last = next((size for size in reversed(sizes) if above and size < above[0]), sizes[-1])
    if below and above:
        both = f"between {size_cell(results, first)} and" if first != last else "at"
        return f"{advice.policy} is best {both} {size_name(results, last)}; below, {below[1]}; above, {above[1]}."
    if below:
        return f"{advice.policy} is best from {size_name(results, first)} on; below, {below[1]}."
    if above:
        return f"{advice.policy} is best up to {size_name(results, last)}; above, {above[1]}."
    return f"{advice.policy} is the best online policy at every replayed size."


def time_line(results: RunMetrics, advice: Advice) -> Iterator[str]:
    """Modelled copy time per step, and what would halve it."""
    spent = replay_results.policy_value(results, "transfer_time", advice.phase, advice.policy, advice.size)
    per_miss = results.or_none("copy_time")
    if spent is None or per_miss is None:
        return
    replay = results.record.replayed
    link, twice = (format_rate(factor * replay.bandwidth) for factor in (1, 2))
    exposed = replay_results.policy_value(results, "exposed_time", advice.phase, advice.policy, advice.size)
    visible = f"; {duration(exposed)} is exposed with {duration(replay.overlap_ns)} of overlap per layer" if exposed else ""
    step_ns = replay.trace.step_ns.get(advice.phase)
    measured = f" The recorded step took {duration(step_ns)}." if step_ns else ""
    enough = size_for(results, advice.phase, advice.policy, spent / 2)
    remedy = f"{size_name(results, enough)}, or a {twice} link" if enough else f"a {twice} link (no replayed size suffices)"
    yield (
        f"Time (modelled): copies take {duration(spent)} per {advice.phase} step at {link}, {duration(per_miss)} per miss{visible}."
        f"{measured} To halve this cost: {remedy}."
    )


def format_rate(bandwidth: int) -> str:
    """A bandwidth in decimal units, as links are sold: `12 GB/s`."""
    return f"{bandwidth / 1e9:g} GB/s"


def memory_line(results: RunMetrics, advice: Advice) -> Iterator[str]:
    """Memory saved at the recommended size, and at the smallest one, which is another operating point."""
    smallest = results.record.replayed.sizes[0]
    saved, most = (results.or_none("memory_saved", point=size_point(results, size)) for size in (advice.size, smallest))
    if saved is None or most is None:
        return
    line = f"Memory: {format_bytes(saved)} saved{relief(results, advice.size)}."
    rate = replay_results.policy_value(results, "miss_rate", advice.phase, advice.policy, smallest)
    if smallest != advice.size and rate is not None:
        line += (
            f" Upper bound: {size_name(results, smallest)} saves {format_bytes(most)}{relief(results, smallest)}, at a "
            f"{percent(rate)} miss rate."
        )
    yield line


def relief(results: RunMetrics, size: int) -> str:
    """` (12.9% of a device's weights, 1.15x reduction)`, or nothing if the shape of the model is unknown."""
    share, ratio = map(results.at(point=size_point(results, size)).or_none, ("memory_saved_share", "memory_reduction"))
    return "" if share is None or ratio is None else f" ({percent(share)} of a device's weights, {times(ratio)} reduction)"


def compulsory_line(results: RunMetrics, phase: str) -> Iterator[str]:
    """Misses that no cache avoids, because the expert was never used before."""
    first, count = map(results.at(phase=phase).or_none, ("compulsory_misses", "expert_accesses"))
    if first is not None and count:
        yield f"Compulsory misses: {int(first):,} of {int(count):,} accesses in {phase} ({percent(first / count)})."
