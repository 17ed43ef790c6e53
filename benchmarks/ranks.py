"""What dynamic gating gains over static gating at equal batch on two ranks, beside what it gains on one, and in which regions.

Runs `moeprof optimize lm-small --dynamic-gating --no-sweep` on one rank and on two in turns, whole processes; the figures need a
machine that does nothing else.

python benchmarks/ranks.py [--turns N] [--recipe NAME]
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.regions import REGIONS
from moeprof.records.run.run import Run

RANKS = (1, 2)
LITTLE = ("load.phases=['score']", "load.batches=1", "data.domains=['prose']")
"""One batch of one domain: a static step takes seconds."""
AT = {"phase": "score", "domain": "prose"}


def main() -> None:
    """The speed-up of every turn, their medians, and the regions of the last turn on two ranks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--recipe", default="lm-small")
    arguments = parser.parse_args()
    gains: dict[int, list[float]] = {ranks: [] for ranks in RANKS}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(arguments.turns):
            for ranks in RANKS[:: 1 if turn % 2 == 0 else -1]:
                found = once(arguments.recipe, ranks, Path(folder) / f"{turn}-{ranks}")
                gains[ranks].append(
                    RunMetrics.of(found).or_none("speedup_equal_batch", **AT, variant="dynamic", category="static") or 0.0
                )
                print(f"{ranks} ranks: dynamic over static {gains[ranks][-1]:.2f}x, valid {found.record.valid}", flush=True)
                if ranks == RANKS[-1]:
                    regions = list(differences(found))
    one, two = (median(gains[ranks]) for ranks in RANKS)
    print(f"medians: {one:.2f}x on one rank, {two:.2f}x on two: {'reached' if two >= one else 'NOT REACHED'}")
    print("\n".join(regions))


def once(recipe: str, ranks: int, out: Path) -> Run:
    """One run."""
    sets = [word for key in LITTLE for word in ("--set", key)]
    command = ["-m", "moeprof", "optimize", recipe, "--dynamic-gating", "--no-sweep", "--ranks", str(ranks), "--out", str(out)]
    subprocess.run([sys.executable, *command, *sets], check=True, stdout=subprocess.DEVNULL)
    return Run.open(out)


def differences(found: Run) -> Iterator[str]:
    """Milliseconds of every region in a step under both gatings, mean over ranks."""
    metrics = RunMetrics.of(found)
    for region in REGIONS:
        static, dynamic = (
            (metrics.or_none("region_time", **AT, variant=variant, region=region) or 0.0) / 1e6
            for variant in ("static", "dynamic")
        )
        if static or dynamic:
            yield f"{region:>14}: static {static:8.1f} ms, dynamic {dynamic:8.1f} ms, saved {static - dynamic:8.1f} ms"


if __name__ == "__main__":
    main()
