"""The cores and the memory that this process may use."""

import os
import subprocess
import sys

import pytest

from moeprof.records.system import resources
from moeprof.records.system.resources import free_memory, num_cores, total_memory

GIB = 2**30

UNDER_LIMITS = """
import resource, sys, torch
from moeprof.records.system.resources import free_memory
for kind, limit in (("RLIMIT_DATA", 5 * 2**30), ("RLIMIT_AS", 4 * 2**30)):
    resource.setrlimit(getattr(resource, kind), (limit, limit))
    available = free_memory()
    held = torch.empty(int(0.95 * available), dtype=torch.uint8)
    del held
    print(available)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of Linux")
def test_what_a_process_may_still_take_under_a_limit_can_really_be_had() -> None:
    """`ulimit -d` and `-v`: what is there counts against them already, and the rest fits into one tensor."""
    result = subprocess.run([sys.executable, "-c", UNDER_LIMITS], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr.splitlines()[-1]
    of_data, of_all = map(int, result.stdout.split())
    assert 0 < of_data < 5 * GIB
    assert 0 < of_all < 4 * GIB


def test_memory_is_what_linux_says_where_nothing_limits_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "memory_left", lambda: None)
    monkeypatch.setattr(resources, "process_limit", lambda: None)
    total = total_memory()
    assert 0 < free_memory() <= total


@pytest.mark.parametrize(("container", "process", "left"), [(5, None, 5), (None, 3, 3), (5, 3, 3), (3, 5, 3)])
def test_the_tightest_limit_counts(
    monkeypatch: pytest.MonkeyPatch, container: int | None, process: int | None, left: int
) -> None:
    monkeypatch.setattr(resources, "memory_left", lambda: container)
    monkeypatch.setattr(resources, "process_limit", lambda: process)
    assert free_memory() == left


@pytest.mark.parametrize(("quota", "cores"), [(None, 8), (2.0, 2), (2.5, 2), (0.5, 1), (64.0, 8)])
def test_a_quota_leaves_whole_cores_of_those_that_this_process_may_run_on(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.setattr(resources, "cpu_quota", lambda: quota)
    assert num_cores() == cores


def test_a_container_has_the_memory_of_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = total_memory()
    monkeypatch.setattr(resources, "memory_limit", lambda: 700)
    assert total_memory() == 700
    monkeypatch.setattr(resources, "memory_limit", lambda: 2 * whole)
    assert total_memory() == whole
