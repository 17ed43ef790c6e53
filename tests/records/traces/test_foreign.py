"""A file that is no trace is refused with what it is, and with what is accepted under which flag."""

import gzip
import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from moeprof.records.errors import UsageError
from moeprof.records.traces.formats import read_routing, remedy
from moeprof.studies.replay.loads import read_loads
from moeprof.studies.replay.source import read_source

CHOICES = np.arange(6)
ACCEPTED = remedy()
"""The second line of every such error."""


def packed(path: Path) -> None:
    (path.parent / "inner").write_text("text")
    with tarfile.open(path, "w") as archive:
        archive.add(path.parent / "inner")


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "routes.pt": (lambda path: torch.save({"routes": torch.from_numpy(CHOICES)}, path), "a PyTorch file (torch.save)"),
    "routes.npy": (lambda path: np.save(path, CHOICES), "a NumPy array (.npy)"),
    "routes.npz": (lambda path: np.savez(path, routes=CHOICES), "a NumPy archive (.npz)"),
    "routes.pkl": (lambda path: path.write_bytes(pickle.dumps(CHOICES.tolist())), "a Python pickle"),
    "routes.pkl.gz": (lambda path: path.write_bytes(gzip.compress(pickle.dumps(CHOICES.tolist()))), "a Python pickle"),
    "model.safetensors": (lambda path: save_file({"routes": CHOICES}, path), "weights (.safetensors)"),
    "routes.tar": (packed, "a tar archive"),
    "config.json": (lambda path: path.write_text('{"model_type": "mixtral"}'), "the configuration of a model"),
    "placement.json": (
        lambda path: path.write_text('{"num_experts": 2, "layers": {}}'),
        "a placement, which `moeprof placement show` reads",
    ),
    "map.json": (
        lambda path: path.write_text('{"moe_layer_count": 0, "layer_list": []}'),
        "a placement, which `moeprof placement show` reads",
    ),
    "other.json": (lambda path: path.write_text("[1, 2]"), "JSON of unknown content"),
    "object.json": (lambda path: path.write_text('{"a": 1}'), "JSON of unknown content"),
    "other.jsonl": (lambda path: path.write_text('{"a": 1}\n{"a": 2}'), "JSON of unknown content"),
    "recipe.toml": (lambda path: path.write_text("[model]\nexperts = 4\n"), "text that begins with '[model]'"),
    "routes.csv": (lambda path: path.write_text("phase;step\n0;0\n"), "text that begins with 'phase;step'"),
    "empty.csv": (lambda path: path.write_text(""), "an empty file"),
    "noise": (lambda path: path.write_bytes(bytes(range(1, 99))), "binary data of an unknown format"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_kind_is_named(tmp_path: Path, name: str) -> None:
    make, kind = FILES[name]
    make(tmp_path / name)
    for read in (read_source, read_loads, read_routing):
        with pytest.raises(UsageError) as caught:
            read(tmp_path / name)
        assert str(caught.value) == f"trace {tmp_path / name}: {kind}\n{ACCEPTED}"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ('{"a": [1, 2', "truncated JSON: it ends at line 1, column 11, inside a value"),
        ('{"a": "\u00e4', "truncated JSON: it ends at line 1, column 8, inside a value"),
        ('{\n "a": 1,,\n}', "broken JSON at line 2, column 9: a key in double quotes is missing"),
    ],
)
def test_json_of_any_content_that_was_cut_or_is_broken_is_said_to_be(tmp_path: Path, content: str, what: str) -> None:
    (tmp_path / "file").write_text(content)
    for read in (read_source, read_loads, read_routing):
        with pytest.raises(UsageError) as caught:
            read(tmp_path / "file")
        assert caught.value.what == f"trace {tmp_path / 'file'}: {what}"
        assert caught.value.remedy.endswith("a part of it is missing." if "truncated" in what else "or record it again.")


def test_a_folder_of_another_kind_is_named(tmp_path: Path) -> None:
    for name in ("model", "runs/a", "runs/b", "a_run/routing", "photos"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "model" / "config.json").write_text("{}")
    for name in ("runs/a", "runs/b", "a_run"):
        (tmp_path / name / "run.json").write_text("{}")
    kinds = {
        "model": "a model's folder (config.json), not a run directory",
        "runs": "a folder of runs, of which one is needed: a, b",
        "a_run/routing": f"a folder of the run directory {tmp_path}/a_run",
        "photos": "a folder without run.json, so not a run directory",
    }
    for name, kind in kinds.items():
        for read in (read_source, read_loads, read_routing):
            with pytest.raises(UsageError) as caught:
                read(tmp_path / name)
            assert str(caught.value) == f"trace {tmp_path / name}: {kind}\n{ACCEPTED}"


@pytest.mark.parametrize("name", ["counts.json", "counts.JSON", "counts"])
def test_counts_are_sent_to_the_flag_that_reads_them(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("\ufeff" + json.dumps({"top_k": 1, "layers": [0], "counts": {"a": [[3, 1]], "b": [[1, 3]]}}))
    with pytest.raises(UsageError) as caught:
        read_source(path)
    what, remedy = str(caught.value).splitlines()
    assert what == f"trace {path}: a count table (*.json) holds loads, and not the choices of tokens"
    assert remedy.startswith("Replay it with --balance. --cache and forced routing need choices; docs/traces.md lists ")
    assert read_loads(path).trace.num_experts == 2
