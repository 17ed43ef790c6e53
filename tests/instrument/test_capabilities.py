"""`moeprof doctor`: every line says what was found, or what is missing and why."""

import tempfile
from pathlib import Path

import pytest
import torch

from moeprof.instrument import capabilities as module
from moeprof.instrument.capabilities import Capability, accelerator, capabilities, disk, software

NAMES = [
    *("Python", "torch", "git commit", "CPU timing", "memory", "allocator", "CUDA", "GPU counters"),
    *("run directory", "direct I/O"),
]


def by_name(found: object) -> dict[str, Capability]:
    return {capability.name: capability for capability in found}  # type: ignore[attr-defined]


def test_every_capability_is_named_once_in_one_line_with_its_detail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "keep_freed_memory", lambda: True)
    found = capabilities()
    assert [capability.name for capability in found] == NAMES
    assert all(capability.detail and "\n" not in capability.detail for capability in found)


@pytest.mark.parametrize(
    ("version", "enough"),
    [("2.13.0+cpu", True), ("2.11.0", True), ("2.10.1", False), ("1.13.1", False), ("3.0.0", True), ("2.11.0a0+git12", True)],
)
def test_torch_is_new_enough_from_2_11_on(monkeypatch: pytest.MonkeyPatch, version: str, enough: bool) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    torch_line = by_name(software())["torch"]
    assert torch_line.available is enough
    assert version in torch_line.detail


def test_without_a_checkout_the_doctor_says_what_runs_are_known_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "git_commit", lambda: "")
    line = by_name(software())["git commit"]
    assert not line.available
    assert "package version" in line.detail


@pytest.mark.parametrize(("built_for", "says"), [(None, "torch is a CPU build"), ("12.9", "torch is built for CUDA 12.9")])
def test_without_a_gpu_the_doctor_says_what_torch_was_built_for(
    monkeypatch: pytest.MonkeyPatch, built_for: str | None, says: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.setattr(module, "driver_version", lambda: ("", "NVML Shared Library Not Found"))
    cuda, counters = accelerator()
    assert cuda == Capability("CUDA", False, f"no device; {says}")
    assert counters == Capability("GPU counters", False, "n/a: NVML Shared Library Not Found")


def test_a_gpu_is_named_with_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        name, total_memory = "H200", 2**37

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Properties)
    monkeypatch.setattr(module, "driver_version", lambda: ("570.1", ""))
    cuda, counters = accelerator()
    assert cuda == Capability("CUDA", True, "2 x H200, 128 GiB")
    assert counters == Capability("GPU counters", True, "driver 570.1")


def test_the_run_directory_is_reports_where_it_exists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert next(disk()) == Capability("run directory", True, f"{tmp_path} is writable")
    (tmp_path / "reports").mkdir()
    assert next(disk()) == Capability("run directory", True, f"{tmp_path / 'reports'} is writable")
    assert list((tmp_path / "reports").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named_with_the_way_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(**options: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    assert next(disk()) == Capability("run directory", False, f"{tmp_path}: read-only file system; use --out")


@pytest.mark.parametrize("obstacle", ["", "/cache is on tmpfs, which keeps files in memory"])
def test_the_doctor_says_whether_experts_can_lie_on_a_disk(monkeypatch: pytest.MonkeyPatch, obstacle: str) -> None:
    monkeypatch.setattr(module, "why_no_slow_tier", lambda folder: obstacle)
    monkeypatch.setattr(module, "cache_folder", lambda: Path("/cache/moeprof"))
    line = by_name(disk())["direct I/O"]
    assert line.available is not bool(obstacle)
    assert line.detail == (
        f"{obstacle}: expert buffering is not available on a CPU"
        if obstacle
        else "expert buffering reads experts from /cache/moeprof"
    )
