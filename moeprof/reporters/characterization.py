"""What a characterization says: a summary first, then each phase, then where the numbers come from."""

from collections.abc import Iterator

from moeprof.analysis.loads import LoadMatrix, load_matrices, pooled
from moeprof.records.run import Run
from moeprof.records.units import format_bytes
from moeprof.reporters.document import Block, Bullets, Document, Heading, HeatMap, Paragraph, Table
from moeprof.reporters.numbers import Numbers, cell, count, duration, percent, rate, times
from moeprof.reporters.summary import summary

PHASE_TITLES = {
    "score": "score: whole sequences in one pass",
    "encode": "encode: source sentences in one pass",
    "decode": "decode: token by token",
}


def document_of(run: Run) -> Document:
    """All parts, in order."""
    numbers = Numbers.of(run)
    recipe = run.record.recipe
    document: Document = [Heading(f"moeprof {run.record.command}: {recipe.name}", 1)]
    if not run.record.valid:
        document.append(Paragraph(f"THIS RUN IS NOT VALID: {'; '.join(run.record.reasons)}. What it recorded follows."))
    document += [Heading("Summary"), Bullets(summary(run, numbers))]
    for phase in recipe.phases:
        document += [Heading(f"Phase {PHASE_TITLES[phase]}"), *phase_blocks(run, numbers, phase)]
    return [*document, Heading("Where the numbers come from"), *provenance(run)]


def phase_blocks(run: Run, numbers: Numbers, phase: str) -> Iterator[Block]:
    """Speed, gating cost, the layers, the experts; what was not recorded is said."""
    if numbers.get("step_latency", phase) is None and not numbers.domains(phase):
        yield Paragraph("Nothing was recorded in this phase.")
        return
    yield speed_table(numbers, phase)
    yield gating_table(numbers, phase)
    yield layer_table(numbers, phase)
    yield from heat_maps(run, phase)


def scope_name(domain: str) -> str:
    """As a row is called."""
    return domain or "all"


def speed_table(numbers: Numbers, phase: str) -> Table:
    """Throughput and latency beside the dense twin."""
    rows = []
    for domain in numbers.scopes(phase):
        ours, twin = ((phase, domain, variant) for variant in ("static", "dense"))
        rows.append(
            [
                scope_name(domain),
                cell(numbers.get("throughput", *ours), rate),
                cell(numbers.get("step_latency", *ours), duration),
                cell(numbers.get("throughput", *twin), rate),
                cell(numbers.get("step_latency", *twin), duration),
                cell(numbers.get("slowdown_vs_dense", *ours), times),
            ]
        )
    columns = ["domain", "MoE tokens/s", "MoE step", "dense tokens/s", "dense step", "MoE/dense time"]
    return Table(
        columns, rows, caption="Speed: medians over rounds; MoE is static gating, dense the twin with every FFN dense."
    )


def gating_table(numbers: Numbers, phase: str) -> Table:
    """What capacity costs in slots, and what it loses in choices."""
    columns = {
        "tokens/step": ("step_tokens", None),
        "S padded": ("step_rows", None),
        "capacity": ("capacity", None),
        "slots": ("expert_slots", count),
        "waste": ("waste_factor", times),
        "dropped choices": ("dropped_fraction", percent),
        "tokens hit": ("dropped_tokens", percent),
    }
    rows = [
        [
            scope_name(domain),
            *(cell(numbers.get(metric, phase, domain), *([write] if write else [])) for metric, write in columns.values()),
        ]
        for domain in numbers.scopes(phase)
    ]
    caption = "Static gating, per layer and step: E x ceil(C x S) slots are computed where k x tokens are needed."
    return Table(["domain", *columns], rows, caption=caption)


def layer_table(numbers: Numbers, phase: str) -> Table:
    """How each layer uses its experts."""
    columns = {
        "active": ("active_experts", None),
        "bound": ("active_bound", None),
        "inactive": ("inactive_fraction", percent),
        "dead": ("dead_experts", None),
        "max/mean": ("load_max_over_mean", times),
        "hottest": ("hottest_share", percent),
        "dropped": ("dropped_fraction", percent),
    }
    rows = [
        [
            layer,
            scope_name(domain),
            *(
                cell(numbers.get(metric, phase, domain, layer=layer), *([write] if write else []))
                for metric, write in columns.values()
            ),
        ]
        for layer in numbers.layers(phase)
        for domain in numbers.scopes(phase)
    ]
    caption = (
        "Experts of a layer: active in a step (mean), beside the bound min(E, k x tokens); dead in every step; load of the "
        "hottest over the mean; largest share of one step's choices."
    )
    return Table(["layer", "domain", *columns], rows, labels=2, caption=caption)


def heat_maps(run: Run, phase: str) -> Iterator[Block]:
    """Share of the choices that each expert takes: one line per layer and domain."""
    trace = run.trace(phase)
    if trace is None or not len(trace):
        yield Paragraph("No routing trace was recorded, so there is no map of the experts' loads.")
        return
    matrices = load_matrices(trace)
    lines: list[LoadMatrix] = []
    for layer in trace.header.layers:
        own = [matrix for matrix in matrices if matrix.layer == layer]
        lines += [*([pooled(own)] if len(own) > 1 else []), *own]
    top = max(float(matrix.shares_E.max()) for matrix in lines)
    experts = trace.header.num_experts
    yield HeatMap(
        f"Load of the {experts} experts, by id",
        [f"{matrix.layer} {scope_name(matrix.domain)}" for matrix in lines],
        [matrix.shares_E.tolist() for matrix in lines],
        top,
        f"Full shade: {percent(top)} of a line's choices on one expert; even would be {percent(1 / experts)}. Blank: never used.",
    )


def provenance(run: Run) -> Iterator[Block]:
    """Text, weights, machine, doubts."""
    record = run.record
    machine, recipe = record.environment, record.recipe
    gpu = f", {machine.gpu}" if machine.gpu else ""
    yield Bullets(
        [
            f"Run: {run.path}, {record.started}, moeprof {record.moeprof_version}",
            f"Machine: {machine.cpu}, {machine.cores} cores, {machine.threads} threads, "
            f"{format_bytes(machine.memory_bytes)}{gpu}; torch {machine.packages.get('torch', 'unknown')}",
            f"Weights: {recipe.model.checkpoint or f'random, seed {recipe.measure.seed}'} ({record.weights_hash[:12]})",
            *(f"Text {name}: sha256 {digest[:12]}" for name, digest in record.text_hashes.items()),
            f"Measured: {recipe.measure.warmup} warm-up and {recipe.measure.rounds} timed rounds on the first batch of each domain, "
            f"model and twin in turns; routing over up to {recipe.load.batches} batches per domain",
            *(f"Noisy: {remark}" for remark in record.noisy),
            *(f"Note: {note}" for note in record.notes),
        ]
    )
