"""What a replay of placements says: whether moving or copying experts is worth it, and what the text has to do with it."""

from collections.abc import Iterator

from moeprof.analysis.placement import balance_results
from moeprof.analysis.placement.balance_results import balancer_value
from moeprof.analysis.placement.balance_rows import HALVES
from moeprof.analysis.placement.gain import WORTH, Gain
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.policies.balancing.contiguous import CONTIGUOUS
from moeprof.records.run.replay import ALL
from moeprof.records.units import format_bytes
from moeprof.reporters.cells import duration, percent
from moeprof.reporters.documents.document import Block, Heading
from moeprof.reporters.sections.devices import phase_blocks

PHASE_TITLES = {
    "decode": "decode: one token per sequence and step",
    "prefill": "prefill: whole sequences in a step",
    ALL: "all choices of a domain at once",
}


def summary(results: RunMetrics) -> list[str]:
    """At most ten statements; nothing where the replay has no numbers."""
    lines: list[str] = []
    for phase in balance_results.phases(results)[:2]:
        lines += [*verdict_lines(results, phase), *copies_line(results, phase)]
    for phase in balance_results.phases(results)[:1]:
        lines += [*move_line(results, phase), *wait_line(results, phase), *domain_line(results, phase)]
    return [*lines, *what_line(results)]


def body(results: RunMetrics) -> Iterator[Block]:
    """Each phase."""
    for phase in balance_results.phases(results):
        yield Heading(f"Phase {PHASE_TITLES.get(phase, phase)}")
        yield from phase_blocks(results, phase)


def verdict_lines(results: RunMetrics, phase: str) -> Iterator[str]:
    """Whether to move experts, by how much on steps that the placement has not seen, and what would change that."""
    devices = results.record.balanced.focus
    best = balance_results.best(results, phase, devices, copies=False) or balance_results.best(
        results, phase, devices, copies=True
    )
    if best is None:
        return
    name, gain = best
    before, after = (balancer_value(results, "avg_max_load", phase, one, devices) or 0.0 for one in (CONTIGUOUS.name, name))
    floor = balance_results.floor(results, "avg_max_load", phase, devices)
    beside = f"ideal {percent(1 / devices)}" + (f", floor without copies {percent(floor)}" if floor is not None else "")
    yield (
        f"{name} on {devices} devices, {phase}: {gain.verdict}. The busiest device takes {percent(after)} of a step's choices in the "
        f"mean, {percent(before)} under contiguous placement ({beside})."
    )
    yield f"Gain, {phase}: {interval(gain)} on {gain.steps} steps that the placement has not seen. {change(gain, before, floor)}"


def interval(gain: Gain) -> str:
    """`7.4% (5.6% to 9.2%)`."""
    return f"{percent(gain.value)} ({percent(gain.low)} to {percent(gain.high)}, 95%)"


def change(gain: Gain, before: float, floor: float | None) -> str:
    """The number that would turn the verdict."""
    threshold = before * (1 - WORTH)
    if gain.verdict == "recommended":
        return f"It would not be recommended if the mean share stayed above {percent(threshold)}, {percent(WORTH)} below contiguous."
    if gain.verdict == "not recommended":
        out = ", which no placement without copies can" if floor is not None and floor > threshold else ""
        return f"It would be recommended if it brought the mean share below {percent(threshold)}{out}."
    needed = gain.steps_needed
    if needed is None:
        return f"The gain lies at the {percent(WORTH)} that decide; no number of steps would tell."
    return f"About {needed:,} test steps like these would tell whether it is above {percent(WORTH)}."


def copies_line(results: RunMetrics, phase: str) -> Iterator[str]:
    """What copies of hot experts add, and what they take."""
    devices = results.record.balanced.focus
    best = balance_results.best(results, phase, devices, copies=True)
    plain = balance_results.best(results, phase, devices, copies=False)
    if best is None or plain is None:
        return
    name, gain = best
    slots = [balancer_value(results, "device_slots", phase, one, devices) or 0 for one in (name, CONTIGUOUS.name)]
    size = sum(results.record.balanced.trace.expert_bytes.values()) * int(slots[0] - slots[1])
    memory = f" ({format_bytes(size)} more on each device)" if size else ""
    yield (
        f"With copies, {phase}: {name} with {int(slots[0])} instead of {int(slots[1])} experts of a layer on each device{memory} "
        f"gains {interval(gain)}: {gain.verdict}."
    )


def move_line(results: RunMetrics, phase: str) -> Iterator[str]:
    """The price of the first recommendation."""
    devices = results.record.balanced.focus
    best = balance_results.best(results, phase, devices, copies=False)
    moved = balancer_value(results, "moved_experts", phase, best[0], devices) if best else None
    if best is None or moved is None:
        return
    size = balancer_value(results, "moved_bytes", phase, best[0], devices)
    told = f", {format_bytes(size)} of weights" if size else ""
    yield f"Move: {best[0]} takes {int(moved):,} experts of all layers to another device{told}, once."


def wait_line(results: RunMetrics, phase: str) -> Iterator[str]:
    """Modelled all-to-alls and the waiting in them."""
    devices = results.record.balanced.focus
    best = balance_results.best(results, phase, devices, copies=False)
    if best is None:
        return
    names = (CONTIGUOUS.name, best[0])
    waits = [balancer_value(results, "virtual_wait_time", phase, name, devices) for name in names]
    takes = [balancer_value(results, "virtual_comm_time", phase, name, devices) for name in names]
    if waits[0] is None or waits[1] is None or takes[0] is None or takes[1] is None:
        return
    yield (
        f"All-to-alls (modelled): {duration(takes[1])} per {phase} step over all layers, in which the mean device waits "
        f"{duration(waits[1])}; under contiguous placement {duration(takes[0])} and {duration(waits[0])}."
    )


def domain_line(results: RunMetrics, phase: str) -> Iterator[str]:
    """What a placement is worth on a text that it was not made from."""
    devices = results.record.balanced.focus
    choices = (balance_results.best_elsewhere(results, phase, devices, copies=copies) for copies in (False, True))
    best = next(filter(None, choices), None)
    means = [balance_results.load_elsewhere(results, phase, name, devices) for name in (best or "", CONTIGUOUS.name)]
    if best is None or means[0] is None or means[1] is None:
        return
    drift = results.at(phase=phase)
    known = [
        drift.value("load_divergence", category=pair) for pair in balance_results.drift_pairs(results, phase) if pair != HALVES
    ]
    far = f"; their loads are up to {max(known):.3f} bits apart (0 the same, 1 nothing in common)" if known else ""
    yield (
        f"Other texts: placed by one domain and judged on another, {best} on {devices} devices brings the busiest to "
        f"{percent(means[0])} in the mean over all pairs, contiguous placement to {percent(means[1])}{far}."
    )


def what_line(results: RunMetrics) -> Iterator[str]:
    """What was placed and judged."""
    trace = results.record.balanced.trace
    if not balance_results.phases(results):
        return
    told = [
        f"{int(history):,} + {int(test):,} in {phase}"
        for phase in balance_results.phases(results)
        if (history := results.or_none("history_steps", phase=phase)) is not None
        and (test := results.or_none("test_steps", phase=phase)) is not None
    ]
    steps = f"; steps of history and of test: {' and '.join(told)}" if told else ""
    yield f"Loads: {trace.num_experts} experts in each of {len(trace.layers)} layers, top {trace.top_k}{steps}."
    if trace.forced:
        yield "Routing was forced: these loads are not this model's own."
