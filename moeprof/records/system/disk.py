"""The file system of a folder: whether its files can be read from a disk, without the page cache."""

import os
import tempfile
from pathlib import Path

from moeprof.records.system.files import reason

RAM = ("tmpfs", "ramfs", "devtmpfs", "hugetlbfs")
"""File systems that keep files in memory."""

DIRECT: int = getattr(os, "O_DIRECT", 0)
"""Open flag for reads that bypass the page cache; 0 if the system has none."""


def file_system(folder: Path) -> str:
    """The type of the file system of a folder, named as in Linux; empty if unknown."""
    device = folder.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    kinds = [line.partition(" - ")[2].split()[0] for line in lines if line.split()[2] == number]
    return kinds[-1] if kinds else ""


def why_no_slow_tier(folder: Path) -> str:
    """Why a file in the folder (which need not exist) cannot serve as a tier slower than memory; empty if it can."""
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
    if (kind := file_system(there)) in RAM:
        return f"{there} is on {kind}, which keeps files in memory"
    if not DIRECT:
        return "this system has no direct I/O"
    try:
        with tempfile.NamedTemporaryFile(dir=there) as file:
            os.close(os.open(file.name, os.O_RDONLY | DIRECT))
    except OSError as error:
        return f"files in {there} do not support direct I/O ({reason(error)})"
    return ""
