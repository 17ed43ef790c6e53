"""The small models run, and come back from a folder with their tokenizer."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from tests.huggingface.small_models import SEVEN, byte_tokenizer, saved, small_model


@pytest.mark.parametrize("architecture", SEVEN)
def test_a_small_model_has_the_weights_of_its_seed(architecture: str) -> None:
    first, same, other = (small_model(architecture, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_saved_model_comes_back_with_its_tokenizer(tmp_path: Path) -> None:
    folder = saved(tmp_path, model := small_model("mixtral"))
    loaded, tokenizer = type(model).from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    assert tokenizer("Hé<s>").input_ids == byte_tokenizer()("Hé<s>").input_ids
    assert len(tokenizer("Hé<s>").input_ids) == 4
    assert tokenizer.decode(tokenizer("Hé\n x").input_ids) == "Hé\n x"
