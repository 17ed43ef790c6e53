"""An exported model is the same model: the same bits for moeprof, the same logits for transformers once it routes rightly."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from moeprof.models.build import build_model
from moeprof.models.nllb import recipe_of
from moeprof.models.translation_model import TranslationModel
from moeprof.records.errors import MoeprofError, UsageError
from moeprof.records.recipe.files import load_recipe, validated
from moeprof.records.recipe.recipe import Recipe
from moeprof.studies import export as study
from moeprof.studies.export import export
from tests.models.checkpoints import save_checkpoint
from tests.models.shapes import ALL_REAL, lively, real_up_to, remembered, small, step_of, words

LENGTHS, SOURCE, TARGET = [7, 3, 5], words(3, 7), words(3, 6, seed=1)
WHOLE = 10**9


def trained(folder: Path, **shape: Any) -> Recipe:
    """A small translation model with a checkpoint."""
    path = folder / "weights.safetensors"
    save_checkpoint(lively(build_model(small("mt", **shape))), path)
    return small("mt", checkpoint=str(path), **shape)


def logits(recipe: Recipe) -> Tensor:
    """Of three sentences with padding."""
    model = build_model(recipe)
    assert isinstance(model, TranslationModel)
    real = step_of(real_up_to(LENGTHS, SOURCE.shape[1]))
    found: Tensor = model(TARGET, remembered(model, SOURCE, real), ALL_REAL)
    return found


def imported(folder: Path) -> Recipe:
    return validated(recipe_of(folder), str(folder))


SHAPES: list[dict[str, Any]] = [
    {},
    {"dtype": "bfloat16", "expert_output_masking": 0.2},
    {"capacity_fraction": 0.3, "first_position": 4, "scale_embedding": False, "activation": "gelu"},
    {"encoder_layers": 3, "moe_every": 1, "decoder_moe_every": 2},
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("shard_bytes", [WHOLE, 20_000], ids=["one-file", "shards"])
def test_the_folder_gives_the_same_logits_bit_for_bit(tmp_path: Path, shape: dict[str, Any], shard_bytes: int) -> None:
    recipe = trained(tmp_path, **shape)
    export(recipe, tmp_path / "out", shard_bytes=shard_bytes)
    assert (len(list((tmp_path / "out").glob("*.safetensors"))) == 1) == (shard_bytes == WHOLE)
    assert torch.equal(logits(imported(tmp_path / "out")), logits(recipe))


def test_an_exported_folder_is_exported_again_as_the_same_files(tmp_path: Path) -> None:
    export(trained(tmp_path), tmp_path / "first", shard_bytes=20_000)
    export(imported(tmp_path / "first"), tmp_path / "second", shard_bytes=20_000)
    first, second = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("first", "second"))
    assert first == second


def test_the_recipe_of_the_folder_is_the_recipe_that_was_exported(tmp_path: Path) -> None:
    """But for the load and the file of the weights."""
    recipe = load_recipe("mt-tiny")
    export(recipe, tmp_path / "out", shard_bytes=WHOLE)
    found = imported(tmp_path / "out")
    assert found.gating == recipe.gating
    assert found.own_model.model_copy(update={"checkpoint": recipe.own_model.checkpoint}) == recipe.own_model
    assert torch.equal(logits(found), logits(recipe))


def test_transformers_reads_the_folder_and_gives_the_same_logits_once_it_routes_rightly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra moeprof[hf]")
    from tests.models.nllb_models import route_rightly

    route_rightly(monkeypatch)
    recipe = load_recipe("mt-tiny")
    export(recipe, tmp_path / "out", shard_bytes=5_000_000)
    model, report = transformers.NllbMoeForConditionalGeneration.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    real = real_up_to(LENGTHS, SOURCE.shape[1])
    with torch.no_grad():
        theirs = model(input_ids=SOURCE, attention_mask=real.long(), decoder_input_ids=TARGET).logits
    ours = logits(recipe)
    assert ours.abs().max() > 5
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-4)


def test_no_file_of_weights_is_larger_than_wanted_unless_one_tensor_is(tmp_path: Path) -> None:
    export(trained(tmp_path), tmp_path / "out", shard_bytes=5_000)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    sizes = []
    for path in (tmp_path / "out").glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name).nbytes for name in file.keys()}  # noqa: SIM118
        assert sum(tensors.values()) <= 5_000 or len(tensors) == 1
        assert all(index["weight_map"][name] == path.name for name in tensors)
        sizes.append(sum(tensors.values()))
    assert index["metadata"]["total_size"] == sum(sizes)
    assert max(sizes) == 270 * 16 * 4  # the embedding


def refusal(call: Callable[[], object]) -> str:
    """What a UsageError of two lines says in its first."""
    with pytest.raises(UsageError) as caught:
        call()
    assert all(str(caught.value).split("\n"))
    return caught.value.what


@pytest.mark.parametrize(
    ("shape", "what"),
    [
        ({"ffn": "gated"}, "FFNs of two matrices with biases"),
        ({"ffn_bias": False}, "FFNs of two matrices with biases"),
        ({"positions": "alibi"}, "sinusoidal positions, and the model has alibi"),
        ({"top_k": 1}, "2 experts per token, and gating.top_k is 1"),
    ],
    ids=str,
)
def test_a_model_that_the_layout_cannot_express_is_refused(tmp_path: Path, shape: dict[str, Any], what: str) -> None:
    recipe = trained(tmp_path, **shape)
    assert what in refusal(lambda: export(recipe, tmp_path / "out", shard_bytes=WHOLE))
    assert not (tmp_path / "out").exists()


def test_a_language_model_and_a_model_without_trained_weights_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "encoder-decoders" in refusal(lambda: export(load_recipe("lm-tiny"), out, shard_bytes=WHOLE))
    assert "no trained weights" in refusal(lambda: export(load_recipe("mt-54b"), out, shard_bytes=WHOLE))
    assert not out.exists()


def test_an_earlier_export_is_replaced_only_by_force_and_nothing_else_ever(tmp_path: Path) -> None:
    recipe, out = trained(tmp_path), tmp_path / "out"
    export(recipe, out, shard_bytes=20_000)
    before = sorted(path.name for path in out.iterdir())
    assert "exists already" in refusal(lambda: export(recipe, out, shard_bytes=WHOLE))
    assert sorted(path.name for path in out.iterdir()) == before
    assert set(export(recipe, out, shard_bytes=WHOLE, force=True).files) == {path.name for path in out.iterdir()}
    assert [path.name for path in out.glob("*.safetensors*")] == ["model.safetensors"]
    (out / "notes.txt").write_text("mine")
    assert "'notes.txt'" in refusal(lambda: export(recipe, out, shard_bytes=WHOLE, force=True))
    assert (out / "model.safetensors").exists()


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), MoeprofError("the disk is full", "Free some.")], ids=["ctrl-c", "disk"])
def test_an_export_that_stops_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException) -> None:
    def stopped(*_: object) -> None:
        raise stop

    monkeypatch.setattr(study, "write_config", stopped)
    with pytest.raises(type(stop)):
        export(trained(tmp_path), tmp_path / "out", shard_bytes=20_000)
    assert not (tmp_path / "out").exists()
