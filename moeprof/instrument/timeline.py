"""The instrument of the pass `timeline`: torch.profiler with one range per region, for viewing and never for a throughput."""

import gzip
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from torch.profiler import ProfilerActivity, profile, record_function, schedule

from moeprof.instrument.probe import Probe, observed_by
from moeprof.records.system.files import replacing

WARMUP, ROUNDS = 1, 2
"""The profiler starts slowly, and a few rounds are enough to view."""

SUFFIX = ".pt.trace.json.gz"
"""The ending of every file name, by which TensorBoard's plugin finds them."""


class TimelineProbe(Probe):
    """Names every region in the profiler's trace."""

    def region(self, name: str, layer: str) -> AbstractContextManager[None]:
        return record_function(range_name(name, layer))


def range_name(region: str, layer: str) -> str:
    """`moeprof::gate[3]`, or `moeprof::embed` outside the layers."""
    return f"moeprof::{region}[{layer}]" if layer else f"moeprof::{region}"


def record_timeline(play: Callable[[], object], folder: Path, name: str, device: str) -> None:
    """Profiles a few rounds of `play` into `folder`/`name`.<ns>.pt.trace.json.gz."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # torch 2.13 tells about its probes on stderr otherwise
    probe = TimelineProbe()
    with profile(
        activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])],
        schedule=schedule(wait=0, warmup=WARMUP, active=ROUNDS, repeat=1),
        on_trace_ready=partial(write_trace, folder / f"{name}.{time.time_ns()}{SUFFIX}"),
    ) as profiler:
        for _ in range(WARMUP + ROUNDS):
            with observed_by(probe):
                play()
            profiler.step()


def write_trace(path: Path, profiler: profile) -> None:
    """Writes the compressed trace by way of a plain one in the folder for temporary files."""
    path.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, replacing(path) as whole:
        plain = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(plain))
        with plain.open("rb") as source, gzip.open(whole, "wb") as target:
            shutil.copyfileobj(source, target)
