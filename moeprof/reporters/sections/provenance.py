"""Text, weights, machine, and doubts."""

from collections.abc import Iterator

from moeprof.records.run.run import Run, RunRecord
from moeprof.records.units import format_bytes
from moeprof.reporters.documents.document import Block, Bullets, Details


def provenance(run: Run) -> Iterator[Block]:
    """Where the numbers come from."""
    record = run.record
    machine = record.environment
    gpu = f", {machine.gpu}" if machine.gpu else ""
    software = f"torch {machine.packages.get('torch', 'unknown')}" if record.recipe else f"Python {machine.python}"
    yield Bullets(
        [
            f"Run: {run.path}, {record.started}, moeprof {record.moeprof_version}",
            f"Machine: {machine.cpu}, {machine.cores} cores, {f'{machine.threads} threads, ' if machine.threads else ''}"
            f"{format_bytes(machine.memory_bytes)}{gpu}; {software}",
            *(of_model(run) if record.recipe else of_replay(record)),
        ]
    )
    if record.noisy:
        yield Details(f"{len(record.noisy)} noisy timings", [Bullets(record.noisy)])


def of_replay(record: RunRecord) -> Iterator[str]:
    """Which trace, and what was assumed."""
    trace = record.trace
    yield f"Trace: {trace.path}"
    yield from (f"Decisions of {name}: sha256 {digest[:12]}" for name, digest in trace.decisions.items())
    links = " and ".join(f"{rate / 1e9:g} GB/s" for rate in link_rates(record))
    if sizes := sorted(set(trace.expert_bytes.values())):
        told = " to ".join(format_bytes(size) for size in dict.fromkeys((sizes[0], sizes[-1])))
        yield f"An expert: {told}; a link of {links} is assumed, not measured"
    elif trace.token_bytes:
        yield f"A token: {format_bytes(trace.token_bytes)}; a link of {links} is assumed, not measured"


def link_rates(record: RunRecord) -> list[int]:
    """Bandwidths that times were modelled from, each once."""
    if record.replay:
        return [record.replay.bandwidth]
    return list(dict.fromkeys((record.balanced.bandwidth, record.balanced.node_bandwidth)))


def of_model(run: Run) -> Iterator[str]:
    """Weights, texts, and how long it was measured."""
    record, recipe = run.record, run.record.ran
    yield f"Weights: {recipe.model.checkpoint or f'random, seed {recipe.measure.seed}'} ({record.weights_hash[:12]})"
    yield from (f"Text {name}: sha256 {digest[:12]}" for name, digest in record.text_hashes.items())
    yield (
        f"Measured: {recipe.measure.warmup} warm-up and {recipe.measure.rounds} timed rounds on the first batch of each domain, "
        f"contenders in turns; routing over up to {recipe.load.batches} batches per domain"
    )
    for phase, told in counters(run).items():
        yield f"Device counters, {phase}: {', '.join(f'{k} {v}' for k, v in told.items())}"


def counters(run: Run) -> dict[str, dict[str, str]]:
    """What the driver said in each phase; once only where it said the same every time."""
    told = run.record.counters
    same = len({tuple(readings.items()) for readings in told.values()}) == 1
    return {"every phase": next(iter(told.values()))} if same else told
