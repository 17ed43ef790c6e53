"""A checkpoint of Hugging Face as a folder: its configuration, its files of weights, its tokenizer, and their hashes.

Nothing is run and no weight is read here.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from moeprof.records.errors import UsageError
from moeprof.records.system.inputs import InputFile, reported
from moeprof.records.units import format_bytes
from moeprof.store.tensor_files import AGAIN, Stored, header

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZERS = ("tokenizer.json", "*.model", "vocab.*", "tekken.json")
"""Files of which a tokenizer has at least one."""

TOKENIZER_FILES = (*TOKENIZERS, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
FOLDER = "Give a folder that has config.json and *.safetensors files: --model ./folder"


@dataclass(frozen=True)
class CheckpointFolder:
    """A folder whose config.json has been read and whose files of weights exist."""

    path: Path
    typed: str
    """The model as the user typed it, for messages and for run.json."""
    config: dict[str, Any]
    shards: tuple[Path, ...]

    @property
    def model_type(self) -> str:
        """The architecture, as transformers names it."""
        return str(self.config["model_type"])

    @property
    def has_tokenizer(self) -> bool:
        """Whether text can be turned into token ids."""
        return any(files_like(self.path, TOKENIZERS))

    @cached_property
    def tensors(self) -> dict[str, Stored]:
        """All tensors of all shards by name; UsageError if a shard is damaged, or a tensor is in two or absent."""
        found: dict[str, Stored] = {}
        for shard in self.shards:
            for name, tensor in header(shard).items():
                if name in found:
                    raise self.refused(f"{name} is in {found[name].path.name} and in {shard.name}")
                found[name] = tensor
        for name, file in weight_map(self.path, self.typed).items():
            if name not in found or found[name].path.name != file:
                raise self.refused(f"{INDEX} names {name}, which is not in {file}")
        return found

    def hashes(self) -> dict[str, str]:
        """SHA-256 of the configuration, of the index of weights (the header of a single file), and of the tokenizer if there is one."""
        single = self.shards == (self.path / WEIGHTS,)
        weights = header_bytes(self.shards[0]) if single else (self.path / INDEX).read_bytes()
        hashes = {"config": sha256([(self.path / CONFIG).read_bytes()]), "weights": sha256([weights])}
        if self.has_tokenizer:
            files = sorted(set(files_like(self.path, TOKENIZER_FILES)))
            hashes["tokenizer"] = sha256(part for file in files for part in (file.name.encode(), file.read_bytes()))
        return hashes

    def refused(self, why: str, remedy: str = AGAIN) -> UsageError:
        """The error for this folder, with a remedy."""
        return UsageError(f"model {self.typed}: {why}", remedy)


def read_folder(path: Path, typed: str) -> CheckpointFolder:
    """The checkpoint in a folder, which the user typed like this; UsageError if it is none in safetensors files."""
    return CheckpointFolder(path, typed, read_configuration(path, typed), shards_of(path, typed))


def read_configuration(path: Path, typed: str) -> dict[str, Any]:
    """The configuration in a folder, with its `model_type`; UsageError if there is none."""
    if not (path / CONFIG).is_file():
        raise UsageError(f"model {typed}: the folder has no {CONFIG}", FOLDER)
    config = document(path / CONFIG, typed)
    if not isinstance(config.get("model_type"), str):
        raise UsageError(f"model {typed}: {CONFIG} names no model_type", "Give the folder of a model that transformers saved.")
    return config


def shards_of(folder: Path, model: str) -> tuple[Path, ...]:
    """The files of weights, in the order of their names; UsageError if one is missing or there are none."""
    if (folder / WEIGHTS).is_file():
        return (folder / WEIGHTS,)
    shards = tuple(folder / name for name in sorted(set(weight_map(folder, model).values())))
    if missing := next((shard.name for shard in shards if not shard.is_file()), ""):
        raise UsageError(f"model {model}: {INDEX} names {missing}, which is missing", AGAIN)
    if not shards:
        raise UsageError(
            f"model {model}: {other_weights(folder)}", "Save the weights with save_pretrained, which writes safetensors files."
        )
    return shards


def other_weights(folder: Path) -> str:
    """What a folder has in place of safetensors files."""
    for file in files_like(folder, PICKLES):
        return f"{file.name} is a pickle, which could run any code"
    for file in files_like(folder, ("*.gguf",)):
        size = format_bytes(file.stat().st_size)
        return f"{file.name} has {size} of quantized weights, which transformers could only load as larger, dequantized ones"
    return f"no {WEIGHTS} and no {INDEX}"


def weight_map(folder: Path, model: str) -> dict[str, str]:
    """The file of each tensor that the index names; empty if there is no index, or a single file comes before it."""
    if (folder / WEIGHTS).is_file() or not (folder / INDEX).is_file():
        return {}
    found = document(folder / INDEX, model).get("weight_map")
    if not isinstance(found, dict) or not all(plain(file) for file in found.values()):
        raise UsageError(f"model {model}: weight_map in {INDEX} does not name safetensors files of this folder", AGAIN)
    return found


def plain(file: object) -> bool:
    """Whether an entry of the index is the name of a safetensors file in the folder itself."""
    return isinstance(file, str) and Path(file).name == file and file.endswith(".safetensors")


def document(path: Path, model: str) -> dict[str, Any]:
    """The object in a JSON file; UsageError if there is none."""
    with reported(f"model {model}: {path.name}", AGAIN, made_again=True):
        found = InputFile(path).json()
        if not isinstance(found, dict):
            raise ValueError("it holds no object")
        return found


def files_like(folder: Path, patterns: Iterable[str]) -> Iterator[Path]:
    """Files of the folder whose names match a pattern."""
    return (file for pattern in patterns for file in folder.glob(pattern) if file.is_file())


def header_bytes(path: Path) -> bytes:
    """The bytes of a safetensors file in front of its data."""
    tensors = header(path).values()
    with path.open("rb") as file:
        return file.read(min((tensor.offset for tensor in tensors), default=0))


def sha256(parts: Iterable[bytes]) -> str:
    """The hash of all parts, one after another, in hexadecimal digits."""
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()
