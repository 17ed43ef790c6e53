"""The limits of the control groups (containers, services, jobs) that this process is in, on Linux; both versions of them, nested.

A limit binds every group below it, so that the smallest one of a group and of all its ancestors counts. `root` is the folder that
holds `proc` and `sys`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/")
UNLIMITED = 2**60
"""Version 1 writes a number near 2**63 for memory without a limit."""


class MemoryFiles(NamedTuple):
    """The names of the files about memory in a group's folder."""

    limits: tuple[str, ...]
    usage: str
    inactive_file: str
    """The line of `memory.stat` with page cache that the kernel reclaims before it refuses memory, of the whole subtree."""


MEMORY_FILES = (
    MemoryFiles(("memory.max", "memory.high"), "memory.current", "inactive_file"),
    MemoryFiles(("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file"),
)


class Mount(NamedTuple):
    """A mounted hierarchy of control groups."""

    top: str
    """The group that is mounted: `/`, or that of a container."""
    folder: Path
    controllers: list[str]
    """One empty name in version 2, whose single hierarchy has all controllers."""


def memory_left(root: Path = ROOT) -> int | None:
    """Bytes that may still be taken, page cache that can be reclaimed included, at least 1; None without a limit."""
    left = (bytes_left(folder, files) for folder in folders("memory", root) for files in MEMORY_FILES)
    return min((size_bytes for size_bytes in left if size_bytes is not None), default=None)


def memory_limit(root: Path = ROOT) -> int | None:
    """Bytes that all processes of a group may take together; None without a limit."""
    limits = (limit_of(folder, files) for folder in folders("memory", root) for files in MEMORY_FILES)
    return min((limit for limit in limits if limit is not None), default=None)


def cpu_quota(root: Path = ROOT) -> float | None:
    """Cores' worth of time that may be used, such as 1.5; None without a limit."""
    quotas = (quota_of(folder) for folder in folders("cpu", root))
    return min((quota for quota in quotas if quota is not None), default=None)


def bytes_left(folder: Path, files: MemoryFiles) -> int | None:
    """The bytes that one group leaves, at least 1; None if it sets no limit."""
    limit, usage = limit_of(folder, files), content(folder / files.usage)
    if limit is None or not usage.isdecimal():
        return None
    stat = dict(line.split(maxsplit=1) for line in content(folder / "memory.stat").splitlines() if " " in line)
    return max(limit - max(int(usage) - int(stat.get(files.inactive_file, 0)), 0), 1)


def limit_of(folder: Path, files: MemoryFiles) -> int | None:
    """The limit that one group sets, in bytes; None if it sets none."""
    limits = [int(text) for name in files.limits if (text := content(folder / name)).isdecimal()]
    return min((limit for limit in limits if limit < UNLIMITED), default=None)


def quota_of(folder: Path) -> float | None:
    """Quota divided by period of one group: `cpu.max` holds both in version 2, each has a file in version 1."""
    words = content(folder / "cpu.max").split()
    words = words or [content(folder / "cpu.cfs_quota_us"), content(folder / "cpu.cfs_period_us")]
    if len(words) != 2 or not all(word.isdecimal() for word in words) or not int(words[1]):
        return None  # `max` in version 2, -1 in version 1
    return int(words[0]) / int(words[1])


def folders(controller: str, root: Path) -> Iterator[Path]:
    """The folders of all groups, of this process and above, in every hierarchy that may have the controller."""
    groups = groups_of_process(root)
    for mount in mounts(root):
        for name in {controller, ""} & {*mount.controllers} & {*groups}:
            inside = mount.top == "/" or f"{groups[name]}/".startswith(f"{mount.top}/")
            below = Path(groups[name].removeprefix(mount.top).lstrip("/") if inside else "")
            # A group that is not visible from here (`/../x`, or one beside the mounted one) leaves the visible ones above it.
            yield from (mount.folder / part for part in (below, *below.parents) if ".." not in part.parts)


def groups_of_process(root: Path) -> dict[str, str]:
    """This process's group by controller, with an empty name in version 2: `/proc/self/cgroup`."""
    lines = [line.split(":", 2) for line in content(root / "proc/self/cgroup").splitlines()]
    return {name: line[2] for line in lines if len(line) == 3 for name in line[1].split(",")}


def mounts(root: Path) -> Iterator[Mount]:
    """The hierarchies that are mounted: `/proc/self/mountinfo`."""
    for line in content(root / "proc/self/mountinfo").splitlines():
        before, _, after = (words.split() for words in line.partition(" - "))
        if len(before) > 4 and len(after) > 2 and after[0] in ("cgroup", "cgroup2"):
            folder = root / unescaped(before[4]).lstrip("/")
            yield Mount(unescaped(before[3]), folder, after[2].split(",") if after[0] == "cgroup" else [""])


def unescaped(text: str) -> str:
    """A path of `mountinfo`, in which spaces and backslashes are octal: `a\\040b`."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def content(path: Path) -> str:
    """The stripped text of a file of the kernel; empty if it is missing or cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").strip()
    except OSError:
        return ""
