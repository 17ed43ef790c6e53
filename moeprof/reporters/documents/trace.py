"""The report on a trace that was characterized without a model: what its routing says, and what it cannot say."""

from collections.abc import Iterator, Sequence
from weakref import WeakKeyDictionary

from moeprof.analysis.routing.characterization import LayersByDomain, recorded_layers, whole_layers
from moeprof.analysis.routing.hot_set import FEWEST, WORTH, HotSet, elsewhere_shares, main_size, recorded_hot_set
from moeprof.analysis.routing.load_matrix import LoadMatrix
from moeprof.analysis.routing.prediction import FIRST_HALF, PROMPT
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.metrics.point import format_point
from moeprof.records.run.replay import ALL, DECODE
from moeprof.records.run.run import Run
from moeprof.records.units import format_significant
from moeprof.reporters.cells import percent, plural, times
from moeprof.reporters.documents.document import Block, Details, Heading
from moeprof.reporters.sections.correlation import correlation_maps
from moeprof.reporters.sections.experts import batch_maps, load_map
from moeprof.reporters.sections.locality import correlation_table, drift_blocks
from moeprof.reporters.sections.prediction import distinct_table, hot_set_blocks, prediction_table, swept
from moeprof.reporters.sections.trace_layers import load_table, locality_table

PHASE_TITLES = {
    "prefill": "prefill: the tokens of a prompt in one step",
    "score": "score: whole sequences in one pass",
    "encode": "encode: source sentences in one pass",
    "decode": "decode: one token per sequence and step",
    ALL: "all: counted choices",
}

BODIES: WeakKeyDictionary[Run, list[Block]] = WeakKeyDictionary()
"""The blocks after the summary, of runs that are being reported: every format shows the same ones."""


def body(run: Run, metrics: RunMetrics) -> list[Block]:
    """Experts, hot experts, locality and drift, phase by phase; made once for a run."""
    if run not in BODIES:
        BODIES[run] = list(blocks_of(run, metrics))
    return BODIES[run]


def blocks_of(run: Run, metrics: RunMetrics) -> Iterator[Block]:
    """The blocks of every phase, each with its heading."""
    for phase, layers in recorded_layers(run).items():
        yield Heading(f"Phase {PHASE_TITLES.get(phase, phase)}")
        whole = whole_layers(run)[phase]
        yield from phase_blocks(metrics, phase, layers, whole, counted=not metrics.rows("steps", phase=phase))


def phase_blocks(
    metrics: RunMetrics, phase: str, layers: LayersByDomain, whole: Sequence[LoadMatrix], *, counted: bool
) -> Iterator[Block]:
    """One phase; what depends on the order of steps only if there is an order. `whole` has the layers over all domains."""
    yield Heading("Experts", 3)
    yield load_table(metrics, phase)
    yield load_map(layers)
    if not counted:
        yield batch_maps(layers)
    yield distinct_table(metrics, phase)
    yield from hot_set_blocks(metrics, phase)
    yield Heading("Drift" if counted else "Locality and drift", 3)
    if not counted:
        yield from locality_table(metrics, phase)
        yield from filter(None, [prediction_table(metrics, phase)])
        yield from correlation_blocks(whole)
    yield from drift_blocks(metrics, phase)


def correlation_blocks(whole: Sequence[LoadMatrix]) -> Iterator[Block]:
    """Which experts are busy in the same steps; nothing of a single step."""
    if any(matrix.num_steps > 1 for matrix in whole):
        layers = [[matrix] for matrix in whole]
        yield correlation_table(layers)
        if maps := list(correlation_maps(layers)):
            yield Details("correlated experts, layer by layer", maps)


def summary(run: Run, metrics: RunMetrics) -> list[str]:
    """At most ten statements; those about steps are about decode, if the trace has it."""
    phases = list(dict.fromkeys(phase for phase in (DECODE, *metrics.phases) if phase in metrics.phases))
    lines = [*trace_line(metrics, phases)]
    for phase in phases[:2]:
        lines += hot_set_line(metrics, phase)
    for phase in phases[:1]:
        lines += [
            *locality_line(metrics, phase),
            *prediction_line(metrics, phase),
            *distinct_line(metrics, phase),
            *balance_line(metrics, phase),
            *elsewhere_line(metrics, phase),
        ]
    return [*lines, *limit_lines(run, metrics)]


def trace_line(metrics: RunMetrics, phases: Sequence[str]) -> Iterator[str]:
    """The model's experts, and the tokens and steps of every phase."""
    trace, _request, parts = metrics.record.trace, metrics.record.characterized, []
    for phase in phases:
        steps, tokens = map(metrics.at(phase=phase, variant=metrics.baseline).or_none, ("steps", "step_tokens"))
        if steps is not None and tokens is not None:
            total = round(steps * tokens)
            words = f"{total:,} {plural(total, *trace.counted)} in {steps:,.0f} {plural(int(steps), 'step', 'steps')}"
            parts.append(f"{phase} has {words}")
    recorded = "".join(f"; {part}" for part in parts)
    yield f"Trace: {trace.num_experts} experts in each of {len(trace.layers)} layers{trace.choices_of_a_token}{recorded}."


def hot_set_line(metrics: RunMetrics, phase: str) -> Iterator[str]:
    """Whether there is a hot set, the held-out share with its interval, and the share by chance."""
    found = recorded_hot_set(metrics, phase)
    if found is None:
        return
    layers = [
        one
        for layer in metrics.distinct("layer", "hot_set_size", phase=phase)
        if (one := recorded_hot_set(metrics, phase, layer))
    ]
    interval = f"95% interval {percent(found.low)} to {percent(found.high)}" if found.tokens > 1 else "no interval: 1 token"
    sure = sum(one.answer == "yes" for one in layers)
    yield (
        f"Hot set ({phase}): {found.answer}. {set_of(found.size)} that the first half of the tokens chose most serves "
        f"{percent(found.share)} ({interval}) of the choices of the second half, "
        f"{percent(found.chance)} by chance{remark(found)}. Taken alone, {sure} of {len(layers)} layers have a hot set."
    )


def set_of(size: int) -> str:
    """The subject of a sentence."""
    return f"The set of {size} {plural(size, 'expert', 'experts')} per layer"


def remark(found: HotSet) -> str:
    """Why the answer is what it is."""
    limit = f"{percent(WORTH * found.chance)}, twice the value by chance"
    if found.tokens < FEWEST:
        return f"; the second half has {found.tokens} {plural(found.tokens, 'token', 'tokens')}, fewer than {FEWEST}"
    side = {"yes": "the whole interval is above", "no": "the whole interval is below"}.get(
        found.answer, "the interval includes"
    )
    return f"; {side} {limit}"


def locality_line(metrics: RunMetrics, phase: str) -> Iterator[str]:
    """How much of the overlap of consecutive steps is due to their order."""
    here = metrics.at(phase=phase, variant=metrics.baseline)
    overlap, shuffled, chance = map(here.or_none, ("active_overlap", "active_overlap_shuffled", "active_overlap_by_chance"))
    if overlap is not None and shuffled is not None and chance is not None:
        yield (
            f"Locality ({phase}): the step before used {percent(overlap)} of a step's experts; {percent(shuffled)} if the steps were in "
            f"random order (uneven loads alone), {percent(chance)} by chance."
        )


def prediction_line(metrics: RunMetrics, phase: str) -> Iterator[str]:
    """What simple predictions of as many experts as a token uses cover."""
    here = metrics.at(phase=phase, variant=metrics.baseline)
    sizes = swept(metrics, "step_coverage_by_chance", "experts", phase)
    if not sizes:
        return
    point = format_point({"experts": sizes[0]})
    named = {"the hottest of the first half": FIRST_HALF, "the hottest of the prompt": PROMPT}
    parts = [
        f"{title} {percent(value)}"
        for title, category in named.items()
        if (value := here.or_none("step_coverage", category=category, point=point)) is not None
    ]
    chance = percent(here.value("step_coverage_by_chance", point=point))
    fixed = plural(sizes[0], "expert per layer that never changes", "experts per layer that never change")
    if parts:
        yield (f"Prediction ({phase}, {sizes[0]} {fixed}): {', '.join(parts)} of a step's experts; {chance} by chance.")


def distinct_line(metrics: RunMetrics, phase: str) -> Iterator[str]:
    """The experts that a step of more tokens would use."""
    here = metrics.at(phase=phase, variant=metrics.baseline)
    sizes = [size for size in (1, 16, 256) if size in swept(metrics, "distinct_experts_shuffled", "tokens", phase)]
    (one, many), parts = metrics.record.trace.counted, []
    for size in sizes:
        names = ("distinct_experts", "distinct_experts_shuffled", "distinct_experts_by_chance")
        measured, shuffled, chance = map(here.at(point=format_point({"tokens": size})).or_none, names)
        if chance is not None and (known := shuffled if measured is None else measured) is not None:
            expected = "" if size == 1 else f" ({format_significant(chance)} by chance)"
            step = plural(size, f"single {one}", f"step of {size} {many}")
            parts.append(f"{format_significant(known)} of a {step}{expected}")
    if parts:
        what = f"expected of {many} in random order" if metrics.record.characterized.counts_only else "consecutive tokens"
        yield f"Distinct experts of a layer ({phase}, {what}): {', '.join(parts)}."


def balance_line(metrics: RunMetrics, phase: str) -> Iterator[str]:
    """The layer with the most uneven load, and the mean layer."""
    here = metrics.at(phase=phase, variant=metrics.baseline)
    mean, dead = map(here.or_none, ("load_max_over_mean", "dead_experts"))
    layers = {
        layer: here.or_none("load_max_over_mean", layer=layer) or 0 for layer in here.distinct("layer", "load_max_over_mean")
    }
    if mean is not None and dead is not None:
        worst = max(layers, key=lambda layer: layers[layer])
        yield (
            f"Load balance ({phase}): the hottest expert of a layer gets {times(mean)} the mean load (mean over layers; worst "
            f"{times(layers[worst])}, layer {worst}); {dead:,.0f} of {len(layers) * metrics.record.trace.num_experts:,} experts are never "
            "used."
        )


def elsewhere_line(metrics: RunMetrics, phase: str) -> Iterator[str]:
    """Whether the hot set of one domain serves another one."""
    trace = metrics.record.trace
    size = main_size(trace.num_experts, trace.top_k)
    shares, limit = elsewhere_shares(metrics, phase), WORTH * size / trace.num_experts
    if not shares:
        return
    above, worst = sum(share > limit for share in shares.values()), min(shares, key=lambda pair: shares[pair])
    answer = "yes" if above == len(shares) else "in part" if above else "no"
    yield (
        f"Hot set of other texts ({phase}): {answer}. {set_of(size)} that one domain chose most serves {percent(shares[worst])} (that of "
        f"{worst[0]} for {worst[1]}) to {percent(max(shares.values()))} of the choices of another, {percent(limit / WORTH)} by chance: "
        f"more than twice that in {above} of {len(shares)} ordered pairs."
    )


def limit_lines(run: Run, metrics: RunMetrics) -> Iterator[str]:
    """What the source cannot say."""
    sequences = [row.value for row in metrics.rows("sequences")]
    if run.record.characterized.counts_only:
        by_step = "which tokens made the choices, prompts, and an interval of any number here"
        totals = "the order of choices: active experts of a step, locality, prediction, correlation, and an interval of any number here"
        yield f"Not known from counts: {by_step if metrics.rows('steps') else totals}."
        if not metrics.rows("steps") and len(metrics.distinct("domain", "load_entropy")) < 2:
            yield "Hot set: not judged, because counts of one domain have no second part to judge a set by."
    elif sequences and max(sequences) == 1:
        yield "The trace has one sequence: another text may have other hot experts."
    if run.record.trace.forced:
        yield "Routing was forced: the numbers are not those of this model."
