"""How long `moeprof characterize` takes with no recipe: both workloads and their reports, as a whole process.

python benchmarks/characterize_time.py [--rounds N]
"""

import argparse
import subprocess
import sys
import tempfile
from statistics import median

from moeprof.instrument.clock import wall_clock

LIMIT_S = 60


def main() -> None:
    """Prints every round and the median."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    seconds = [once() for _ in range(parser.parse_args().rounds)]
    print("seconds:", ", ".join(f"{value:.1f}" for value in seconds))
    print(f"median {median(seconds):.1f} s, limit {LIMIT_S} s")


def once() -> float:
    """One whole process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "moeprof", "characterize", "--out", f"{folder}/runs"]
        started = wall_clock()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return (wall_clock() - started) / 1e9


if __name__ == "__main__":
    main()
