"""Every rank holds its own experts and all of the rest, whether drawn or read."""

from pathlib import Path
from typing import Any

import pytest
import torch

from moeprof.analysis.model_size import weight_bytes
from moeprof.models.build import build_model, make_model
from moeprof.models.shard import held
from moeprof.parallel.group import Group
from moeprof.records.recipe.recipe import Recipe
from tests.models.checkpoints import save_checkpoint

from .shapes import every_form, lively, small


def on(size: int, recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"parallel": recipe.parallel.model_copy(update={"ranks": size})})


@pytest.mark.parametrize("workload", ["lm", "mt"])
@pytest.mark.parametrize("read", [True, False], ids=["read", "drawn"])
@pytest.mark.parametrize("size", [1, 2, 4])
@every_form
def test_the_experts_of_all_ranks_together_are_those_of_the_model(
    tmp_path: Path, workload: str, read: bool, size: int, form: dict[str, Any]
) -> None:
    recipe = small(workload, dim=10, ffn_dim=7, **form)
    whole = build_model(recipe)
    if read:
        save_checkpoint(lively(whole), tmp_path / "weights.safetensors")
        recipe = small(workload, dim=10, ffn_dim=7, checkpoint=str(tmp_path / "weights.safetensors"), **form)
    ranks = [dict(build_model(on(size, recipe), group=Group(rank, size)).named_parameters()) for rank in range(size)]
    for rank in ranks:
        assert sum(parameter.nbytes for parameter in rank.values()) == weight_bytes(recipe.model, ranks=size)
    for name, parameter in whole.named_parameters():
        parts = [rank[name] for rank in ranks]
        if ".experts." in name:
            assert torch.equal(torch.cat(parts), parameter), name
            assert {len(part) for part in parts} == {4 // size}
        else:
            assert all(torch.equal(part, parameter) for part in parts), name


def test_a_part_knows_where_it_belongs() -> None:
    parts = {part.name: (part.whole, part.first) for part in held(make_model(on(2, small("lm"))), Group(1, 2))}
    assert parts["layers.1.ffn.experts.w1"] == ((4, 16, 24), 2)
    assert parts["layers.1.ffn.experts.b2"] == ((4, 16), 2)
    assert parts["layers.1.ffn.router.weight"] == ((4, 16), 0)
    assert parts["embedding.weight"] == ((270, 16), 0)
