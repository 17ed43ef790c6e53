"""Run directories that hold nothing but timed rounds."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from moeprof.records.recipe.files import load_recipe
from moeprof.records.run.raw_tables import ROUNDS
from moeprof.records.run.run import Run, RunRecord
from moeprof.records.run.writer import RunWriter

Rounds = Mapping[tuple[str, str], Sequence[Mapping[str, Sequence[int]]]]
"""By pass and variant: of every rank, the nanoseconds of its rounds by domain."""


def run_of_rounds(out: Path, rounds: Rounds, *, steps: int = 1, tokens: int = 60, **record: object) -> Run:
    """A run of lm-tiny whose phase `score` has these rounds; all have as many steps, and all ranks as many tokens."""
    writer = RunWriter(out / "run", RunRecord(command="optimize", recipe=load_recipe("lm-tiny"), **record))  # type: ignore[arg-type]
    rows = [
        {"pass": name, "phase": "score", "variant": variant, "point": "", "domain": domain, "rank": rank}
        | {"round": index, "time_ns": time_ns, "steps": steps, "tokens": tokens}
        for (name, variant), ranks in rounds.items()
        for rank, domains in enumerate(ranks)
        for domain, times_ns in domains.items()
        for index, time_ns in enumerate(times_ns)
    ]
    writer.append(ROUNDS, pa.Table.from_pylist(rows, schema=ROUNDS.schema))
    return Run(writer.path, writer.record)
