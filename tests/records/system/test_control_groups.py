"""The limits of containers, read from made-up trees of both versions, and from the real one."""

from pathlib import Path

import pytest

from moeprof.records.system.control_groups import cpu_quota, memory_left, memory_limit
from tests.records.system.kernel_files import (
    MIB,
    NONE_IN_V1,
    V1_CPU,
    V1_MEMORY,
    V2,
    V2_BESIDE_V1,
    files,
    memory_v1,
    memory_v2,
    process,
)


def test_version_2_leaves_the_limit_less_what_is_used(tmp_path: Path) -> None:
    process(tmp_path, ["0::/job"], [V2.format(top="/")])
    memory_v2(tmp_path / "sys/fs/cgroup/job", 700 * MIB, 300 * MIB)
    assert (memory_left(tmp_path), memory_limit(tmp_path)) == (400 * MIB, 700 * MIB)


def test_version_1_leaves_the_limit_less_what_is_used(tmp_path: Path) -> None:
    process(tmp_path, ["9:name=systemd:/", "4:memory:/job", "1:cpu,cpuacct:/"], [V1_MEMORY.format(top="/")])
    memory_v1(tmp_path / "sys/fs/cgroup/memory/job", 700 * MIB, 300 * MIB)
    assert (memory_left(tmp_path), memory_limit(tmp_path)) == (400 * MIB, 700 * MIB)


def test_page_cache_that_can_be_reclaimed_is_free(tmp_path: Path) -> None:
    """A file that was read once fills a group to its limit; its pages are dropped when memory is needed."""
    process(tmp_path / "2", ["0::/job"], [V2.format(top="/")])
    memory_v2(tmp_path / "2/sys/fs/cgroup/job", 700 * MIB, 690 * MIB, inactive_file=500 * MIB)
    process(tmp_path / "1", ["4:memory:/job"], [V1_MEMORY.format(top="/")])
    memory_v1(tmp_path / "1/sys/fs/cgroup/memory/job", 700 * MIB, 690 * MIB, inactive_file=500 * MIB)
    assert [memory_left(tmp_path / version) for version in "12"] == [510 * MIB, 510 * MIB]


@pytest.mark.parametrize(
    ("outer", "inner", "left"),
    [
        ((700, 100), (1000, 50), 600),  # the outer group is the smaller one
        ((1000, 100), (300, 50), 250),
        ((1000, 950), (300, 50), 50),  # a neighbour in the outer group has taken nearly all of it
        ((1000, 100), (None, 50), 900),
        ((None, 100), (300, 50), 250),
        ((None, 100), (None, 50), None),
        ((1000, 1200), (300, 50), 0),  # a limit that was lowered below what is used
    ],
)
def test_the_smallest_of_all_ancestors_counts(
    tmp_path: Path, outer: tuple[int | None, int], inner: tuple[int | None, int], left: int | None
) -> None:
    process(tmp_path / "2", ["0::/a/b/c"], [V2.format(top="/")])
    process(tmp_path / "1", ["4:memory:/a/b/c"], [V1_MEMORY.format(top="/")])
    for folder, (limit, usage) in (("a", outer), ("a/b/c", inner)):
        group = tmp_path / "2/sys/fs/cgroup" / folder
        memory_v2(group, "max" if limit is None else limit * MIB, usage * MIB)
        memory_v1(tmp_path / "1/sys/fs/cgroup/memory" / folder, NONE_IN_V1 if limit is None else limit * MIB, usage * MIB)
    expected = None if left is None else max(left * MIB, 1)
    assert [memory_left(tmp_path / version) for version in "12"] == [expected, expected]


def test_the_group_above_which_version_2_slows_a_process_down_counts_too(tmp_path: Path) -> None:
    process(tmp_path, ["0::/job"], [V2.format(top="/")])
    memory_v2(tmp_path / "sys/fs/cgroup/job", "max", 300 * MIB, high=500 * MIB)
    assert memory_left(tmp_path) == 200 * MIB


def test_hybrid_takes_each_limit_from_the_hierarchy_that_has_the_controller(tmp_path: Path) -> None:
    mounts = [V1_MEMORY.format(top="/"), V1_CPU.format(top="/"), V2_BESIDE_V1]
    process(tmp_path, ["4:memory:/m", "2:cpu,cpuacct:/c", "0::/u"], mounts)
    memory_v1(tmp_path / "sys/fs/cgroup/memory/m", 700 * MIB, 300 * MIB)
    files(tmp_path / "sys/fs/cgroup/cpu,cpuacct/c", cpu__cfs_quota_us=300000, cpu__cfs_period_us=100000)
    files(tmp_path / "sys/fs/cgroup/unified/u", cgroup__procs="1")
    assert (memory_left(tmp_path), cpu_quota(tmp_path)) == (400 * MIB, 3.0)


def test_a_container_sees_its_own_group_as_the_mounted_one(tmp_path: Path) -> None:
    """Without a name space of its own, a container's path is that of the host, and so is the root of its mount."""
    process(tmp_path, ["4:memory:/docker/0f/inner"], [V1_MEMORY.format(top="/docker/0f")])
    memory_v1(tmp_path / "sys/fs/cgroup/memory", 700 * MIB, 300 * MIB)
    memory_v1(tmp_path / "sys/fs/cgroup/memory/inner", 600 * MIB, 300 * MIB)
    assert memory_left(tmp_path) == 300 * MIB


@pytest.mark.parametrize("path", ["/", "/../other", "/docker/0f2", "/gone/before (deleted)"])
def test_a_group_that_is_not_visible_leaves_the_mounted_one(tmp_path: Path, path: str) -> None:
    process(tmp_path, [f"0::{path}"], [V2.format(top="/docker/0f" if "docker" in path else "/")])
    memory_v2(tmp_path / "sys/fs/cgroup", 700 * MIB, 300 * MIB)
    memory_v2(tmp_path / "sys/fs/other", 50 * MIB, 10 * MIB)
    assert memory_left(tmp_path) == 400 * MIB


def test_colons_spaces_and_backslashes_in_names_are_kept(tmp_path: Path) -> None:
    mount = r"34 31 0:31 /a\134x2d\040b /sys/fs/my\040groups rw - cgroup2 cgroup2 rw"
    process(tmp_path, [r"0::/a\x2d b/pod:1"], [mount])
    memory_v2(tmp_path / "sys/fs/my groups/pod:1", 700 * MIB, 300 * MIB)
    assert memory_left(tmp_path) == 400 * MIB


@pytest.mark.parametrize(("text", "quota"), [("150000 100000", 1.5), ("max 100000", None), ("50000 100000", 0.5), ("", None)])
def test_a_quota_of_version_2_is_one_file(tmp_path: Path, text: str, quota: float | None) -> None:
    process(tmp_path, ["0::/job"], [V2.format(top="/")])
    files(tmp_path / "sys/fs/cgroup/job", cpu__max=text)
    assert cpu_quota(tmp_path) == quota


@pytest.mark.parametrize(("quota", "cores"), [(250000, 2.5), (-1, None)])
def test_a_quota_of_version_1_is_two_files(tmp_path: Path, quota: int, cores: float | None) -> None:
    process(tmp_path, ["2:cpu,cpuacct:/job"], [V1_CPU.format(top="/")])
    files(tmp_path / "sys/fs/cgroup/cpu,cpuacct/job", cpu__cfs_quota_us=quota, cpu__cfs_period_us=100000)
    assert cpu_quota(tmp_path) == cores


def test_the_smallest_quota_of_all_ancestors_counts(tmp_path: Path) -> None:
    process(tmp_path, ["0::/a/b"], [V2.format(top="/")])
    files(tmp_path / "sys/fs/cgroup/a", cpu__max="200000 100000")
    files(tmp_path / "sys/fs/cgroup/a/b", cpu__max="80000 20000")
    assert cpu_quota(tmp_path) == 2.0


def nothing(root: Path) -> None:
    root.mkdir(exist_ok=True)


def groups_without_mounts(root: Path) -> None:
    process(root, ["0::/job", "4:memory:/job"], [])


def mounts_without_groups(root: Path) -> None:
    process(root, [], [V2.format(top="/")])


def folders_without_files(root: Path) -> None:
    process(root, ["0::/job", "4:memory:/job"], [V2.format(top="/"), V1_MEMORY.format(top="/")])
    (root / "sys/fs/cgroup/job").mkdir(parents=True)


def a_limit_without_its_use(root: Path) -> None:
    process(root, ["0::/job"], [V2.format(top="/")])
    files(root / "sys/fs/cgroup/job", memory__max=700 * MIB)


def damaged_lines(root: Path) -> None:
    process(root, ["0:", "memory", "", "4:memory"], ["34 31 - cgroup2", "- - -", "1 2 3 / /sys/fs/cgroup - cgroup"])


@pytest.mark.parametrize(
    "tree",
    [
        nothing,
        groups_without_mounts,
        mounts_without_groups,
        folders_without_files,
        a_limit_without_its_use,
        damaged_lines,
    ],
)
def test_files_that_are_missing_or_damaged_are_no_limit(tmp_path: Path, tree: object) -> None:
    assert callable(tree)
    tree(tmp_path)
    assert (memory_left(tmp_path), cpu_quota(tmp_path)) == (None, None)


def test_a_group_without_statistics_counts_all_it_uses(tmp_path: Path) -> None:
    process(tmp_path, ["0::/job"], [V2.format(top="/")])
    files(tmp_path / "sys/fs/cgroup/job", memory__max=700 * MIB, memory__current=300 * MIB)
    assert memory_left(tmp_path) == 400 * MIB


def limits_of_this_machine() -> list[int]:
    """The limits of all ancestors, with the usual places of both versions; numbers near 2**63 stand for none."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    places = [("/sys/fs/cgroup/memory" if "memory" in names else "/sys/fs/cgroup", path) for _, names, path in lines]
    folders = [folder for top, path in places for folder in (Path(top + path), *Path(top + path).parents)]
    files = [folder / name for folder in folders for name in ("memory.max", "memory.high", "memory.limit_in_bytes")]
    limits = [file.read_text().strip() for file in files if file.is_file()]
    return [int(limit) for limit in limits if limit != "max" and int(limit) < 2**60]


@pytest.mark.skipif(not Path("/proc/self/cgroup").is_file(), reason="no control groups")
def test_the_limit_of_this_machine_is_the_smallest_in_its_usual_places() -> None:
    assert memory_limit() == min(limits_of_this_machine(), default=None)
    assert (memory_left() is None) == (memory_limit() is None)
