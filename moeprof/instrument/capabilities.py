"""Checks of what can be measured on this machine, each with what was found or what is missing."""

import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from moeprof.instrument.allocator import keep_freed_memory
from moeprof.instrument.machine import cpu_name, driver_version, git_commit, keep_within_quota
from moeprof.records.system.disk import why_no_slow_tier
from moeprof.records.system.files import cache_folder
from moeprof.records.system.resources import free_memory, num_cores, total_memory
from moeprof.records.units import format_bytes


class Capability(NamedTuple):
    """One line of the output of `moeprof doctor`."""

    name: str
    available: bool
    detail: str


def capabilities() -> list[Capability]:
    """All checks, in the order in which they are printed."""
    return [*software(), *processor(), *accelerator(), *disk()]


def software() -> Iterator[Capability]:
    """Checks the interpreter, torch and the checkout."""
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    yield Capability("Python", True, f"{platform.python_version()} ({platform.platform()})")
    yield Capability("torch", version >= (2, 11), f"{torch.__version__}; 2.11 or later is needed")
    commit = git_commit()
    yield Capability("git commit", bool(commit), commit or "not a git checkout: runs record the package version only")


def processor() -> Iterator[Capability]:
    """Checks cores, memory and the allocator."""
    keep_within_quota()
    cores, threads = num_cores(), torch.get_num_threads()
    yield Capability("CPU timing", True, f"{cpu_name()}, cores: {cores}, threads of torch: {threads}")
    yield Capability("memory", True, f"{format_bytes(free_memory())} of {format_bytes(total_memory())} are free")
    kept = keep_freed_memory()
    reason = (
        "glibc keeps freed memory for later tensors" if kept else "not glibc: large tensors cause page faults in every step"
    )
    yield Capability("allocator", kept, reason)


def accelerator() -> Iterator[Capability]:
    """Checks CUDA and the counters of its driver."""
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        yield Capability(
            "CUDA", True, f"{torch.cuda.device_count()} x {properties.name}, {format_bytes(properties.total_memory)}"
        )
    else:
        built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is a CPU build"
        yield Capability("CUDA", False, f"no device; {built}")
    driver, reason = driver_version()
    yield Capability("GPU counters", bool(driver), f"driver {driver}" if driver else f"n/a: {reason}")


def disk() -> Iterator[Capability]:
    """Checks the folders for runs and for expert files."""
    folder = Path("reports") if Path("reports").is_dir() else Path()
    try:
        with tempfile.TemporaryFile(dir=folder):
            yield Capability("run directory", True, f"{folder.absolute()} is writable")
    except OSError as error:
        yield Capability("run directory", False, f"{folder.absolute()}: {(error.strerror or str(error)).lower()}; use --out")
    cache = cache_folder()
    obstacle = why_no_slow_tier(cache)
    detail = (
        f"expert buffering reads experts from {cache}"
        if not obstacle
        else f"{obstacle}: expert buffering is not available on a CPU"
    )
    yield Capability("direct I/O", not obstacle, detail)
