"""What a run records of its machine, and how much memory it may still take."""

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import moeprof
from moeprof.instrument import machine
from moeprof.instrument.machine import available_memory, cgroup_available, environment, git_commit, num_cores, package_versions

GIB = 2**30

UNDER_LIMITS = """
import resource, sys, torch
from moeprof.instrument.machine import available_memory
for kind, limit in (("RLIMIT_DATA", 5 * 2**30), ("RLIMIT_AS", 4 * 2**30)):
    resource.setrlimit(getattr(resource, kind), (limit, limit))
    available = available_memory("cpu")
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
    monkeypatch.setattr(machine, "cgroup_available", lambda: 0)
    monkeypatch.setattr(machine, "process_limit", lambda: 0)
    total = environment("cpu").memory_bytes
    assert 0 < available_memory("cpu") <= total


@pytest.mark.parametrize(("container", "process", "left"), [(5, 0, 5), (0, 3, 3), (5, 3, 3), (3, 5, 3)])
def test_the_tightest_limit_counts(monkeypatch: pytest.MonkeyPatch, container: int, process: int, left: int) -> None:
    monkeypatch.setattr(machine, "cgroup_available", lambda: container)
    monkeypatch.setattr(machine, "process_limit", lambda: process)
    assert available_memory("cpu") == left


def test_on_a_gpu_the_drivers_free_memory_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (7, 9))
    assert available_memory("cuda") == 7


@pytest.mark.parametrize(
    ("limit", "use", "left"),
    [("1000", "400", 600), ("max", "400", 0), (str(2**63 - 4096), "400", 0), ("1000", "1200", 1), ("1000\n", "400\n", 600)],
)
def test_a_container_leaves_its_limit_less_what_it_uses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str, use: str, left: int
) -> None:
    (tmp_path / "max").write_text(limit)
    (tmp_path / "current").write_text(use)
    absent = str(tmp_path / "absent")
    monkeypatch.setattr(machine, "CGROUP_LIMITS", (absent, str(tmp_path / "max")))
    monkeypatch.setattr(machine, "CGROUP_USES", (absent, str(tmp_path / "current")))
    assert cgroup_available() == left


def test_without_control_groups_there_is_no_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "CGROUP_LIMITS", (str(tmp_path / "a"), str(tmp_path / "b")))
    monkeypatch.setattr(machine, "CGROUP_USES", (str(tmp_path / "a"), str(tmp_path / "b")))
    assert cgroup_available() == 0


def test_the_environment_names_machine_and_software() -> None:
    found = environment("cpu")
    assert found.python == platform.python_version()
    assert found.packages["moeprof"] == moeprof.__version__
    assert found.packages["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found.cores == num_cores() >= 1
    assert found.threads == torch.get_num_threads()
    assert found.memory_bytes > 2**28
    assert (found.gpu, found.driver) == ("", "")
    assert found.hostname
    assert found.platform


def test_packages_that_are_absent_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "PACKAGES", ("torch", "no-such-package-anywhere"))
    assert list(package_versions()) == ["moeprof", "torch"]


def test_a_checkout_is_known_by_its_commit() -> None:
    if not (Path(moeprof.__file__).parents[1] / ".git").exists():
        pytest.skip("moeprof runs from no checkout here")
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", git_commit())


def test_an_installed_package_has_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(moeprof, "__file__", str(tmp_path / "moeprof" / "__init__.py"))
    assert git_commit() == ""


def test_a_machine_without_git_has_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert git_commit() == ""


def test_without_a_driver_there_is_a_reason_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    def fail() -> None:
        raise pynvml.NVMLError_LibraryNotFound

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    version, reason = machine.driver_version()
    assert version == ""
    assert "not found" in reason.lower()


def test_the_drivers_version_is_read_and_nvml_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    calls: list[str] = []
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: calls.append("init"))
    monkeypatch.setattr(pynvml, "nvmlSystemGetDriverVersion", lambda: "570.1")
    monkeypatch.setattr(pynvml, "nvmlShutdown", lambda: calls.append("shutdown"))
    assert machine.driver_version() == ("570.1", "")
    assert calls == ["init", "shutdown"]
