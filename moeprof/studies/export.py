"""Writes the model of a recipe as a folder in NLLB-MoE's layout: config.json, safetensors files and, where possible, a tokenizer."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from moeprof.models.build import make_model
from moeprof.models.checkpoint import Checkpoint, opened
from moeprof.models.nllb import Named, named
from moeprof.models.shard import Held, held
from moeprof.parallel.group import ALONE
from moeprof.records.errors import UsageError
from moeprof.records.recipe.nllb import NllbConfig, config_of
from moeprof.records.recipe.recipe import ParallelSection, Recipe
from moeprof.records.run.folder import alone_in, output_folder, taken
from moeprof.records.system.files import PARTIAL, replacing, write_text
from moeprof.store.checkpoint_folder import CONFIG, INDEX, WEIGHTS
from moeprof.workloads.tokenizer_files import CONFIG as TOKENIZER_CONFIG
from moeprof.workloads.tokenizer_files import tokenizer_file
from moeprof.workloads.tokenizers import ANY_LANGUAGE, BOS, EOS, make_tokenizer

TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
PATTERNS = (CONFIG, INDEX, WEIGHTS, "model-?????-of-?????.safetensors", *TOKENIZER)
"""Files that an export can consist of."""


@dataclass(frozen=True)
class Export:
    """What was written, for the summary and `--json`."""

    folder: str
    files: list[str]
    tensors: int
    weight_bytes: int
    tokenizer: str
    """Why there is no tokenizer; empty if there is one."""


@dataclass(frozen=True)
class LayoutTensor:
    """A tensor of the files, and the parameter that it belongs to."""

    part: Held
    named: Named

    @property
    def num_bytes(self) -> int:
        """Its size in the files."""
        return prod(self.named.shape) * self.part.parameter.element_size()

    def read(self, checkpoint: Checkpoint) -> Tensor:
        """Its values, in the dtype and with the precision that they have in the model."""
        parameter, index = self.part.parameter, self.named.index
        rows = len(parameter) if index is None else 1
        ours = torch.empty(rows, *parameter.shape[1:], dtype=parameter.dtype)
        checkpoint.read(self.part.name, index or 0, ours)
        return (self.named if index is None else replace(self.named, index=0)).view(ours).contiguous()


def export(recipe: Recipe, out: Path, *, shard_bytes: int, force: bool = False) -> Export:
    """Writes the folder `out`; UsageError if the layout has no such model, there are no trained weights, or the folder is taken."""
    recipe = recipe.model_copy(update={"parallel": ParallelSection()})
    config = config_of(recipe, bos_token_id=BOS, eos_token_id=EOS, decoder_start_token_id=ANY_LANGUAGE)
    if not recipe.own_model.checkpoint:
        raise UsageError(
            f"recipe {recipe.name}: it has no checkpoint, so there are no trained weights to export",
            "Train one with `moeprof train`, and give it with --set model.checkpoint=FILE.safetensors.",
        )
    parts = list(held(make_model(recipe), ALONE))
    tensors = [LayoutTensor(part, each) for part in parts for each in named(part.name, part.whole)]
    with opened(Path(recipe.own_model.checkpoint)) as checkpoint:
        checkpoint.check(parts)
        with emptied(out, force=force):
            write_weights(out, shards(tensors, shard_bytes), checkpoint)
            missing = write_tokenizer(out, recipe)
            write_config(out, config, recipe)
            files = sorted(path.name for path in out.iterdir())
    return Export(str(out), files, len(tensors), sum(tensor.num_bytes for tensor in tensors), missing)


@contextmanager
def emptied(out: Path, *, force: bool) -> Iterator[None]:
    """A folder of one's own, in which nothing is left if the block fails; UsageError if it holds anything but, with force, an export."""
    if out.exists() and not out.is_dir():
        raise taken(out)
    with output_folder("", "", out), alone_in(out):
        there = list(out.iterdir())
        if there and not force:
            raise taken(out)
        if foreign := sorted(path.name for path in there if not exported(path)):
            raise UsageError(
                f"output folder {out}: it contains {foreign[0]!r}, which no export writes",
                "Use another --out; --force replaces only exports.",
            )
        remove(there)
        try:
            yield
        except BaseException:
            remove(out.iterdir())
            raise


def exported(path: Path) -> bool:
    """Whether an export can have written this file, perhaps in part."""
    return path.is_file() and any(path.with_name(path.name.removesuffix(PARTIAL)).match(pattern) for pattern in PATTERNS)


def remove(paths: Sequence[Path] | Iterator[Path]) -> None:
    """Removes files, none of which is a folder."""
    for path in paths:
        path.unlink()


def shards(tensors: Sequence[LayoutTensor], shard_bytes: int) -> list[list[LayoutTensor]]:
    """The tensors in their order, in groups of at most so many bytes, but for a tensor that has more."""
    groups: list[list[LayoutTensor]] = [[]]
    free = shard_bytes
    for tensor in tensors:
        if groups[-1] and tensor.num_bytes > free:
            groups.append([])
            free = shard_bytes
        groups[-1].append(tensor)
        free -= tensor.num_bytes
    return groups


def write_weights(out: Path, groups: Sequence[Sequence[LayoutTensor]], checkpoint: Checkpoint) -> None:
    """One file per group, of which one is in memory at a time, and their index if there are several."""
    count, total = len(groups), 0
    places: dict[str, str] = {}
    for number, group in enumerate(groups, start=1):
        name = WEIGHTS if count == 1 else f"model-{number:05}-of-{count:05}.safetensors"
        with replacing(out / name) as partial:
            partial.write_bytes(save({tensor.named.name: tensor.read(checkpoint) for tensor in group}, {"format": "pt"}))
        places |= {tensor.named.name: name for tensor in group}
        total += sum(tensor.num_bytes for tensor in group)
    if count > 1:
        write_json(out / INDEX, {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))})


def write_tokenizer(out: Path, recipe: Recipe) -> str:
    """The files of the tokenizer; why there are none, if it cannot be expressed or the library is not installed."""
    tokenizer = make_tokenizer(recipe.own_model.tokenizer, recipe.own_model.vocab_size, recipe.own_model.checkpoint)
    try:
        file = tokenizer_file(tokenizer)
    except ModuleNotFoundError:
        return "tokenizers is not installed; pip install 'moeprof[hf]'"
    if file is None:
        return f"the tokenizer {recipe.own_model.tokenizer!r} has no vocabulary"
    write_text(out / TOKENIZER[0], file.to_str(pretty=True))
    write_json(out / TOKENIZER[1], TOKENIZER_CONFIG)
    return ""


def write_config(out: Path, config: NllbConfig, recipe: Recipe) -> None:
    """`config.json`, the last file: a folder without it is no model."""
    names = {"architectures": ["NllbMoeForConditionalGeneration"], "is_encoder_decoder": True, "dtype": recipe.own_model.dtype}
    write_json(out / CONFIG, config.model_dump() | names)


def write_json(path: Path, document: dict[str, Any]) -> None:
    """A document with sorted keys."""
    write_text(path, json.dumps(document, indent=2, sort_keys=True) + "\n")
