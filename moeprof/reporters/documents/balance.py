"""What a replay of placements says: whether moving or copying experts is worth it, and what the text has to do with it."""

from collections.abc import Iterator

from moeprof.analysis.balanced import Balanced
from moeprof.analysis.placement.balance_rows import HALVES
from moeprof.analysis.placement.gain import WORTH, Gain
from moeprof.policies.balancing.contiguous import CONTIGUOUS
from moeprof.records.run.replay import ALL
from moeprof.records.units import format_bytes
from moeprof.reporters.documents.document import Block, Heading
from moeprof.reporters.numbers import duration, percent
from moeprof.reporters.sections.devices import phase_blocks

PHASE_TITLES = {
    "decode": "decode: one token per sequence and step",
    "prefill": "prefill: whole sequences in a step",
    ALL: "all choices of a domain at once",
}


def summary(balanced: Balanced) -> list[str]:
    """At most ten statements; nothing where the replay has no numbers."""
    lines: list[str] = []
    for phase in balanced.phases[:2]:
        lines += [*verdict_lines(balanced, phase), *copies_line(balanced, phase)]
    for phase in balanced.phases[:1]:
        lines += [*move_line(balanced, phase), *wait_line(balanced, phase), *domain_line(balanced, phase)]
    return [*lines, *what_line(balanced)]


def body(balanced: Balanced) -> Iterator[Block]:
    """Each phase."""
    for phase in balanced.phases:
        yield Heading(f"Phase {PHASE_TITLES.get(phase, phase)}")
        yield from phase_blocks(balanced, phase)


def verdict_lines(balanced: Balanced, phase: str) -> Iterator[str]:
    """Whether to move experts, by how much on steps that the placement has not seen, and what would change that."""
    devices = balanced.balance.focus
    best = balanced.best(phase, devices, copies=False) or balanced.best(phase, devices, copies=True)
    if best is None:
        return
    name, gain = best
    before, after = (balanced.get("avg_max_load", phase, one, devices) or 0.0 for one in (CONTIGUOUS.name, name))
    floor = balanced.get("avg_max_load_floor", phase, devices=devices)
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


def copies_line(balanced: Balanced, phase: str) -> Iterator[str]:
    """What copies of hot experts add, and what they take."""
    devices = balanced.balance.focus
    best = balanced.best(phase, devices, copies=True)
    plain = balanced.best(phase, devices, copies=False)
    if best is None or plain is None:
        return
    name, gain = best
    slots = [balanced.get("device_slots", phase, one, devices) or 0 for one in (name, CONTIGUOUS.name)]
    size = sum(balanced.balance.trace.expert_bytes.values()) * int(slots[0] - slots[1])
    memory = f" ({format_bytes(size)} more on each device)" if size else ""
    yield (
        f"With copies, {phase}: {name} with {int(slots[0])} instead of {int(slots[1])} experts of a layer on each device{memory} "
        f"gains {interval(gain)}: {gain.verdict}."
    )


def move_line(balanced: Balanced, phase: str) -> Iterator[str]:
    """The price of the first recommendation."""
    devices = balanced.balance.focus
    best = balanced.best(phase, devices, copies=False)
    moved = balanced.get("moved_experts", phase, best[0], devices) if best else None
    if best is None or moved is None:
        return
    size = balanced.get("moved_bytes", phase, best[0], devices)
    told = f", {format_bytes(size)} of weights" if size else ""
    yield f"Move: {best[0]} takes {int(moved):,} experts of all layers to another device{told}, once."


def wait_line(balanced: Balanced, phase: str) -> Iterator[str]:
    """Modelled all-to-alls and the waiting in them."""
    devices = balanced.balance.focus
    best = balanced.best(phase, devices, copies=False)
    if best is None:
        return
    names = (CONTIGUOUS.name, best[0])
    waits = [balanced.get("virtual_wait_time", phase, name, devices) for name in names]
    takes = [balanced.get("virtual_comm_time", phase, name, devices) for name in names]
    if waits[0] is None or waits[1] is None or takes[0] is None or takes[1] is None:
        return
    yield (
        f"All-to-alls (modelled): {duration(takes[1])} per {phase} step over all layers, in which the mean device waits "
        f"{duration(waits[1])}; under contiguous placement {duration(takes[0])} and {duration(waits[0])}."
    )


def domain_line(balanced: Balanced, phase: str) -> Iterator[str]:
    """What a placement is worth on a text that it was not made from."""
    devices = balanced.balance.focus
    best = balanced.best_elsewhere(phase, devices, copies=False) or balanced.best_elsewhere(phase, devices, copies=True)
    means = [balanced.elsewhere(phase, name, devices) for name in (best or "", CONTIGUOUS.name)]
    if best is None or means[0] is None or means[1] is None:
        return
    drift = [balanced.get("load_divergence", phase, category=pair) for pair in balanced.drifts(phase) if pair != HALVES]
    known = [value for value in drift if value is not None]
    far = f"; their loads are up to {max(known):.3f} bits apart (0 the same, 1 nothing in common)" if known else ""
    yield (
        f"Other texts: placed by one domain and judged on another, {best} on {devices} devices brings the busiest to "
        f"{percent(means[0])} in the mean over all pairs, contiguous placement to {percent(means[1])}{far}."
    )


def what_line(balanced: Balanced) -> Iterator[str]:
    """What was placed and judged."""
    trace = balanced.balance.trace
    if not balanced.phases:
        return
    told = [
        f"{int(history):,} + {int(test):,} in {phase}"
        for phase in balanced.phases
        if (history := balanced.get("history_steps", phase)) is not None
        and (test := balanced.get("test_steps", phase)) is not None
    ]
    steps = f"; steps of history and of test: {' and '.join(told)}" if told else ""
    yield f"Loads: {trace.num_experts} experts in each of {len(trace.layers)} layers, top {trace.top_k}{steps}."
    if trace.forced:
        yield "Routing was forced: these loads are not this model's own."
