"""What a run records of its machine, and the threads that it uses there."""

import os
import platform
import re
import subprocess
from pathlib import Path

import pytest
import torch

import moeprof
from moeprof.instrument import machine
from moeprof.instrument.machine import available_memory, environment, git_commit, package_versions
from moeprof.records.system.resources import num_cores, total_memory


def test_on_a_gpu_the_drivers_free_memory_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (7, 9))
    assert available_memory("cuda") == 7


def test_the_environment_names_machine_and_software() -> None:
    found = environment("cpu")
    assert found.python == platform.python_version()
    assert found.packages["moeprof"] == moeprof.__version__
    assert found.packages["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found.cores == num_cores() >= 1
    assert found.threads == torch.get_num_threads()
    assert found.memory_bytes == total_memory() > 2**28
    assert (found.gpu, found.driver) == ("", "")
    assert found.hostname
    assert found.platform


@pytest.mark.parametrize(("cores", "wanted", "threads"), [(1, None, 1), (2, None, 2), (3, None, 3), (8, None, 3), (1, "3", 3)])
def test_torch_uses_no_more_threads_than_there_are_cores_unless_it_is_told_to(
    monkeypatch: pytest.MonkeyPatch, cores: int, wanted: str | None, threads: int
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    monkeypatch.setattr(machine, "num_cores", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if wanted:
        monkeypatch.setenv("OMP_NUM_THREADS", wanted)
    machine.keep_within_quota()
    found = environment("cpu")
    torch.set_num_threads(before)
    assert (found.threads, found.cores) == (threads, cores)


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


def test_the_commit_is_read_without_writing_to_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.org"]
    (tmp_path / "moeprof").mkdir()
    (tmp_path / "moeprof" / "__init__.py").write_text("")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    monkeypatch.setattr(moeprof, "__file__", str(tmp_path / "moeprof" / "__init__.py"))
    os.utime(tmp_path / "moeprof" / "__init__.py", (1, 1))  # git would refresh its index now
    index = (tmp_path / ".git" / "index").read_bytes()
    assert git_commit() == commit
    assert (tmp_path / ".git" / "index").read_bytes() == index
    (tmp_path / "moeprof" / "__init__.py").write_text("changed")
    assert git_commit() == f"{commit}-dirty"


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
