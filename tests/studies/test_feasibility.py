"""Whether a recipe can run on this machine, as far as that depends on its GPUs and on limits of memory."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from moeprof.parallel.group import Group
from moeprof.records.errors import MoeprofError, UsageError
from moeprof.records.recipe.files import load_recipe
from moeprof.studies import feasibility
from moeprof.studies.characterize import characterization
from moeprof.studies.feasibility import check_gpus, memory_for_a_rank


@pytest.mark.parametrize(("ranks", "gpus"), [(1, 1), (2, 2), (2, 8)])
def test_every_rank_of_a_machine_has_a_gpu_of_its_own(
    micro: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, ranks: int, gpus: int
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    check_gpus(load_recipe(str(micro("lm")), [f"parallel.ranks={ranks}", "measure.device=cuda"]), ranks)


@pytest.mark.parametrize(("ranks", "gpus"), [(2, 1), (4, 3)])
def test_fewer_gpus_than_ranks_are_refused(
    micro: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, ranks: int, gpus: int
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    recipe = load_recipe(str(micro("lm")), [f"parallel.ranks={ranks}", "measure.device=cuda"])
    with pytest.raises(UsageError, match=f"{ranks} ranks on this machine need {ranks} GPUs, but {gpus} are visible") as caught:
        check_gpus(recipe, ranks)
    assert f"--ranks {gpus}" in caught.value.remedy
    assert "CUDA_VISIBLE_DEVICES" in caught.value.remedy


def test_ranks_on_a_cpu_need_no_gpu(micro: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    check_gpus(load_recipe(str(micro("lm")), ["parallel.ranks=4"]), 4)


def test_too_many_ranks_are_refused_before_anything_starts(
    micro: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    recipe = load_recipe(str(micro("lm")), ["parallel.ranks=2", "measure.device=cuda"])
    with pytest.raises(UsageError, match="need 2 GPUs"):
        characterization().check(recipe, Group(0, 2, 2))


def test_a_rank_that_torchrun_started_without_a_gpu_ends_before_it_joins_the_others(
    micro: Callable[[str], Path], tmp_path: Path
) -> None:
    """Nothing listens at the address: a rank that joined would wait for the others."""
    torchrun = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9", "CUDA_VISIBLE_DEVICES": ""}
    options = ("--set", "parallel.ranks=2", "--device", "cuda", "--out", tmp_path / "run")
    ended = subprocess.run(
        [sys.executable, "-m", "moeprof", "characterize", micro("lm"), *options],
        env=os.environ | torchrun | address,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ended.returncode == 1
    assert "device cuda, but torch" in ended.stderr
    assert "bug" not in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_limit_of_memory_leaves_libraries_their_part_or_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenBLAS waits for memory forever if it gets none."""
    recipe = load_recipe("lm-tiny")
    monkeypatch.setattr(feasibility, "available_memory", lambda device: 1000 * 2**20)
    monkeypatch.setattr(feasibility, "process_limit", lambda: 1000 * 2**20)
    monkeypatch.setitem(sys.modules, "scipy", ModuleType("scipy"))
    assert memory_for_a_rank(recipe, 1) == 1000 * 2**20
    monkeypatch.delitem(sys.modules, "scipy")
    assert memory_for_a_rank(recipe, 1) == (1000 - 640) * 2**20
    assert memory_for_a_rank(recipe, 4) == 250 * 2**20
    monkeypatch.setattr(feasibility, "process_limit", lambda: 480 * 2**20)
    with pytest.raises(MoeprofError, match="leaves 480 MiB, but the libraries of a run take 640 MiB"):
        memory_for_a_rank(recipe, 1)
