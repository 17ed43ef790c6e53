"""What a checkpoint says of itself is data: read back exactly, and refused where it cannot be understood."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from moeprof.records.errors import UsageError
from moeprof.records.recipe.files import load_recipe
from moeprof.records.run.model_card import CurvePoint, Origin
from moeprof.studies.train.checkpoint import KEY, read_origin, write_checkpoint
from moeprof.studies.train.own import OwnLearner

ORIGIN = Origin({"workload": "lm"}, False, {"prose": "ab"}, 12, [CurvePoint(1, 12, 0.5, {"prose": 0.25})])


def test_what_was_written_is_read_back(micro: Callable[[str], Path], tmp_path: Path) -> None:
    recipe = load_recipe(str(micro("lm")))
    write_checkpoint(tmp_path / "a.safetensors", OwnLearner.untrained(recipe, twin=False).model, ORIGIN)
    assert read_origin(tmp_path / "a.safetensors") == ORIGIN


def test_a_file_of_another_program_says_nothing(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors")
    assert read_origin(tmp_path / "a.safetensors") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"recipe": 1}', '{"recipe": {}, "twin": false, "curve": [1]}'])
def test_a_damaged_entry_is_refused_in_two_lines(tmp_path: Path, text: str) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "a.safetensors", {KEY: text})
    with pytest.raises(UsageError, match="its record of training is damaged") as caught:
        read_origin(tmp_path / "a.safetensors")
    assert str(caught.value).count("\n") == 1
