"""How long `moeprof --help` takes, as whole processes in turns with an empty interpreter, and that it imports no torch.

python benchmarks/startup.py [--rounds N]
"""

import argparse
import subprocess
import sys
from functools import partial
from statistics import median

from moeprof.instrument.clock import wall_clock
from moeprof.instrument.timing import PreparedRound, interleaved

LIMIT_S = 0.2
HEAVY = ("torch", "pandas", "plotly", "pyarrow", "scipy")


def main() -> None:
    """Prints medians and what was imported."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    commands = {
        "moeprof --help": [sys.executable, "-m", "moeprof", "--help"],
        "python -c pass": [sys.executable, "-c", "pass"],
    }
    prepared = {name: PreparedRound(partial(run, command)) for name, command in commands.items()}
    for name, samples in interleaved(prepared, rounds=rounds, warmup=2, clock=wall_clock).items():
        print(f"{name:<16} {median(samples) / 1e9:.3f} s (best {min(samples) / 1e9:.3f}, worst {max(samples) / 1e9:.3f})")
    code = f"import moeprof, moeprof.cli, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    print("heavy modules after importing moeprof and moeprof.cli:", run([sys.executable, "-c", code]).strip())
    print(f"limit for moeprof --help: {LIMIT_S} s")


def run(command: list[str]) -> str:
    """What the command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
