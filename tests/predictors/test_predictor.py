"""The file of a predictor is the predictor; a file that is absent, damaged or of another model is refused, and so is known text."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from moeprof.predictors.predictor import KEY, ExpertPredictor, Prediction
from moeprof.records.errors import UsageError
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.recipe import Recipe
from tests.predictors.made import FITTED, made, written

Micro = Callable[[str], Path]
Change = Callable[[dict[str, Tensor], dict[str, Any]], object]


@pytest.fixture
def recipe(micro: Micro) -> Recipe:
    return load_recipe(str(micro("mt")), [])


def rewritten(path: Path, change: Change) -> None:
    """Changes tensors or header of a file."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()[KEY])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(tensors, header)
    save_file(tensors, path, {KEY: json.dumps(header)})


def test_a_predictor_that_is_read_predicts_as_the_one_that_was_written(recipe: Recipe, tmp_path: Path) -> None:
    path = written(recipe, tmp_path / "p.safetensors")
    one, other = made(recipe), ExpertPredictor.open(path, recipe)
    one.modules.requires_grad_(requires_grad=False)
    x_BLD = torch.randn(2, 5, recipe.model.dim)
    for phase, layers in {"encode": ["enc.1"], "decode": ["dec.1"]}.items():
        found, again = (predictor.predict(phase, x_BLD)[0] for predictor in (one, other))
        assert list(found.gates) == layers
        for layer, gates_TE in found.gates.items():
            assert gates_TE.shape == (10, 4)
            torch.testing.assert_close(gates_TE.sum(dim=1), torch.ones(10))
            assert torch.equal(again.gates[layer], gates_TE)
    other.write(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_steps_of_one_token_predict_what_a_whole_sequence_does(recipe: Recipe) -> None:
    predictor, x_BLD = made(recipe), torch.randn(3, 4, recipe.model.dim)
    whole, _ = predictor.predict("decode", x_BLD)
    state, steps = None, []
    for position in range(4):
        prediction, state = predictor.predict("decode", x_BLD[:, position : position + 1], state)
        steps.append(prediction.gates["dec.1"])
    torch.testing.assert_close(torch.stack(steps, dim=1).flatten(0, 1), whole.gates["dec.1"])


def test_the_most_probable_experts_come_first_and_ties_go_to_the_lowest_id() -> None:
    prediction = Prediction(
        {"1": torch.tensor([[0.1, 0.4, 0.1, 0.4], [0.7, 0.1, 0.2, 0.0]]), "3": torch.tensor([[0.5, 0.5]] * 2)}
    )
    assert prediction.top(3)["1"].tolist() == [[1, 3, 0], [0, 2, 1]]
    assert prediction.top(3)["3"].tolist() == [[0, 1], [0, 1]]


CHANGES: dict[str, tuple[Change, str]] = {
    "other weights": (lambda tensors, header: header.update(weights_hash="0" * 64), "a model with other weights"),
    "other experts per token": (lambda tensors, header: header.update(top_k=1), "other experts per token"),
    "fewer experts": (
        lambda tensors, header: header["stacks"]["encoder"]["layers"].update({"enc.1": 3}),
        "MoE layers and experts",
    ),
    "another layer": (
        lambda tensors, header: header["stacks"]["decoder"]["layers"].update({"dec.3": 4}),
        "MoE layers and experts",
    ),
    "no decoder": (lambda tensors, header: header["stacks"].pop("decoder"), "MoE layers and experts"),
    "a newer schema": (lambda tensors, header: header.update(schema_version=99), "schema 99"),
    "another kind": (lambda tensors, header: header.update(kind="gate"), "kind"),
    "an unknown key": (lambda tensors, header: header.update(more=1), "more"),
    "no width": (lambda tensors, header: header.pop("width"), "width"),
    "another width": (lambda tensors, header: header.update(width=7), "another shape"),
    "a width beyond memory": (lambda tensors, header: header.update(width=2**16), "another shape"),
    "a missing tensor": (lambda tensors, header: tensors.pop("decoder.residual.weight"), "decoder.residual.weight"),
    "a foreign tensor": (lambda tensors, header: tensors.update(extra=torch.ones(1)), "extra"),
    "another type": (
        lambda tensors, header: tensors.update({"decoder.residual.bias": torch.zeros(6).half()}),
        "decoder.residual.bias",
    ),
    "no number": (lambda tensors, header: tensors.update({"encoder.residual.bias": torch.full((6,), torch.nan)}), "not finite"),
    "no fingerprints": (lambda tensors, header: tensors.pop("fingerprints"), "fingerprints"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_is_refused_that_has(name: str, recipe: Recipe, tmp_path: Path) -> None:
    path = written(recipe, tmp_path / "p.safetensors")
    change, expected = CHANGES[name]
    rewritten(path, change)
    with pytest.raises(UsageError, match=expected) as error:
        ExpertPredictor.open(path, recipe)
    assert str(path) in error.value.what
    assert error.value.remedy


@pytest.mark.parametrize("content", [None, b"", b"not safetensors", b"cut"])
def test_a_file_is_refused_that_is_absent_or_damaged(content: bytes | None, recipe: Recipe, tmp_path: Path) -> None:
    path = written(recipe, tmp_path / "p.safetensors")
    if content is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-5] if content == b"cut" else content)
    with pytest.raises(UsageError, match=r"p\.safetensors: (no such file|damaged)") as error:
        ExpertPredictor.open(path, recipe)
    assert "moeprof fit-predictor" in error.value.remedy


def test_a_folder_and_the_weights_of_a_model_are_no_predictors(recipe: Recipe, tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "model.safetensors")
    for path in (tmp_path, tmp_path / "model.safetensors"):
        with pytest.raises(UsageError, match="predictor"):
            ExpertPredictor.open(path, recipe)


def test_a_predictor_of_other_weights_is_refused(micro: Micro, tmp_path: Path) -> None:
    path = micro("lm")
    file = written(load_recipe(str(path), []), tmp_path / "p.safetensors")
    ExpertPredictor.open(file, load_recipe(str(path), ["load.batch_size=1"]))
    with pytest.raises(UsageError, match="a model with other weights"):
        ExpertPredictor.open(file, load_recipe(str(path), ["measure.seed=1"]))


def test_text_that_the_predictor_was_fitted_on_is_refused_by_its_domain(recipe: Recipe, tmp_path: Path) -> None:
    predictor = ExpertPredictor.open(written(recipe, tmp_path / "p.safetensors"), recipe)
    other = [[*range(200, 260)], [*range(150, 250)]]
    predictor.check_unseen({"new": other})
    with pytest.raises(UsageError, match=r"fitted on 50% of the sequences of the text 'old'"):
        predictor.check_unseen({"new": other, "old": [FITTED[0], other[0]]})
