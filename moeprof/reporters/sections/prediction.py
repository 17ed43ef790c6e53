"""What a trace lets one expect: distinct experts of a step, experts that stay hot, and experts that can be predicted."""

from collections.abc import Iterator

from moeprof.analysis.routing.hot_set import PERCENTS
from moeprof.analysis.routing.prediction import ALL_STEPS, FIRST_HALF, PROMPT
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.metrics.point import format_point
from moeprof.records.units import format_significant
from moeprof.reporters.cells import Write, cell, percent
from moeprof.reporters.documents.document import Block, Details, Heading, Table
from moeprof.reporters.sections.tables import with_values

PREDICTORS = {FIRST_HALF: "hottest, first half", PROMPT: "hottest of the prompt", ALL_STEPS: "hottest of all steps"}
"""The sets that are predicted, and what they are called."""

NEARLY = 0.995
"""The share of the experts from which on larger steps are not shown."""


def swept(metrics: RunMetrics, metric: str, name: str, phase: str) -> list[int]:
    """The values of a quantity of the point at which a phase has a metric over all layers, rising."""
    rows = metrics.rows(metric, phase=phase, layer="", domain="")
    return sorted({int(row.swept[name]) for row in rows if name in row.swept})


def column(metrics: RunMetrics, metric: str, name: str, values: list[int], write: Write = format_significant) -> list[str]:
    """A metric over all layers at some values of a quantity of the point."""
    return [cell(metrics.or_none(metric, point=format_point({name: value})), write) for value in values]


def distinct_table(metrics: RunMetrics, phase: str) -> Table:
    """Distinct experts of a step by its number of tokens."""
    here, trace = metrics.at(phase=phase, variant=metrics.baseline), metrics.record.trace
    sizes = until_all(here, swept(metrics, "distinct_experts_by_chance", "tokens", phase))
    many = trace.counted[1]
    reached = f"{trace.top_k} x tokens" if trace.top_k_known else many
    columns = {
        "measured": column(here, "distinct_experts", "tokens", sizes),
        "shuffled": column(here, "distinct_experts_shuffled", "tokens", sizes),
        "by chance": column(here, "distinct_experts_by_chance", "tokens", sizes),
        "bound": [str(min(trace.num_experts, size * trace.top_k)) for size in sizes],
    }
    shown = with_values(columns)
    grouped = "measured = groups of consecutive tokens of a domain, as they were recorded; " if "measured" in shown else ""
    rows = list(zip([str(size) for size in sizes], *shown.values(), strict=True))
    caption = (
        f"Distinct experts of a layer by {many} per step, mean over layers. {grouped}shuffled = expected of {many} with the recorded "
        f"loads in random order; by chance = expected if all {trace.num_experts} experts were equally likely; bound = "
        f"min({trace.num_experts}, {reached})."
    )
    return Table([f"{many}/step", *shown], rows, caption=caption)


def until_all(here: RunMetrics, sizes: list[int]) -> list[int]:
    """The sizes up to the first that reaches nearly all experts."""
    reached = [here.value("distinct_experts_shuffled", point=format_point({"tokens": size})) for size in sizes]
    enough = [at for at, experts in enumerate(reached) if experts > NEARLY * here.record.trace.num_experts]
    return sizes[: enough[0] + 1] if enough else sizes


def hot_set_blocks(metrics: RunMetrics, phase: str) -> Iterator[Block]:
    """The shares of sets of several sizes with their intervals, and details of every layer."""
    here = metrics.at(phase=phase, variant=metrics.baseline, category="")
    sizes = swept(here, "hot_set_share_low", "experts", phase)
    if not sizes:
        return
    yield Heading("Hot experts", 3)
    columns = {
        "share of choices": column(here, "hot_set_share", "experts", sizes, percent),
        "interval": [interval(here, size) for size in sizes],
        "by chance": column(here, "hot_set_by_chance", "experts", sizes, percent),
    }
    needed = ", ".join(
        f"{format_significant(size)} experts for {part}%"
        for part in PERCENTS
        if (size := here.or_none("hot_set_size", point=format_point({"percent": part}))) is not None
    )
    caption = (
        "The experts of each layer that the first half of each domain's tokens chose most, and the share of the second half's choices "
        f"that they serve, mean over layers; 95% interval from blocks of consecutive tokens. Fewest experts needed (mean): {needed}."
    )
    yield Table(["hottest", *columns], list(zip(map(str, sizes), *columns.values(), strict=True)), caption=caption)
    yield Details("hot experts, layer by layer", [hot_set_layers(here, phase, sizes)])


def interval(here: RunMetrics, size: int, layer: str = "") -> str:
    """`75.9% to 82.5%`, the interval of a set's share."""
    ends = (here.or_none(f"hot_set_share_{end}", layer=layer, point=format_point({"experts": size})) for end in ("low", "high"))
    return " to ".join(cell(end, percent) for end in ends)


def hot_set_layers(here: RunMetrics, phase: str, sizes: list[int]) -> Table:
    """The share of every size in every layer, and how many experts serve half, and more, of the choices."""
    layers = here.distinct("layer", "hot_set_size", phase=phase)
    rows = [
        [
            layer,
            *(
                cell(here.or_none("hot_set_share", layer=layer, point=format_point({"experts": size})), percent)
                for size in sizes
            ),
            *(cell(here.or_none("hot_set_size", layer=layer, point=format_point({"percent": part}))) for part in PERCENTS),
        ]
        for layer in layers
    ]
    columns = ["layer", *(f"hottest {size}" for size in sizes), *(f"for {part}%" for part in PERCENTS)]
    return Table(
        columns, rows, caption="Share of the later choices at the hottest experts, and the fewest experts for a share."
    )


def prediction_table(metrics: RunMetrics, phase: str) -> Table | None:
    """The share of a step's experts that simple predictions cover; None of a phase without two steps."""
    here = metrics.at(phase=phase, variant=metrics.baseline)
    sizes = swept(metrics, "step_coverage_by_chance", "experts", phase)
    if not sizes:
        return None
    before, chance = map(here.or_none, ("active_overlap", "active_overlap_by_chance"))
    rows = [["the step before", cell(before, percent), *["-"] * (len(sizes) - 1)]]
    for category, title in PREDICTORS.items():
        cells = column(here.at(category=category), "step_coverage", "experts", sizes, percent)
        if set(cells) != {"-"}:
            rows.append([title, *cells])
    rows.append(["by chance", *column(here, "step_coverage_by_chance", "experts", sizes, percent)])
    caption = (
        "Share of a step's experts that are among the predicted ones, mean over steps and layers, by number of predicted experts of a "
        f"layer. The step before predicts all that it used ({cell(chance, percent)} by chance). First half: the hottest of the first half "
        "of the steps, for the second half. Prompt: the hottest of the sequence's own prompt. All steps: no prediction, but the most that "
        "a set that never changes can cover."
    )
    return Table(["predicted by", *map(str, sizes)], rows, caption=caption)
