"""Checkpoint folders in NLLB-MoE's layout, one or several safetensors files with a tensor per expert, as weights of our encoder-decoder.

transformers routes this model wrongly: all tokens go to expert 1, and to expert 0 with the weight of their second choice.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moeprof.models.fit import check_fits
from moeprof.models.shard import Held
from moeprof.records.errors import UsageError
from moeprof.records.name import name_from
from moeprof.records.recipe.nllb import NllbConfig, check_supported, document_of
from moeprof.records.system.inputs import reported
from moeprof.store.checkpoint_folder import CONFIG, CheckpointFolder, read_folder
from moeprof.store.tensor_files import Stored, TensorFiles

MODEL_TYPE = "nllb-moe"

STACKS = {"encoder": "model.encoder.layers", "decoder": "model.decoder.layers"}
PARTS = {
    "embedding": "model.shared",
    "encoder_norm": "model.encoder.layer_norm",
    "norm": "model.decoder.layer_norm",
    "attention": "self_attn",
    "attention_norm": "self_attn_layer_norm",
    "cross_norm": "cross_attention_layer_norm",
    "ffn_norm": "ff_layer_norm",
    "router": "router.classifier",
    "w1": "fc1",
    "w2": "fc2",
    **{name: f"{name}_proj" for name in ("q", "k", "v", "out")},
    **STACKS,
}
"""Parts of the names of our parameters, and what they are called in the files; other parts are the same."""

EXPERT_PARTS = {"w1": "fc1.weight", "b1": "fc1.bias", "w2": "fc2.weight", "b2": "fc2.bias"}

EMBEDDING = "model.shared.weight"
TIED = {"lm_head.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"}
"""Other names of the one embedding, which some programs write beside its own or in place of it."""

UNUSED = {f"model.{stack}.embed_positions.weights" for stack in STACKS}
"""Tables of positions, which older versions of transformers wrote."""

DTYPES = {torch.float64: "float32", torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
"""The recipe's dtype for weights of each type."""


@dataclass(frozen=True)
class Named:
    """A tensor of the files, which is a parameter or one expert's part of it."""

    name: str
    shape: tuple[int, ...]
    index: int | None = None
    """The part's index in the first dimension; None for the whole parameter."""

    def view(self, parameter: Tensor) -> Tensor:
        """What it holds of our parameter, in its own shape: matrices of experts have outputs first, ours have inputs first."""
        return parameter if self.index is None else parameter[self.index].t() if len(self.shape) == 2 else parameter[self.index]


def named(name: str, shape: tuple[int, ...], first: int = 0) -> list[Named]:
    """The tensors behind a parameter of this shape; of stacked experts those behind the part that begins at expert `first`."""
    *parts, last = (PARTS.get(part, part) for part in name.split("."))
    if parts[-1] != "experts":
        return [Named(".".join([*parts, last]), shape)]
    tensor = EXPERT_PARTS[name.rpartition(".")[2]]
    return [Named(".".join([*parts, f"expert_{first + index}", tensor]), shape[:0:-1], index) for index in range(shape[0])]


class NllbFolder:
    """The weights of an opened folder, read expert by expert."""

    def __init__(self, folder: CheckpointFolder, files: TensorFiles) -> None:
        self.path, self.files = folder.path, files
        self.stored = {name: stored for name, stored in folder.tensors.items() if name not in UNUSED}
        for name in TIED & self.stored.keys():
            self.stored.setdefault(EMBEDDING, self.stored.pop(name))

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator["NllbFolder"]:
        """Opens a folder for reading; UsageError if it is none, or a file is missing or damaged."""
        files = TensorFiles()
        try:
            yield cls(nllb_folder(path), files)
        finally:
            files.close()

    def check(self, parts: Collection[Held]) -> None:
        """UsageError also if the tensors have several types, but for routers, which are always float32."""
        wanted = {each.name: each.shape for part in parts for each in named(part.name, part.whole)}
        check_fits(wanted, {name: stored.shape for name, stored in self.stored.items()}, self.path)
        dtype_of(self.stored, self.path)

    def read(self, name: str, first: int, into: Tensor) -> None:
        """Fills `into`; each tensor of the files goes to its place in it, without a copy."""
        for each in named(name, tuple(into.shape), first):
            self.files.read(self.stored[each.name], each.view(into))


def is_nllb(path: Path) -> bool:
    """Whether a path is a folder of NLLB-MoE, which moeprof runs itself."""
    return (path / CONFIG).is_file() and read_folder(path, str(path)).model_type == MODEL_TYPE


def nllb_folder(path: Path) -> CheckpointFolder:
    """The folder; UsageError if it is incomplete or of another architecture."""
    folder = read_folder(path, str(path))
    if folder.model_type != MODEL_TYPE:
        raise UsageError(
            f"checkpoint {path}: {CONFIG} has model_type {folder.model_type!r}, not {MODEL_TYPE!r}",
            "A checkpoint is a safetensors file of moeprof, or a folder of NLLB-MoE.",
        )
    return folder


def recipe_of(path: Path) -> dict[str, Any]:
    """The document of a recipe that runs the model in a folder with its weights; UsageError if that is not supported."""
    folder = nllb_folder(path)
    where = f"{path / CONFIG}"
    with reported(where, "Correct that key; transformers describes it under NllbMoeConfig."):
        config = NllbConfig.model_validate(folder.config, strict=True)
    check_supported(config, where)
    document = document_of(config)
    document["name"] = name_from(path.name, "nllb-moe")
    document["model"] |= {"dtype": DTYPES[dtype_of(folder.tensors, path)], "checkpoint": str(path.resolve())}
    return document


def dtype_of(stored: dict[str, Stored], path: Path) -> torch.dtype:
    """The type of all tensors but routers, which may be of another one; UsageError if they are mixed or no real numbers."""
    for name, each in stored.items():
        if each.dtype not in DTYPES:
            raise UsageError(
                f"checkpoint {path}: {name} is of type {short(each)}; weights are of type {', '.join(DTYPES.values())}",
                "Save the weights in one of these types; quantized weights must be dequantized first.",
            )
    alike = [each for name, each in stored.items() if ".router." not in name and name not in UNUSED]
    for each in alike:
        if each.dtype != alike[0].dtype:
            raise UsageError(
                f"checkpoint {path}: {alike[0].name} is of type {short(alike[0])}, but {each.name} of type {short(each)}",
                "Save all weights in one type: model.to(dtype).save_pretrained(folder)",
            )
    return alike[0].dtype if alike else torch.float32


def short(stored: Stored) -> str:
    """The type of a tensor as torch names it."""
    return str(stored.dtype).removeprefix("torch.")
