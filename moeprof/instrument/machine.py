"""The machine and the software that a run records, and the memory that is available to it."""

import os
import platform
import socket
import subprocess
from importlib import metadata
from pathlib import Path

import moeprof
from moeprof.records.run.run import Environment

PACKAGES = ("torch", "numpy", "pandas", "pyarrow", "safetensors", "triton")
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
CGROUP_USES = ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes")


def environment(device: str) -> Environment:
    """The environment that `run.json` records for a model on `device`."""
    import torch

    cuda = device == "cuda"
    beside = {
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if cuda else "",
        "driver": driver_version()[0] if cuda else "",
    }
    return host().model_copy(update=beside)


def host() -> Environment:
    """The part of the environment that is known without torch."""
    return Environment(
        hostname=socket.gethostname(),
        platform=platform.platform(),
        python=platform.python_version(),
        packages=package_versions(),
        git_commit=git_commit(),
        cpu=cpu_name(),
        cores=num_cores(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that metrics may depend on."""
    installed = {"moeprof": moeprof.__version__}
    for name in PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def git_commit() -> str:
    """The commit of the checkout, with `-dirty` if it was changed; empty for an installed package."""
    checkout = Path(moeprof.__file__).parents[1]
    if not (checkout / ".git").exists():
        return ""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""


def cpu_name() -> str:
    """The model name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def num_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def driver_version() -> tuple[str, str]:
    """(version of the NVIDIA driver, ""), or ("", the reason why it is unknown)."""
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            return str(pynvml.nvmlSystemGetDriverVersion()), ""
        finally:
            pynvml.nvmlShutdown()
    except Exception as error:  # nvidia-ml-py raises its own family, made at run time
        return "", str(error) or type(error).__name__


def available_memory(device: str) -> int:
    """Available bytes: of the GPU, or of RAM within the limits of the container and the process."""
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[0])
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES"), meminfo_available(), cgroup_available()]
    return min(limit for limit in [max(limits[0], limits[1]), limits[2], process_limit()] if limit)


def meminfo_available() -> int:
    """Available bytes as Linux estimates them, including reclaimable caches; 0 if unknown."""
    return proc_bytes("/proc/meminfo", "MemAvailable:")


def proc_bytes(file: str, key: str) -> int:
    """The bytes behind `key`, which Linux gives in KiB; 0 if there is none."""
    try:
        lines = Path(file).read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), 0)


def cgroup_available() -> int:
    """Available bytes within the container's limit; 0 if it sets none."""
    for limit_file, use_file in zip(CGROUP_LIMITS, CGROUP_USES, strict=True):
        try:
            limit, use = Path(limit_file).read_text().strip(), Path(use_file).read_text().strip()
        except OSError:
            continue
        return max(int(limit) - int(use), 1) if limit != "max" and int(limit) < 2**60 else 0
    return 0


def process_limit() -> int:
    """Available bytes within `ulimit -v` and `-d`; 0 if there is no limit."""
    try:
        import resource
    except ImportError:
        return 0
    kinds = ((resource.RLIMIT_AS, "VmSize:"), (resource.RLIMIT_DATA, "VmData:"))
    limits = ((resource.getrlimit(kind)[0], used) for kind, used in kinds)
    left = (max(limit - proc_bytes("/proc/self/status", used), 1) for limit, used in limits if limit != resource.RLIM_INFINITY)
    return min(left, default=0)
