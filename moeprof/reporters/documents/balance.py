"""The report on a replay of placements: whether to move or copy experts, and how the answer depends on the text."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from moeprof.analysis.placement import balance_results
from moeprof.analysis.placement.balance_results import balancer_value
from moeprof.analysis.placement.gain import WORTH, Gain
from moeprof.analysis.routing.drift import HALVES
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.policies.balancing.contiguous import CONTIGUOUS
from moeprof.records.run.replay import ALL
from moeprof.records.units import format_bytes
from moeprof.reporters.cells import at_once, duration, interval, percent
from moeprof.reporters.documents.document import Block, Heading
from moeprof.reporters.sections.devices import phase_blocks
from moeprof.reporters.sections.rebalancing import repeat_lines, step_size
from moeprof.reporters.sections.replicas import replica_lines
from moeprof.reporters.sections.totals import totals_line

PHASE_TITLES = {
    "decode": "decode: one token per sequence and step",
    "prefill": "prefill: whole sequences in a step",
    ALL: "all choices of a domain at once",
}


def summary(results: RunMetrics) -> list[str]:
    """The most important statements; none if the replay has no numbers."""
    lines: list[str] = []
    phases = balance_results.phases(results)
    for phase in phases[:2]:
        lines += [*totals_line(results, phase), *verdict_lines(results, phase), *copies_line(results, phase)]
        lines += step_size_lines(results, phase)
        lines += [*replica_lines(results, phase), *repeat_lines(results, phase)]
    for phase in phases[:1]:
        lines += [*move_line(results, phase), *wait_line(results, phase), *domain_line(results, phase)]
    return [*lines, *trace_lines(results)]


def body(results: RunMetrics) -> Iterator[Block]:
    """Device loads, phase by phase."""
    for phase in balance_results.phases(results):
        regrouped = results.record.balanced.tokens_per_step
        title = f"{phase}{step_size(results, phase)}, consecutive" if regrouped else PHASE_TITLES.get(phase, phase)
        yield Heading(f"Phase {title}")
        yield from phase_blocks(results, phase)


def verdict_lines(results: RunMetrics, phase: str) -> Iterator[str]:
    """Whether to move experts, the gain on held-out steps, and the threshold."""
    devices = results.record.balanced.focus
    best = balance_results.best(results, phase, devices, copies=False) or balance_results.best(
        results, phase, devices, copies=True
    )
    if best is None:
        return
    name, gain = best
    before, after = (balancer_value(results, "avg_max_load", phase, one, devices) or 0.0 for one in (CONTIGUOUS.name, name))
    if balance_results.at_floor(results, phase, devices):
        yield (
            f"Placement ({phase}, {devices} devices{step_size(results, phase)}): contiguous. {floor_sentence(results, phase)} "
            f"(ideal {percent(1 / devices)})."
        )
        return
    floor = balance_results.floor(results, "avg_max_load", phase, devices)
    limits = f"ideal {percent(1 / devices)}" + (f", floor without copies {percent(floor)}" if floor is not None else "")
    yield (
        f"Placement ({phase}, {devices} devices{step_size(results, phase)}): {name}, {gain.verdict}. The busiest device gets "
        f"{percent(after)} of a step's choices on average, {percent(before)} under contiguous placement ({limits})."
    )
    among = at_once(balance_results.compared(results, phase, devices), "balancers")
    yield f"Gain ({phase}): {interval(gain)} on {gain.steps} held-out steps{among}. {threshold(gain, before, floor)}"


def floor_sentence(results: RunMetrics, phase: str) -> str:
    """Why no placement without copies helps, if contiguous placement reaches the floor; without the full stop."""
    balance = results.record.balanced
    before = balancer_value(results, "avg_max_load", phase, CONTIGUOUS.name, balance.focus) or 0.0
    why = "with one expert on each" if balance.focus == balance.trace.num_experts else "the floor without copies"
    return (
        f"The busiest of {balance.focus} devices gets {percent(before)} of a step's choices on average, {why}: no placement without "
        "copies lowers that"
    )


def step_size_lines(results: RunMetrics, phase: str) -> Iterator[str]:
    """How the verdicts depend on the number of tokens per step, and where they change."""
    for copies in (False, True):
        found = balance_results.step_sizes(results, phase, copies=copies)
        if len(found) < 2:
            continue
        (first, name, gain), *others = found
        sizes = [f"at {first:,} token{'s' * (first > 1)} per step, {name} gains {percent(gain.value)} ({gain.verdict})"]
        sizes += [f"at {tokens:,}, {name} {percent(gain.value)} ({gain.verdict})" for tokens, name, gain in others]
        changes = next(flips(found), "The verdict is the same for all.")
        yield f"Step size ({phase}, {'with' if copies else 'without'} copies): {'; '.join(sizes)}. {changes}"


def flips(found: Sequence[tuple[int, str, Gain]]) -> Iterator[str]:
    """Between which numbers of tokens per step, rising, the verdict changes; nothing if it does not."""
    changes = [f"between {one[0]:,} and {other[0]:,}" for one, other in pairwise(found) if one[2].verdict != other[2].verdict]
    if changes:
        yield f"The verdict changes {' and '.join(changes)} tokens per step."


def threshold(gain: Gain, before: float, floor: float | None, unit: str = "device") -> str:
    """The busiest-device share that decides, or how many steps would decide; `before` is the share under contiguous placement."""
    limit = before * (1 - WORTH)
    out_of_reach = floor is not None and floor > limit
    if out_of_reach or gain.verdict != "too little evidence":
        remark = "; no placement without copies reaches it" if out_of_reach else ""
        return f"Threshold: busiest-{unit} share below {percent(limit)} ({WORTH:.0%} better than contiguous){remark}."
    needed = gain.steps_needed
    if needed is None:
        return f"The gain is too close to the {WORTH:.0%} threshold for any number of steps to decide."
    return f"About {needed:,} such test steps would decide whether the gain exceeds {WORTH:.0%}."


def copies_line(results: RunMetrics, phase: str) -> Iterator[str]:
    """What copies of hot experts gain, and the memory they cost."""
    devices = results.record.balanced.focus
    best = balance_results.best(results, phase, devices, copies=True)
    if best is None or balance_results.best(results, phase, devices, copies=False) is None:
        return
    name, gain = best
    slots, usual = (int(balancer_value(results, "device_slots", phase, one, devices) or 0) for one in (name, CONTIGUOUS.name))
    size = sum(results.record.balanced.trace.expert_bytes.values()) * (slots - usual)
    memory = f" ({format_bytes(size)} more per device)" if size else ""
    yield (
        f"Copies ({phase}): {name} with {slots} instead of {usual} experts per layer and device{memory} gains {interval(gain)}: "
        f"{gain.verdict}."
    )


def move_line(results: RunMetrics, phase: str) -> Iterator[str]:
    """The cost of deploying the best placement without copies."""
    devices = results.record.balanced.focus
    best = balance_results.best(results, phase, devices, copies=False)
    moved = balancer_value(results, "moved_experts", phase, best[0], devices) if best else None
    if best is None or moved is None or balance_results.at_floor(results, phase, devices):
        return
    size = balancer_value(results, "moved_bytes", phase, best[0], devices)
    weights = f" ({format_bytes(size)} of weights)" if size else ""
    yield f"Move: {best[0]} moves {int(moved):,} experts of all layers{weights} to another device, once."


def wait_line(results: RunMetrics, phase: str) -> Iterator[str]:
    """Modelled all-to-all time, and the waiting it contains."""
    devices = results.record.balanced.focus
    best = balance_results.best(results, phase, devices, copies=False)
    if best is None:
        return
    names = (best[0], CONTIGUOUS.name)
    waits = [balancer_value(results, "virtual_wait_time", phase, name, devices) for name in names]
    takes = [balancer_value(results, "virtual_comm_time", phase, name, devices) for name in names]
    if waits[0] is None or waits[1] is None or takes[0] is None or takes[1] is None:
        return
    yield (
        f"All-to-all (modelled): {duration(takes[0])} per {phase} step over all layers, including {duration(waits[0])} of waiting (mean "
        f"device); {duration(takes[1])} and {duration(waits[1])} under contiguous placement."
    )


def domain_line(results: RunMetrics, phase: str) -> Iterator[str]:
    """How a placement does on a text that it was not made for."""
    devices = results.record.balanced.focus
    choices = (balance_results.best_elsewhere(results, phase, devices, copies=copies) for copies in (False, True))
    best = next(filter(None, choices), None)
    means = [balance_results.load_elsewhere(results, phase, name, devices) for name in (best or "", CONTIGUOUS.name)]
    if best is None or means[0] is None or means[1] is None:
        return
    here = results.at(phase=phase)
    pairs = [pair for pair in balance_results.drift_pairs(results, phase) if pair != HALVES]
    drift = max((here.value("load_divergence", category=pair) for pair in pairs), default=None)
    apart = f"; their loads differ by up to {drift:.3f} bits (0 identical, 1 disjoint)" if drift is not None else ""
    yield (
        f"Other texts: if one domain decides the placement and another is tested, the busiest of {devices} devices gets "
        f"{percent(means[0])} under {best} and {percent(means[1])} under contiguous placement (mean over domain pairs){apart}."
    )


def trace_lines(results: RunMetrics) -> Iterator[str]:
    """What was placed, and on how many steps it was tested."""
    trace, phases = results.record.balanced.trace, balance_results.phases(results)
    if not phases:
        return
    steps = []
    for phase in phases:
        history, test = map(results.at(phase=phase).or_none, ("history_steps", "test_steps"))
        if history is not None and test is not None:
            steps.append(f"{int(history):,} + {int(test):,} in {phase}")
    split = f"; history + test steps: {', '.join(steps)}" if steps else ""
    yield f"Trace: {trace.num_experts} experts in each of {len(trace.layers)} layers{trace.choices_of_a_token}{split}."
    if trace.forced:
        yield "Routing was forced: the loads are not those of this model."
