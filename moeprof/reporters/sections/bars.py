"""The bar of a short report: where the time goes, what becomes of accesses, or how uneven devices and experts are."""

from collections.abc import Iterator, Mapping, Sequence

from moeprof.analysis.caching import replay_results
from moeprof.analysis.caching.advice import LOWER_BOUND, advise
from moeprof.analysis.placement import balance_results
from moeprof.analysis.placement.balance_results import balancer_value
from moeprof.analysis.routing.hot_set import recorded_hot_set
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.policies.balancing.contiguous import CONTIGUOUS
from moeprof.records.regions import OTHER, REGIONS
from moeprof.reporters.cells import duration, percent
from moeprof.reporters.documents.document import Stacked
from moeprof.reporters.sections.caches import size_name
from moeprof.reporters.sections.offloading import decode_first
from moeprof.reporters.sections.speed import region_time
from moeprof.reporters.shading import letters

NAMED = 4
"""Regions that a bar names; the others are parts of `other`."""
REST = ""
"""The blank end of a bar."""

Bars = Mapping[str, Mapping[str, float]]
"""The parts of every bar, by its label."""


def bars_of(metrics: RunMetrics) -> Iterator[Stacked]:
    """The bars of a run, the most important first; `metrics` of a replay are those of `of_replay`."""
    record = metrics.record
    if record.recipe is None:
        bars = {"replay": access_bar, "balance": device_bar, "offloading": use_bars, "characterization": hot_set_bar}
        yield from bars[record.origin](metrics)
        return
    variants = list(dict.fromkeys((metrics.baseline, *record.routed_labels[-1:])))
    if len(variants) == 1:
        phases = with_times({phase: regions_within(metrics, phase, variants[0]) for phase in metrics.phases})
        yield from time_bars("Step by region", {label: shares(step) for label, step in phases.items()})
        return
    for phase in metrics.phases:
        steps = with_times({variant: regions_within(metrics, phase, variant) for variant in variants})
        longest = max((sum(step.values()) for step in steps.values()), default=0.0)
        scaled = {name: {part: time / longest for part, time in step.items()} for name, step in steps.items()}
        yield from time_bars(f"{phase} step by region", scaled)


def regions_within(metrics: RunMetrics, phase: str, variant: str) -> dict[str, float]:
    """The time of every region of a step, in ns; empty if it was not measured."""
    times = {region: region_time(metrics, phase, variant, region) for region in REGIONS}
    return {region: time for region, time in times.items() if time}


def with_times(steps: Bars) -> Bars:
    """The steps that were measured, with their time in the label."""
    return {f"{label} {duration(sum(step.values()))}": step for label, step in steps.items() if step}


def shares(step: Mapping[str, float]) -> dict[str, float]:
    """The share of every region."""
    return {region: time / sum(step.values()) for region, time in step.items()}


def time_bars(title: str, bars: Bars) -> Iterator[Stacked]:
    """Bars of the regions with the largest shares, in order of execution; the rest is `other`, and blank up to the longest bar."""
    most = {region: max(bar.get(region, 0.0) for bar in bars.values()) for region in REGIONS} if bars else {}
    named = sorted((region for region in most if region != OTHER and most[region]), key=lambda region: -most[region])[:NAMED]
    parts = [region for region in REGIONS if region in named]
    merged = {
        label: {part: bar.get(part, 0.0) for part in parts}
        | {OTHER: sum(bar.values()) - sum(bar.get(part, 0.0) for part in parts)}
        for label, bar in bars.items()
    }
    yield from filled(title, [*parts, OTHER], merged)


def filled(title: str, parts: Sequence[str], bars: Bars) -> Iterator[Stacked]:
    """Bars on a scale from 0 to 1 whose ends are blank, with a legend in the title; none without any."""
    if bars:
        legend = ", ".join(f"{letter} {part}" for part, letter in zip(parts, letters(parts), strict=True))
        fractions = [[max(bar.get(part, 0.0), 0.0) for part in parts] for bar in bars.values()]
        lengths = [[*values, max(1 - sum(values), 0.0)] for values in fractions]
        yield Stacked(f"{title}: {legend}", [*parts, REST], list(zip(bars, lengths, strict=True)))


def access_bar(results: RunMetrics) -> Iterator[Stacked]:
    """What becomes of all accesses of a phase under the recommended policy and size."""
    phases = replay_results.phases(results)
    advice = advise(results, phases[0]) if phases else None
    if advice is None:
        return
    first, count = map(results.at(phase=advice.phase).or_none, ("compulsory_misses", "expert_accesses"))
    bound = replay_results.policy_value(results, "miss_rate", advice.phase, LOWER_BOUND, advice.size)
    compulsory = first / count if first is not None and count else 0.0
    least = advice.miss_rate if bound is None else min(bound, advice.miss_rate)
    parts = {
        "hit": 1 - advice.miss_rate,
        "compulsory miss": compulsory,
        "miss under MIN too": max(least - compulsory, 0.0),
        f"further miss under {advice.policy}": advice.miss_rate - max(least, compulsory),
    }
    known = {part: value for part, value in parts.items() if value > 0}
    yield from filled(f"Accesses in {advice.phase} with {size_name(results, advice.size)}", list(known), {advice.policy: known})


def use_bars(metrics: RunMetrics) -> Iterator[Stacked]:
    """What becomes of the uses of experts under every replayed offloading system, a bar per phase, decode first."""
    parts = ["hit", "loaded", "loaded in low precision", "skipped"]
    for phase in decode_first(metrics.phases):
        bars = {}
        for system in metrics.distinct("variant", "unit_uses", phase=phase):
            here = metrics.at(phase=phase, variant=system)
            uses, skipped = here.value("unit_uses"), here.value("skipped_uses")
            high, low = (sum(values) for values in split_loads(here))
            whole = float(uses + skipped)
            counts = (float(uses) - high - low, high, low, float(skipped))
            bars[system] = {part: count / whole for part, count in zip(parts, counts, strict=True)} if whole else {}
        used = [part for part in parts if any(bar.get(part) for bar in bars.values())]
        yield from filled(f"Uses of experts, {phase}", used, bars)


def split_loads(here: RunMetrics) -> tuple[list[float], list[float]]:
    """Loads on demand at the model's own precision, and in low precisions."""
    found: tuple[list[float], list[float]] = [], []
    for precision in here.distinct("category", "unit_hit_rate"):
        missed = here.value("unit_uses", category=precision) * (1 - here.value("unit_hit_rate", category=precision))
        found[precision != "high"].append(float(missed))
    return found


def device_bar(results: RunMetrics) -> Iterator[Stacked]:
    """The share of the busiest device, contiguous and under the best placement without copies, over the even share."""
    devices = results.record.balanced.focus
    for phase in balance_results.phases(results):
        best = balance_results.best(results, phase, devices, copies=False)
        names = [CONTIGUOUS.name, *([best[0]] if best else [])]
        found = {name: balancer_value(results, "avg_max_load", phase, name, devices) for name in names}
        known = {name: value for name, value in found.items() if value}
        even, longest = 1 / devices, max(known.values(), default=1.0)
        bars = {
            f"{name} {percent(value)}": {"even share": even / longest, "above it": (value - even) / longest}
            for name, value in known.items()
        }
        yield from filled(f"Busiest of {devices} devices, {phase}", ["even share", "above it"], bars)


def hot_set_bar(metrics: RunMetrics) -> Iterator[Stacked]:
    """The held-out choices that the hot set serves, and those that as many random experts would serve."""
    found = {phase: recorded_hot_set(metrics, phase) for phase in metrics.phases}
    parts = ["by chance", "hot set beyond it", "missed"]
    bars = {
        f"{phase} {percent(one.share)}": {
            parts[0]: min(one.chance, one.share),
            parts[1]: max(one.share - one.chance, 0.0),
            parts[2]: 1 - one.share,
        }
        for phase, one in found.items()
        if one
    }
    size = next((one.size for one in found.values() if one), 0)
    yield from filled(f"Choices served by {size} experts per layer", parts, bars)
