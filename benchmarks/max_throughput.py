"""What dynamic gating gains over static gating, each at its own best batch, beside the paper's best figures (on 32 GPUs).

Runs `moeprof optimize --dynamic-gating` on the recipes as they are; the figures need a machine that does nothing else.

python benchmarks/max_throughput.py [RECIPE ...] [--out DIR]
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.cli.group import run
from moeprof.records.run.run import Run

AIMS = {"lm": {"score": 11.55}, "mt": {"encode": 10.98, "decode": 5.71}}
"""Multi-node, maximum over batches (paper section 4.4); aims, not gates."""


def main() -> None:
    """One line per recipe and phase."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", default=["lm-small", "mt-small"])
    parser.add_argument("--out", type=Path, help="keeps the runs there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = arguments.out or Path(folder)
        for recipe in arguments.recipes:
            code = run(["optimize", recipe, "--dynamic-gating", "--out", str(out / recipe), "--force"])
            if code:
                sys.exit(code)
            print("\n".join(told(Run.open(out / recipe))))


def told(found: Run) -> Iterator[str]:
    """Both speed-ups of every phase."""
    recipe, metrics = found.record.ran, RunMetrics.of(found)
    for phase in recipe.phases:
        aim = AIMS[recipe.workload].get(phase)
        best, equal = (
            metrics.or_none(metric, phase=phase, variant="dynamic", category="static")
            for metric in ("speedup_max_throughput", "speedup_equal_batch")
        )
        batches = [metrics.or_none("best_batch", phase=phase, variant=variant) for variant in ("dynamic", "static")]
        wanted = "" if aim is None else f", aim {aim}: {'reached' if best is not None and best >= aim else 'NOT REACHED'}"
        yield f"{recipe.name} {phase}: {best} at batches {batches}{wanted}; equal batch {equal}; valid {found.record.valid}"


if __name__ == "__main__":
    main()
