"""Weights come back from a file bit by bit; a file that is missing, damaged or of another shape is a UsageError."""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from moeprof.models.build import Model, build_model, make_model
from moeprof.models.checkpoint import check_checkpoint, load_checkpoint
from moeprof.records.errors import UsageError
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.weights import file_hash, weights_hash
from tests.models.checkpoints import save_checkpoint

from .shapes import small

Damage = Callable[[Path], object]


def parameters(model: Model) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters())


def saved(tmp_path: Path, workload: str = "lm", **shape: object) -> Path:
    """A checkpoint of a small model with weights that no recipe gives by default."""
    path = tmp_path / "weights.safetensors"
    save_checkpoint(build_model(small(workload, seed=5, **shape)), path)
    return path


def refusal(call: Callable[[], object]) -> str:
    """What a UsageError of two lines says in its first."""
    with pytest.raises(UsageError) as caught:
        call()
    assert str(caught.value).count("\n") == 1
    assert all(str(caught.value).split("\n"))
    return caught.value.what


@pytest.mark.parametrize("workload", ["lm", "mt"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_come_back_bit_by_bit(tmp_path: Path, workload: str, dtype: str) -> None:
    path = saved(tmp_path, workload, dtype=dtype)
    wanted = parameters(build_model(small(workload, seed=5, dtype=dtype)))
    found = parameters(build_model(small(workload, dtype=dtype, checkpoint=str(path))))
    assert found.keys() == wanted.keys()
    for name, parameter in found.items():
        assert parameter.dtype == wanted[name].dtype, name
        assert torch.equal(parameter, wanted[name]), name


def test_the_file_holds_every_parameter_under_its_name_and_no_tensor_twice(tmp_path: Path) -> None:
    model = build_model(small("mt"))
    save_checkpoint(model, tmp_path / "weights.safetensors")
    tensors = load_file(tmp_path / "weights.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        name: tuple(parameter.shape) for name, parameter in model.named_parameters()
    }


def test_a_float32_checkpoint_is_rounded_for_a_bfloat16_recipe_but_not_its_routers(tmp_path: Path) -> None:
    path = saved(tmp_path)
    exact = parameters(build_model(small("lm", seed=5)))
    for name, parameter in parameters(build_model(small("lm", dtype="bfloat16", checkpoint=str(path)))).items():
        assert torch.equal(parameter, exact[name].to(parameter.dtype)), name
        assert parameter.dtype == (torch.float32 if "router" in name else torch.bfloat16)


def test_the_model_does_not_hang_on_the_file(tmp_path: Path) -> None:
    path = saved(tmp_path)
    model = build_model(small("lm", checkpoint=str(path)))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    path.unlink()
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_the_dense_twin_has_random_weights_whatever_the_checkpoint(tmp_path: Path) -> None:
    path = saved(tmp_path)
    twin = parameters(build_model(small("lm", checkpoint=str(path)), dense=True))
    wanted = parameters(build_model(small("lm"), dense=True))
    assert all(torch.equal(parameter, wanted[name]) for name, parameter in twin.items())


def test_a_checkpoint_that_fits_passes_the_check_on_meta(tmp_path: Path) -> None:
    check_checkpoint(make_model(small("lm")), saved(tmp_path))


def cut_to(length: int) -> Damage:
    return lambda path: path.write_bytes(path.read_bytes()[:length])


def end_cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def half_cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 64)


def absurd_header(path: Path) -> None:
    path.write_bytes((2**62).to_bytes(8, "little") + path.read_bytes()[8:])


DAMAGES = [cut_to(0), cut_to(4), cut_to(8), cut_to(60), half_cut_off, end_cut_off, garbage, absurd_header]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_with_a_remedy(tmp_path: Path, damage: Damage) -> None:
    path = saved(tmp_path)
    damage(path)
    for call in (lambda: check_checkpoint(make_model(small("lm")), path), lambda: built_from(path)):
        assert refusal(call).startswith(f"checkpoint {path}: truncated, or not a safetensors file")


def built_from(path: Path) -> Model:
    return build_model(small("lm", checkpoint=str(path)))


class Bomb:
    """Unpickling it would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    path, trace = tmp_path / "weights.safetensors", tmp_path / "executed"
    path.write_bytes(pickle.dumps(Bomb(trace)))
    refusal(lambda: built_from(path))
    torch.save({"bomb": Bomb(trace)}, path)
    refusal(lambda: built_from(path))
    assert not trace.exists()


def test_a_missing_file_is_named_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "absent.safetensors"
    for call in (lambda: check_checkpoint(make_model(small("lm")), path), lambda: built_from(path)):
        assert refusal(call) == f"checkpoint {path}: no such file"


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    assert str(tmp_path) in refusal(lambda: built_from(tmp_path))


@pytest.mark.parametrize(
    ("shape", "what"),
    [
        ({"ffn_dim": 32}, "layers.0.ffn.w1.weight is (24, 16), the recipe's model has (32, 16)"),
        ({"experts": 8}, "layers.1.ffn.router.weight is (4, 16), the recipe's model has (8, 16)"),
        ({"decoder_layers": 5}, "layers.4.attention_norm.weight is absent, the recipe's model has (16,)"),
        ({"decoder_layers": 2}, "layers.2.attention.k.bias is (16,), the recipe's model has none"),
        ({"moe_every": 1}, "layers.0.ffn.router.weight is absent, the recipe's model has (4, 16)"),
    ],
)
def test_the_first_tensor_that_does_not_fit_is_named(tmp_path: Path, shape: dict[str, int], what: str) -> None:
    path = saved(tmp_path)
    assert refusal(lambda: check_checkpoint(make_model(small("lm", **shape)), path)) == f"checkpoint {path}: {what}"


@pytest.mark.parametrize("shape", [{"ffn_dim": 32}, {"experts": 8}, {"decoder_layers": 5}, {"moe_every": 1}])
def test_a_model_is_never_built_from_a_checkpoint_that_does_not_fit(tmp_path: Path, shape: dict[str, int]) -> None:
    path = saved(tmp_path)
    assert "the recipe's model has" in refusal(lambda: build_model(small("lm", checkpoint=str(path), **shape)))


@pytest.mark.parametrize(
    ("dtype", "name"), [(torch.int64, "I64"), (torch.int8, "I8"), (torch.bool, "BOOL"), (torch.complex64, "C64")]
)
def test_weights_that_are_not_real_numbers_are_refused(tmp_path: Path, dtype: torch.dtype, name: str) -> None:
    path = saved(tmp_path)
    tensors = load_file(path)
    save_file(tensors | {"norm.weight": tensors["norm.weight"].to(dtype)}, path)
    for call in (lambda: check_checkpoint(make_model(small("lm")), path), lambda: built_from(path)):
        assert refusal(call) == f"checkpoint {path}: norm.weight is of type {name}; weights are F64, F32, F16, BF16"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_weights_of_every_other_precision_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    path = saved(tmp_path)
    tensors = {name: weights.to(dtype) for name, weights in load_file(path).items()}
    save_file(tensors, path)
    for name, weights in parameters(built_from(path)).items():
        assert torch.equal(weights, tensors[name].to(weights.dtype))


def test_a_tensor_that_could_be_stretched_to_the_shape_does_not_fit(tmp_path: Path) -> None:
    """One bias for all experts is not the same as one for each."""
    path = saved(tmp_path)
    tensors = load_file(path)
    tensors["layers.1.ffn.experts.b1"] = torch.ones(1, 24)
    save_file(tensors, path)
    assert "layers.1.ffn.experts.b1 is (1, 24)" in refusal(lambda: built_from(path))


def test_nothing_is_filled_before_everything_is_known_to_fit(tmp_path: Path) -> None:
    path = saved(tmp_path)
    tensors = load_file(path)
    del tensors["norm.weight"]
    save_file(tensors, path)
    model = build_model(small("lm"))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    refusal(lambda: load_checkpoint(model, path))
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_weights_are_known_by_the_hash_of_their_file(tmp_path: Path) -> None:
    path = saved(tmp_path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert file_hash(path) == digest
    assert weights_hash(small("lm", checkpoint=str(path))) == digest


def test_random_weights_are_known_by_what_they_follow_from() -> None:
    hashes = [weights_hash(small(*options, **shape)) for options, shape in RANDOM]
    assert len(set(hashes)) == len(RANDOM)
    assert weights_hash(small("lm")) == hashes[0]


RANDOM: list[tuple[tuple[str, ...], dict[str, int]]] = [
    (("lm",), {}),
    (("mt",), {}),
    (("lm",), {"seed": 1}),
    (("lm",), {"ffn_dim": 8}),
]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lm-small", "cd33bd5250c217da9b25cf8af4cb9ed313ae8b71ca4517eebb9fc432211ce38b"),
        ("mt-small", "f1a591fc7c1fb27a8c7d68cb93af8f6fbc853df0fcd625326d235949da30611e"),
        ("lm-15b", "62a7bddcd29e82b98afc96e23c91be22ac08891be5644ec327d336ecaa70444d"),
    ],
)
def test_recipes_without_the_later_keys_keep_the_hash_that_they_had_before_those_keys(name: str, expected: str) -> None:
    assert weights_hash(load_recipe(name)) == expected
    family = "encoder-decoder" if name == "mt-small" else "decoder-only"
    defaults = ['model.ffn="mlp"', "model.ffn_bias=true", f'model.family="{family}"', "model.scale_embedding=true"]
    assert weights_hash(load_recipe(name, [*defaults, "model.first_position=0"])) == expected
    changes = ('model.ffn="gated"', "model.ffn_bias=false", "model.scale_embedding=false", "model.decoder_moe_every=3")
    others = {weights_hash(load_recipe(name, [key])) for key in changes}
    assert len(others | {expected}) == 5
