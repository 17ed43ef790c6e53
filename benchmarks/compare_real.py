"""Does the gate cry wolf, or sleep, on this machine, while another process makes noise? `moeprof compare --run-both`, for real.

First lm-tiny with itself: nothing may be called better or worse. Then with a checkout in which one phase sleeps in the experts
region for a fifth of its step: that phase must be called worse, and no other.

    python benchmarks/compare_real.py [--comparisons N] [--planted N] [--quiet-machine]
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SLOWER = 0.2
SETTINGS = ("data.domains=['prose']", "load.decode_steps=8", "measure.warmup=1")
"""One domain instead of three: a comparison takes half a minute on a quiet machine."""

STEP_TOKENS = {"score": 512, "decode": 8}
SPARSE_LAYERS = 2
SEAM = '        with region("experts", self.name):\n'
NOISE = """import random, time
while True:
    end = time.time() + random.random()
    while time.time() < end: pass
    time.sleep(random.random())
"""


def main() -> None:
    """Prints every comparison; exits with 1 where one is wrong or a planted slow-down is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--comparisons", type=int, default=60)
    parser.add_argument("--planted", type=int, default=10)
    parser.add_argument("--quiet-machine", action="store_true", help="Start no process that makes noise.")
    options = parser.parse_args()
    with noise(not options.quiet_machine):
        alike = [told(compared(), f"A/A {index + 1}") for index in range(options.comparisons)]
        wrong = sum(bool(decided(one)) for one in alike)
        print(f"A/A: {wrong} of {len(alike)} comparisons called something better or worse (0 asked)", flush=True)
        speeds = {phase: speed(alike or [told(compared(), "speeds")], phase) for phase in STEP_TOKENS}
        missed = 0
        for index in range(options.planted):
            phase = list(STEP_TOKENS)[index % 2]
            with planted(phase, SLOWER * STEP_TOKENS[phase] / speeds[phase] / SPARSE_LAYERS) as checkout:
                # the slow code is A, the baseline: B, this code, must be better in that phase alone
                found = told(compared("--against-checkout", str(checkout)), f"{phase} {SLOWER:.0%} longer, {index + 1}")
            missed += {(one["phase"], one["verdict"]) for one in decided(found)} != {(phase, "better")}
        print(f"planted: {options.planted - missed} of {options.planted} found, naming the phase (all asked)", flush=True)
    raise SystemExit(bool(wrong or missed))


@contextmanager
def noise(wanted: bool) -> Iterator[None]:
    """A process that works and rests, each for up to a second."""
    process = subprocess.Popen([sys.executable, "-c", NOISE]) if wanted else None
    try:
        yield
    finally:
        if process:
            process.kill()
            process.wait()


def compared(*options: str) -> dict[str, Any]:
    """What `moeprof compare --run-both lm-tiny` says."""
    with tempfile.TemporaryDirectory() as folder:
        sets = [word for setting in SETTINGS for word in ("--set", setting)]
        command = [sys.executable, "-m", "moeprof", "compare", "--run-both", "lm-tiny", "--variant", "static", *sets, *options]
        out = subprocess.run([*command, "--out", folder, "--json"], cwd=ROOT, capture_output=True, text=True, check=False)
        if out.returncode not in (0, 3, 4):
            raise SystemExit(out.stderr)
        document: dict[str, Any] = json.loads(out.stdout)
        return document


def told(document: dict[str, Any], name: str) -> dict[str, Any]:
    """The comparison, after a line about it."""
    parts = [f"{one['phase']} {one['verdict']} {one['change']:+.1%} p {one['p']:.2g}" for one in document["findings"]]
    print(f"  {time.strftime('%H:%M:%S')}  {name}: {'; '.join(parts)}", flush=True)
    return document


def decided(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Findings that are better or worse."""
    return [one for one in document["findings"] if one["verdict"] in ("better", "worse")]


def speed(documents: list[dict[str, Any]], phase: str) -> float:
    """Median tokens per second of the baselines."""
    return float(median(one["baseline"] for document in documents for one in document["findings"] if one["phase"] == phase))


@contextmanager
def planted(phase: str, seconds: float) -> Iterator[Path]:
    """A copy of this checkout that sleeps in the experts region of one phase."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("moeprof", "recipes"):
            shutil.copytree(ROOT / name, Path(folder) / name, ignore=shutil.ignore_patterns("__pycache__"))
        layer = Path(folder) / "moeprof" / "moe" / "layer.py"
        text = layer.read_text(encoding="utf-8")
        if text.count(SEAM) != 1:
            raise SystemExit(f"{layer}: no single place to sleep in")
        sleep = f'            if step.phase == "{phase}":\n                __import__("time").sleep({seconds!r})\n'
        layer.write_text(text.replace(SEAM, SEAM + sleep), encoding="utf-8")
        yield Path(folder)


if __name__ == "__main__":
    main()
