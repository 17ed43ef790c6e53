"""Made-up `/proc` and `/sys` of a machine with control groups."""

from pathlib import Path

V1_MEMORY = "32 31 0:29 {top} /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory"
V1_CPU = "33 31 0:30 {top} /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct"
V2 = "34 31 0:31 {top} /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate"
V2_BESIDE_V1 = "34 31 0:31 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw"
OTHERS = ["23 1 0:22 / / rw - ext4 /dev/vda rw", "24 1 0:23 / /proc rw - proc proc rw", "damaged", ""]

MIB = 2**20
NONE_IN_V1 = 2**63 - 4096


def process(root: Path, groups: list[str], mounts: list[str]) -> None:
    """Writes the two files that say in which groups this process is, and where groups are mounted."""
    folder = root / "proc" / "self"
    folder.mkdir(parents=True)
    (folder / "cgroup").write_text("".join(f"{line}\n" for line in groups))
    (folder / "mountinfo").write_text("".join(f"{line}\n" for line in [*OTHERS, *mounts]))


def files(folder: Path, **contents: object) -> None:
    """Writes files of a group; `memory__max` is the file `memory.max`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        (folder / name.replace("__", ".")).write_text(f"{text}\n")


def memory_v1(folder: Path, limit: int, usage: int, inactive_file: int = 0) -> None:
    """A group of version 1; the cache of this group alone is smaller than that of the whole subtree."""
    files(folder, memory__limit_in_bytes=limit, memory__usage_in_bytes=usage)
    files(folder, memory__stat=f"cache 5\ninactive_file 1\ntotal_cache 5\ntotal_inactive_file {inactive_file}")


def memory_v2(folder: Path, limit: int | str, usage: int, inactive_file: int = 0, high: int | str = "max") -> None:
    """A group of version 2."""
    files(folder, memory__max=limit, memory__high=high, memory__current=usage)
    files(folder, memory__stat=f"anon 7\ninactive_anon 3\ninactive_file {inactive_file}\nactive_file 2")
