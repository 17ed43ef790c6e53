"""How long `moeprof characterize` and `moeprof optimize` take with no recipe: both workloads and their reports, whole processes.

python benchmarks/command_time.py [characterize|optimize ...] [--rounds N]
"""

import argparse
import subprocess
import sys
import tempfile
from statistics import median

from moeprof.instrument.clock import wall_clock

LIMITS_S = {"characterize": 60, "optimize": 180}


def main() -> None:
    """Prints every round and the median of each command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commands", nargs="*", default=list(LIMITS_S), choices=list(LIMITS_S))
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    for command in arguments.commands:
        seconds = [once(command) for _ in range(arguments.rounds)]
        print(f"{command}: {', '.join(f'{value:.1f}' for value in seconds)} s")
        print(f"{command}: median {median(seconds):.1f} s, limit {LIMITS_S[command]} s")


def once(command: str) -> float:
    """One whole process."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [sys.executable, "-m", "moeprof", command, "--out", f"{folder}/runs"]
        started = wall_clock()
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
        return (wall_clock() - started) / 1e9


if __name__ == "__main__":
    main()
