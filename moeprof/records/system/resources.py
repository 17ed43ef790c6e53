"""The cores and the memory that this process may use, within the limits of its control groups and its own."""

import os
from pathlib import Path

from moeprof.records.system.control_groups import cpu_quota, memory_left, memory_limit


def num_cores() -> int:
    """Number of cores that this process may use, at least 1.

    A CPU quota is rounded down: with more threads the system would stop all of them for the rest of every period.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota()
    return affinity if quota is None else max(min(affinity, int(quota)), 1)


def total_memory() -> int:
    """Bytes of RAM of the machine, or the limit of the container."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(machine, memory_limit() or machine)


def free_memory() -> int:
    """Bytes of RAM that this process may still take, including page cache that can be reclaimed."""
    machine = max(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES"), proc_bytes("/proc/meminfo", "MemAvailable:"))
    return min(limit for limit in (machine, memory_left(), process_limit()) if limit is not None)


def proc_bytes(file: str, key: str) -> int:
    """The bytes behind `key`, which Linux gives in KiB; 0 if there is none."""
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), 0)


def process_limit() -> int | None:
    """Bytes left within `ulimit -v` and `-d`, at least 1; None if there is no limit."""
    try:
        import resource
    except ImportError:
        return None
    kinds = ((resource.RLIMIT_AS, "VmSize:"), (resource.RLIMIT_DATA, "VmData:"))
    limits = ((resource.getrlimit(kind)[0], used) for kind, used in kinds)
    left = (max(limit - proc_bytes("/proc/self/status", used), 1) for limit, used in limits if limit != resource.RLIM_INFINITY)
    return min(left, default=None)
