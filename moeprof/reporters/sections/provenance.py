"""Text, weights, machine, and doubts."""

from collections.abc import Iterator

from moeprof.records.run import Run
from moeprof.records.units import format_bytes
from moeprof.reporters.document import Block, Bullets, Details


def provenance(run: Run) -> Iterator[Block]:
    """Where the numbers come from."""
    record = run.record
    machine, recipe = record.environment, record.ran
    gpu = f", {machine.gpu}" if machine.gpu else ""
    yield Bullets(
        [
            f"Run: {run.path}, {record.started}, moeprof {record.moeprof_version}",
            f"Machine: {machine.cpu}, {machine.cores} cores, {machine.threads} threads, "
            f"{format_bytes(machine.memory_bytes)}{gpu}; torch {machine.packages.get('torch', 'unknown')}",
            f"Weights: {recipe.model.checkpoint or f'random, seed {recipe.measure.seed}'} ({record.weights_hash[:12]})",
            *(f"Text {name}: sha256 {digest[:12]}" for name, digest in record.text_hashes.items()),
            f"Measured: {recipe.measure.warmup} warm-up and {recipe.measure.rounds} timed rounds on the first batch of each domain, "
            f"contenders in turns; routing over up to {recipe.load.batches} batches per domain",
            *(
                f"Device counters, {phase}: {', '.join(f'{k} {v}' for k, v in told.items())}"
                for phase, told in counters(run).items()
            ),
        ]
    )
    if record.noisy:
        yield Details(f"{len(record.noisy)} noisy timings", [Bullets(record.noisy)])


def counters(run: Run) -> dict[str, dict[str, str]]:
    """What the driver said in each phase; once only where it said the same every time."""
    told = run.record.counters
    same = len({tuple(readings.items()) for readings in told.values()}) == 1
    return {"every phase": next(iter(told.values()))} if same else told
