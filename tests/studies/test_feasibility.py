"""Whether a recipe can run on this machine, as far as that depends on its GPUs."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from moeprof.parallel.group import Group
from moeprof.records.errors import UsageError
from moeprof.records.recipe.files import load_recipe
from moeprof.studies.characterize import characterization
from moeprof.studies.feasibility import check_gpus


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
