"""What a folder lies on: a disk whose files can be read past the page cache, or something that is memory itself."""

import os
import tempfile
from pathlib import Path

from moeprof.records.files import reason

RAM = ("tmpfs", "ramfs", "devtmpfs", "hugetlbfs")
"""File systems that are memory themselves."""

DIRECT: int = getattr(os, "O_DIRECT", 0)
"""Reads past the page cache; 0 where the system does not know it."""


def file_system(folder: Path) -> str:
    """The type of the one that the folder lies on, as Linux calls it; empty where nobody says."""
    device = folder.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    kinds = [line.partition(" - ")[2].split()[0] for line in lines if line.split()[2] == number]
    return kinds[-1] if kinds else ""


def why_no_slow_tier(folder: Path) -> str:
    """Why no file in the folder, which need not exist yet, could be slower than memory; empty where one can."""
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
    if (kind := file_system(there)) in RAM:
        return f"{there} is on {kind}, which is memory"
    if not DIRECT:
        return "this system reads no file past its page cache"
    try:
        with tempfile.NamedTemporaryFile(dir=there) as file:
            os.close(os.open(file.name, os.O_RDONLY | DIRECT))
    except OSError as error:
        return f"no file in {there} can be read past the page cache ({reason(error)})"
    return ""
