"""The machine and the software that a run records, and the memory that is available on a device."""

import os
import platform
import socket
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import moeprof
from moeprof.records.run.run import Environment
from moeprof.records.system.resources import free_memory, num_cores, total_memory

PACKAGES = ("torch", "numpy", "pandas", "pyarrow", "safetensors", "triton")


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
        **software(),
        cpu=cpu_name(),
        cores=num_cores(),
        memory_bytes=total_memory(),
    )


@cache
def software() -> dict[str, Any]:
    """What this process runs, read once: what it has imported stays, whatever happens to the files."""
    return {"python": platform.python_version(), "packages": package_versions(), "git_commit": git_commit()}


def package_versions() -> dict[str, str]:
    """Installed versions of the packages that metrics may depend on."""
    installed = {"moeprof": moeprof.__version__}
    for name in PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


OID = "# branch.oid "
"""How the line of the commit begins in the output of git."""


def git_commit() -> str:
    """The commit of the checkout, with `-dirty` if it was changed; empty for an installed package. Git writes nothing there."""
    checkout = Path(moeprof.__file__).parents[1]
    if not (checkout / ".git").exists():
        return ""
    command = [
        "git",
        "--no-optional-locks",
        "-C",
        str(checkout),
        "status",
        "--porcelain=v2",
        "--branch",
        "--untracked-files=no",
    ]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.splitlines()  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ""
    commit = next((line.removeprefix(OID) for line in lines if line.startswith(OID)), "")
    return f"{commit}-dirty" if any(not line.startswith("#") for line in lines) else commit


def cpu_name() -> str:
    """The model name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def keep_within_quota() -> None:
    """Takes away those of torch's threads for which a CPU quota leaves no core, unless OMP_NUM_THREADS asks for them."""
    import torch

    if num_cores() < torch.get_num_threads() and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(num_cores())


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
    return free_memory()
