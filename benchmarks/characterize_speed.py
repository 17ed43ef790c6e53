"""Processor time and memory of `moeprof characterize TRACE` for one long trace (limits for 10 million routings: 20 s, 4 GB).

python benchmarks/characterize_speed.py [--routings N] [--tokens-per-step N] [--domains N]
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from analysis_speed import synthetic

LIMIT_S, LIMIT_GB = 20, 4


def main() -> int:
    """Prints one line; exit status 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--routings", type=int, default=10_000_000)
    parser.add_argument("--tokens-per-step", type=int, default=48)
    parser.add_argument("--domains", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.parquet"
        trace = synthetic(options.routings, options.tokens_per_step, options.domains)
        trace.write(file)
        command = [sys.executable, "-m", "moeprof", "--quiet", "characterize", str(file), "--out", f"{folder}/run"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds, gigabytes = used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e9
    print(
        f"{len(trace):,} routings: {seconds:.1f} s of processor time (asked: {LIMIT_S}), {gigabytes:.2f} GB (asked: {LIMIT_GB})"
    )
    return int(seconds > LIMIT_S or gigabytes > LIMIT_GB)


if __name__ == "__main__":
    sys.exit(main())
