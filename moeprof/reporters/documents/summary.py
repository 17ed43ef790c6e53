"""The ten lines that a reader in a hurry takes along."""

from collections.abc import Iterator

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.run.run import Run
from moeprof.records.units import format_bytes
from moeprof.reporters.cells import count, duration, percent, rate, times

MOST = 10
"""Lines; doubts are never among those that are left out."""

VERBS = {"score": "Scoring", "encode": "Encoding", "decode": "Decoding"}


def summary(run: Run, metrics: RunMetrics) -> list[str]:
    """At most ten statements, each with its number."""
    phases: list[str] = [phase for phase in run.record.ran.phases if phase in metrics.phases]
    lines = [
        *model_lines(run, metrics),
        *(line for phase in phases for line in speed_line(metrics, phase)),
        *quality_line(metrics, phases),
        *waste_line(metrics, phases),
        *drop_line(metrics, phases),
        *activity_line(run, metrics, phases),
        *traffic_line(run, metrics, phases, "static"),
        *balance_line(metrics, phases),
    ]
    doubts = list(trust_line(run))
    return [*lines[: MOST - len(doubts)], *doubts]


def model_lines(run: Run, metrics: RunMetrics) -> Iterator[str]:
    """The model and its twin by size."""
    model, gating = run.record.ran.model, run.record.ran.gating
    ours, twin = metrics.or_none("num_parameters", variant="static"), metrics.or_none("num_parameters", variant="dense")
    experts, size = metrics.or_none("expert_parameters", variant="static"), metrics.or_none("memory_static", variant="static")
    flops, twin_flops = (
        metrics.or_none("flops_per_token", variant="static"),
        metrics.or_none("flops_per_token", variant="dense"),
    )
    if not (ours and twin and experts and size and flops and twin_flops):
        return
    whose = " on each rank" if run.record.ran.parallel.ranks > 1 else ""
    yield (
        f"The model has {count(ours)} parameters ({format_bytes(size)}{whose}), {percent(experts / ours)} of them in "
        f"{model.experts} experts per MoE layer, of which a token uses {gating.top_k}; its dense twin has {count(twin)}."
    )
    yield f"Per token the model needs {times(flops / twin_flops)} the arithmetic of the twin; what it takes beyond that is overhead."


def speed_line(metrics: RunMetrics, phase: str) -> Iterator[str]:
    """How fast, and how much slower than the twin."""
    speed, latency = (
        metrics.or_none("throughput", phase=phase, variant="static"),
        metrics.or_none("step_latency", phase=phase, variant="static"),
    )
    slowdown = metrics.or_none("slowdown_vs_dense", phase=phase, variant="static")
    if speed and latency and slowdown:
        yield f"{VERBS[phase]}: {rate(speed)} tokens/s, {duration(latency)} a step, {times(slowdown)} the time of the dense twin."


def waste_line(metrics: RunMetrics, phases: list[str]) -> Iterator[str]:
    """Slots computed over slots needed."""
    wastes = {phase: metrics.or_none("waste_factor", phase=phase, variant="static") for phase in phases}
    told = [f"{times(waste)} ({phase})" for phase, waste in wastes.items() if waste]
    if told:
        yield f"Waste: static gating computes {', '.join(told)} as many expert slots as the tokens need."


def drop_line(metrics: RunMetrics, phases: list[str]) -> Iterator[str]:
    """What capacity loses."""
    drops = {phase: metrics.or_none("dropped_tokens", phase=phase, variant="static") for phase in phases}
    told = [f"{percent(drop)} ({phase})" for phase, drop in drops.items() if drop is not None]
    if any(drops.values()):
        yield f"Dropped: {', '.join(told)} of the tokens lose at least one of their experts in a layer, because it is full."
    elif told:
        yield "Dropped: no token loses an expert; the capacity is never reached."


def activity_line(run: Run, metrics: RunMetrics, phases: list[str]) -> Iterator[str]:
    """How many experts a step leaves idle, and how much of that is arithmetic."""
    told = []
    for phase in phases:
        idle, bound = (
            metrics.or_none("inactive_fraction", phase=phase, variant="static"),
            metrics.or_none("active_bound", phase=phase, variant="static"),
        )
        if idle is not None and bound is not None:
            floor = 1 - bound / run.record.ran.model.experts
            why = f", {percent(floor)} because it has so few tokens" if floor > 0 else ""
            told.append(f"{percent(idle)} ({phase}{why})")
    if told:
        yield f"Idle: {' and '.join(told)} of the experts have nothing to do in a step."


def quality_line(metrics: RunMetrics, phases: list[str]) -> Iterator[str]:
    """How well the model does its work."""
    for phase in phases:
        bits, chrf = (metrics.or_none(metric, phase=phase, variant="static") for metric in ("bits_per_byte", "chrf"))
        if bits is not None:
            yield f"Quality: {bits:.3f} bits per byte ({phase})."
        if chrf is not None:
            yield f"Quality: chrF {chrf:.1f} against the references ({phase})."


def balance_line(metrics: RunMetrics, phases: list[str]) -> Iterator[str]:
    """The worst imbalance of any layer."""
    found = [
        (value, phase, layer)
        for phase in phases
        for layer in metrics.layers(phase)
        if (value := metrics.or_none("load_max_over_mean", phase=phase, variant="static", layer=layer)) is not None
    ]
    if found:
        value, phase, layer = max(found)
        yield f"Balance: the hottest expert takes {times(value)} the mean load of its layer ({phase}, layer {layer})."


def traffic_line(run: Run, metrics: RunMetrics, phases: list[str], variant: str) -> Iterator[str]:
    """What ranks send each other, and how long they stand still for it."""
    told = []
    for phase in phases:
        crossing = metrics.or_none("comm_bytes", phase=phase, variant=variant, category="crossing")
        exposed, part = (
            metrics.or_none(metric, phase=phase, variant=variant) for metric in ("comm_exposed_time", "comm_share")
        )
        if crossing is not None and exposed is not None:
            share = f", {percent(part)} of it" if part is not None else ""
            told.append(f"{format_bytes(crossing)} a step and stand still for {duration(exposed)}{share} ({phase})")
    if told:
        yield f"Traffic: {run.record.ran.parallel.ranks} ranks send each other {'; '.join(told)}."


def trust_line(run: Run) -> Iterator[str]:
    """What speaks against the figures."""
    if run.record.ran.forced:
        yield f"Routing was forced ({run.record.ran.routing.source}): loads and drops are not this model's own."
    if run.record.noisy:
        yield f"{len(run.record.noisy)} of the timings vary by more than 10% between rounds: look at them with care."
