"""Provenance of a run: text, weights, machine and noisy timings."""

from collections.abc import Iterator

from moeprof.records.recipe.model import HuggingFaceSection
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.run.run import Run, RunRecord
from moeprof.records.units import format_bytes
from moeprof.reporters.cells import percent, plural
from moeprof.reporters.documents.document import Block, Bullets, Details


def provenance(run: Run) -> Iterator[Block]:
    """The run, the machine, and the inputs."""
    record = run.record
    machine = record.environment
    gpu = f", {machine.gpu}" if machine.gpu else ""
    software = f"torch {machine.packages.get('torch', 'unknown')}" if record.recipe else f"Python {machine.python}"
    yield Bullets(
        [
            f"Run: {run.path}, {record.started}, moeprof {record.moeprof_version}",
            f"Machine: {machine.cpu}, {machine.cores} cores, {threads(machine.threads)}"
            f"{format_bytes(machine.memory_bytes)}{gpu}; {software}",
            *load_line(record),
            *(of_model(run) if record.recipe else of_replay(record)),
        ]
    )
    if record.noisy:
        yield Details(f"{len(record.noisy)} noisy timings", [Bullets(record.noisy)])


def load_line(record: RunRecord) -> Iterator[str]:
    """What else the machine did before and during the run, as far as it is known."""
    load = record.machine_load
    if load is None:
        return
    parts = [
        *([f"{load.before:.2g} runnable processes per core in the minute before"] if load.before is not None else []),
        *([f"{percent(load.others)} of the processor time used by other processes"] if load.others is not None else []),
        *([f"{percent(load.stolen)} by other virtual machines"] if load.stolen is not None else []),
    ]
    if parts:
        yield f"Load of the machine beside the run: {', '.join(parts)}"


def threads(number: int) -> str:
    """`2 threads, `, or nothing if the number was not recorded."""
    return f"{number} {plural(number, 'thread', 'threads')}, " if number else ""


def of_replay(record: RunRecord) -> Iterator[str]:
    """The trace that was read, and assumptions of the model of a replay."""
    trace = record.trace
    yield f"Trace: {trace.path}"
    yield from (f"Routing decisions, {name}: sha256 {digest[:12]}" for name, digest in trace.decisions.items())
    if record.characterization:
        return
    links = " and ".join(f"{rate / 1e9:g} GB/s" for rate in link_rates(record))
    if sizes := sorted(set(trace.expert_bytes.values())):
        expert = " to ".join(format_bytes(size) for size in dict.fromkeys((sizes[0], sizes[-1])))
        yield f"Size of an expert: {expert}. Link: {links}, assumed, not measured"
    elif trace.token_bytes:
        yield f"Size of a token: {format_bytes(trace.token_bytes)}. Link: {links}, assumed, not measured"


def link_rates(record: RunRecord) -> list[int]:
    """The distinct bandwidths that modelled times are based on."""
    if request := record.replay or record.offloading:
        return [request.bandwidth]
    return list(dict.fromkeys((record.balanced.bandwidth, record.balanced.node_bandwidth)))


def of_model(run: Run) -> Iterator[str]:
    """Weights, texts, and the number of rounds."""
    record, recipe = run.record, run.record.ran
    yield from weights_lines(recipe, record.weights_hash)
    yield from (f"Text {name}: sha256 {digest[:12]}" for name, digest in record.text_hashes.items())
    files = dict.fromkeys(one.predictor for one in record.variants_by_label.values() if one.predictor)
    yield from (f"Predictor {file}: sha256 {record.predictor_hash[:12]}" for file in files)
    yield (
        f"Measured: {recipe.measure.warmup} warm-up and {recipe.measure.rounds} timed rounds on the first batch of each domain, "
        f"variants interleaved; routing of up to {recipe.load.batches} batches per domain"
    )
    for phase, readings in counters(run).items():
        yield f"Device counters, {phase}: {', '.join(f'{k} {v}' for k, v in readings.items())}"


def weights_lines(recipe: Recipe, digest: str) -> Iterator[str]:
    """Where the weights come from; of a Hugging Face model also its class, and what computes its experts."""
    model = recipe.model
    if isinstance(model, HuggingFaceSection):
        yield f"Weights: {model.huggingface}, {model.architecture}, {model.dtype} ({digest[:12]})"
        yield (
            f"Experts backend: {model.experts_backend}. What is inside the backend is not split: there is no time of dispatch and combine."
        )
    else:
        yield f"Weights: {model.checkpoint or f'random, seed {recipe.measure.seed}'} ({digest[:12]})"


def counters(run: Run) -> dict[str, dict[str, str]]:
    """The driver's readings of each phase, or of `every phase` if they are equal."""
    by_phase = run.record.counters
    same = len({tuple(readings.items()) for readings in by_phase.values()}) == 1
    return {"every phase": next(iter(by_phase.values()))} if same else by_phase
