"""Whether a recipe can run on this machine, as far as that depends on its GPUs and on limits of memory."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

from moeprof.analysis.model_size import memory_need
from moeprof.parallel.group import Group
from moeprof.records.errors import MoeprofError, UsageError
from moeprof.records.recipe.files import load_recipe
from moeprof.studies import feasibility
from moeprof.studies.characterize import characterization
from moeprof.studies.feasibility import LIBRARIES_RAM_BYTES, check_gpus, check_memory, memory_for_a_rank


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
    assert memory_for_a_rank(recipe, 4) == (250 - 136) * 2**20
    monkeypatch.setattr(feasibility, "process_limit", lambda: 480 * 2**20)
    with pytest.raises(
        MoeprofError, match="take 136 MiB of memory, and 640 MiB of a limit set by `ulimit`, which leaves nothing"
    ):
        memory_for_a_rank(recipe, 1)


@pytest.mark.parametrize(("batch_size", "took_mib"), [(1, 147), (4, 164), (10, 236), (22, 1270)])
def test_what_a_run_took_beside_what_the_process_held_before_decides(
    monkeypatch: pytest.MonkeyPatch, batch_size: int, took_mib: int
) -> None:
    """Runs of lm-tiny took at most so much of RAM that cannot be reclaimed; 90% more suffice, and 3% less are refused."""
    recipe = load_recipe("lm-tiny", [f"load.batch_size={batch_size}"])
    monkeypatch.setattr(feasibility, "process_limit", lambda: None)
    monkeypatch.delitem(sys.modules, "scipy", raising=False)
    monkeypatch.setattr(feasibility, "available_memory", lambda device: int(1.9 * took_mib * 2**20))
    check_memory(recipe, memory_for_a_rank(recipe, 1))
    monkeypatch.setattr(feasibility, "available_memory", lambda device: int(0.97 * took_mib * 2**20))
    with pytest.raises(MoeprofError, match=r"needs \d+\.?\d* [MG]iB on cpu, but"):
        check_memory(recipe, memory_for_a_rank(recipe, 1))


def test_a_batch_that_would_be_killed_in_a_small_container_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """lm-tiny at batch 22 held up to 1270 MiB; of a limit of 700 MiB, 170 MiB were taken when it was checked."""
    recipe = load_recipe("lm-tiny", ["load.batch_size=22"])
    monkeypatch.setattr(feasibility, "process_limit", lambda: None)
    monkeypatch.delitem(sys.modules, "scipy", raising=False)
    monkeypatch.setattr(feasibility, "available_memory", lambda device: (700 - 170) * 2**20)
    with pytest.raises(MoeprofError, match=r"needs 1\.25 GiB on cpu, but 394 MiB are free") as caught:
        check_memory(recipe, memory_for_a_rank(recipe, 1))
    assert caught.value.remedy == "Use --set load.batch_size=11, the largest that fits."


MEASURED = """
import sys, threading, time
from pathlib import Path
from moeprof.records.recipe.files import load_recipe
from moeprof.records.system.resources import proc_bytes
from moeprof.studies.characterize import characterization

held = lambda: proc_bytes("/proc/self/status", "RssAnon:")
seen = [held()]

def watch():
    while True:
        seen.append(held())
        time.sleep(0.002)

threading.Thread(target=watch, daemon=True).start()
characterization().run(load_recipe("lm-tiny", sys.argv[2:]), Path(sys.argv[1]))
print(max(seen) - seen[0])
"""


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 10, 22])
def test_a_run_takes_more_than_its_live_tensors_and_less_than_was_estimated(tmp_path: Path, batch_size: int) -> None:
    settings = [f"load.batch_size={batch_size}", "load.batches=1", "measure.warmup=0", "measure.rounds=5"]
    ended = subprocess.run(
        [sys.executable, "-c", MEASURED, tmp_path / "run", *settings], capture_output=True, text=True, check=True, timeout=600
    )
    need = memory_need(load_recipe("lm-tiny", settings))
    held_bytes = int(ended.stdout.split()[-1])
    assert need.weights + need.activations < held_bytes < need.total + LIBRARIES_RAM_BYTES
