"""A checkpoint folder is read without running or unpickling anything; what cannot be a checkpoint is refused in two lines."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from moeprof.huggingface import folder as folders
from moeprof.huggingface.folder import open_folder
from moeprof.records.errors import UsageError
from moeprof.store.checkpoint_folder import INDEX, WEIGHTS
from tests.huggingface.small_models import saved, small_model


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("mixtral"), small_model("mixtral", num_hidden_layers=1), max_shard_size="60KB")


@pytest.fixture
def folder(source: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    for file in source.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def refusal(folder: Path) -> UsageError:
    with pytest.raises(UsageError) as caught:
        _ = open_folder(str(folder)).tensors
    assert str(folder) in caught.value.what
    assert caught.value.remedy
    return caught.value


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_folder_has_the_tensors_of_all_its_shards(source: Path) -> None:
    opened = open_folder(str(source))
    wanted = {name: tensor for file in source.glob("*.safetensors") for name, tensor in load_file(file).items()}
    assert {name: each.shape for name, each in opened.tensors.items()} == {
        name: tuple(each.shape) for name, each in wanted.items()
    }
    assert len(opened.shards) == len(list(source.glob("*.safetensors"))) > 3
    assert (opened.model_type, opened.typed, opened.has_tokenizer) == ("mixtral", str(source), True)


def test_the_hashes_are_of_the_configuration_the_index_and_the_tokenizer(folder: Path) -> None:
    before = open_folder(str(folder)).hashes()
    assert before["config"] == hashlib.sha256((folder / "config.json").read_bytes()).hexdigest()
    assert before["weights"] == hashlib.sha256((folder / INDEX).read_bytes()).hexdigest()
    change(folder / "tokenizer_config.json", model_max_length=7)
    after = open_folder(str(folder)).hashes()
    assert {name for name in before if before[name] != after[name]} == {"tokenizer"}
    for file in folder.glob("token*"):
        file.unlink()
    opened = open_folder(str(folder))
    assert opened.hashes() == {name: before[name] for name in ("config", "weights")}
    assert not opened.has_tokenizer


def test_a_single_file_is_hashed_by_its_header(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "mixtral"}')
    save_file({"a": torch.ones(3)}, tmp_path / WEIGHTS)
    first = open_folder(str(tmp_path)).hashes()["weights"]
    save_file({"a": torch.zeros(3)}, tmp_path / WEIGHTS)
    assert open_folder(str(tmp_path)).hashes()["weights"] == first
    save_file({"b": torch.zeros(3)}, tmp_path / WEIGHTS)
    assert open_folder(str(tmp_path)).hashes()["weights"] != first


def test_a_single_file_comes_before_an_index_as_in_transformers(folder: Path) -> None:
    save_file({"a": torch.ones(3)}, folder / WEIGHTS)
    opened = open_folder(str(folder))
    assert list(opened.tensors) == ["a"]
    with_index = opened.hashes()["weights"]
    (folder / INDEX).unlink()
    assert open_folder(str(folder)).hashes()["weights"] == with_index


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "the folder has no config.json"),
        ("{", "config.json:"),
        ("[]", "it holds no object"),
        ("{}", "names no model_type"),
    ],
)
def test_a_folder_without_a_usable_configuration_is_refused(folder: Path, content: str | None, message: str) -> None:
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_text(content)
    assert message in refusal(folder).what


def test_weights_in_other_files_are_refused(folder: Path) -> None:
    for file in folder.glob("model*"):
        file.unlink()
    assert f"no {WEIGHTS} and no {INDEX}" in refusal(folder).what
    (folder / "some.gguf").write_bytes(bytes(3072))
    assert "some.gguf has 3 KiB of quantized weights, which transformers could only load as larger" in refusal(folder).what
    (folder / "pytorch_model-00001-of-00002.bin").write_bytes(b"\x80")
    assert "pytorch_model-00001-of-00002.bin is a pickle" in refusal(folder).what


def test_a_shard_that_is_missing_is_named(folder: Path) -> None:
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.unlink()
    assert f"{INDEX} names {shard.name}, which is missing" in refusal(folder).what


def test_a_shard_that_is_shorter_than_its_header_says_is_named(folder: Path) -> None:
    shard = sorted(folder.glob("*.safetensors"))[1]
    size = shard.stat().st_size
    os.truncate(shard, size - 1)
    assert f"{shard.name}: truncated after {size - 1:,} of {size:,} bytes" in refusal(folder).what
    os.truncate(shard, 20)
    assert f"{shard.name}: truncated, or not a safetensors file" in refusal(folder).what


def test_a_tensor_in_two_shards_is_refused(folder: Path) -> None:
    first, second, *_ = sorted(folder.glob("*.safetensors"))
    name, tensor = next(iter(load_file(first).items()))
    save_file({**load_file(second), name: tensor}, second)
    assert f"{name} is in {first.name} and in {second.name}" in refusal(folder).what


def test_a_tensor_that_the_index_names_must_be_in_its_shard(folder: Path) -> None:
    found = json.loads((folder / INDEX).read_text())["weight_map"]
    change(folder / INDEX, weight_map={**found, "ghost": min(found.values())})
    assert f"names ghost, which is not in {min(found.values())}" in refusal(folder).what


@pytest.mark.parametrize("file", ["../model.safetensors", "pytorch_model.bin", 7])
def test_an_index_names_safetensors_files_of_its_folder_only(folder: Path, file: object) -> None:
    change(folder / INDEX, weight_map={"a": file})
    assert "does not name safetensors files of this folder" in refusal(folder).what


@pytest.mark.parametrize(
    ("found", "message"), [("5.17.1", "transformers 5.17.1 is too old: before 5.18"), (None, "not installed")]
)
def test_transformers_that_is_old_or_missing_is_named_with_the_extra(
    source: Path, monkeypatch: pytest.MonkeyPatch, found: str | None, message: str
) -> None:
    def version(package: str) -> str:
        if found is None:
            raise folders.PackageNotFoundError(package)
        return found

    monkeypatch.setattr(folders, "version", version)
    with pytest.raises(UsageError) as caught:
        open_folder(str(source))
    assert message in caught.value.what
    assert "moeprof[hf]" in caught.value.remedy


OFFLINE = """
import sys
from moeprof.huggingface.folder import open_folder
for model in sys.argv[1:]:
    print(open_folder(model).path, flush=True)
"""


def test_an_id_is_found_in_the_cache_without_a_network(source: Path, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--some--mixtral"
    (snapshot := repository / "snapshots" / "0123abc").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abc")
    for file in source.iterdir():
        (snapshot / file.name).symlink_to(file)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-c", OFFLINE, "some/mixtral", "some/other"]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ended.stdout.strip() == str(snapshot)
    assert "model some/other: no such folder, and the id is not in the local cache (HF_HUB_OFFLINE is set)" in ended.stderr
    assert "--model ./folder" in ended.stderr


def test_what_is_neither_a_folder_nor_an_id_is_refused(tmp_path: Path) -> None:
    assert "no such folder, and not an id such as owner/name" in refusal(tmp_path / "none").what
