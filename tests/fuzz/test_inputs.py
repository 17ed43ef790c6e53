"""Damaged input of every kind ends in a result or in two clear lines, soon, with a documented exit code, and writes nowhere else."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.cli import group
from moeprof.models.build import build_model
from moeprof.records.recipe.files import load_recipe
from tests.conftest import MICRO
from tests.models.checkpoints import save_checkpoint

from .check import assert_survives, examples, new_folder
from .mutations import NAMES, NUMBERS, SMALL_NUMBERS, damaged, with_other_words

RECIPE = MICRO["lm"].encode()
ROUTE = b"""# n_expert=4 n_expert_used=2
# layer=0 expert_bytes=1000
# layer=1 expert_bytes=1000
phase,step,layer,slot,expert
""" + b"".join(
    b"%d,%d,%d,%d,%d\n" % (step > 0, step, layer, slot, (step * 3 + layer + 2 * slot) % 4)
    for step in range(6)
    for layer in range(2)
    for slot in range(2)
)
COUNTS = json.dumps(
    {"top_k": 2, "layers": [0, 1], "counts": {"a": [[6, 2, 3, 1], [3, 3, 3, 3]], "b": [[1, 5, 4, 2], [6, 0, 6, 0]]}}
).encode()
TEXT = ("The experts of a layer are few; those that a token uses are fewer. Ähnlich ist es hier.\n" * 12).encode()
FLAGS = ["--slots", "--devices", "--experts", "--budget", "--overlap", "--bandwidth", "--phase", "--policy", "--replicas"]
COMMANDS = [
    ("replay", "--cache"),
    ("replay", "--balance", "--devices", "2"),
    ("report",),
    ("report", "--recompute"),
    ("placement show",),
    ("placement check", "--recipe", "lm-tiny"),
    ("baseline show",),
    ("recipes show",),
    ("recipes validate",),
    ("compare --strict", "lm-tiny"),
]
TO_OUT = ("--quiet", "--force", "--out")


@pytest.fixture(scope="module", autouse=True)
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe, its run, replays, one with a placement, and a baseline of the run.

    Commands of the tests then find everything imported and compiled, and take no longer than their input makes them.
    """
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "micro.toml").write_bytes(RECIPE)
    save_checkpoint(build_model(load_recipe(str(folder / "micro.toml"))), folder / "micro.safetensors")
    assert group.run(["characterize", str(folder / "micro.toml"), *TO_OUT, str(folder / "run")]) == 0
    placing = [
        "--balance",
        "--balancer",
        "greedy",
        "--devices",
        "2",
        "--phase",
        "decode",
        "--save-placement",
        str(folder / "placement.json"),
    ]
    assert group.run(["replay", str(folder / "run"), *placing, *TO_OUT, str(folder / "replay")]) == 0
    for access in ("sequential", "batch"):
        caching = ["--cache", "--access", access, *TO_OUT, str(folder / f"caches-{access}")]
        assert group.run(["replay", str(folder / "run"), *caching]) == 0
    assert group.run(["baseline", "save", str(folder / "base.json"), str(folder / "run")]) == 0
    return folder


@settings(**examples(40))
@given(content=damaged(RECIPE))
def test_a_damaged_recipe(content: bytes) -> None:
    with new_folder() as folder:
        (folder / "recipe.toml").write_bytes(content)
        shown = assert_survives(folder, "recipes", "show", folder / "recipe.toml")
        assert assert_survives(folder, "recipes", "validate", folder / "recipe.toml") == shown


@settings(**examples(8))
@given(content=with_other_words(RECIPE, SMALL_NUMBERS))
def test_a_recipe_with_other_small_numbers_runs(content: bytes) -> None:
    with new_folder() as folder:
        (folder / "recipe.toml").write_bytes(content)
        assert_survives(folder, "characterize", folder / "recipe.toml", *TO_OUT, folder / "out")


@settings(**examples(40))
@given(
    key=st.sampled_from(
        ["model.experts", "load.phases", "data.files", "name", "gating.top_k", "x.y", "", "measure", "load.decode_steps"]
    ),
    value=st.sampled_from([*NUMBERS, *NAMES]) | st.text(max_size=12),
)
def test_any_value_of_set(key: str, value: str) -> None:
    with new_folder() as folder:
        (folder / "recipe.toml").write_bytes(RECIPE)
        assert_survives(folder, "recipes", "show", folder / "recipe.toml", "--set", f"{key}={value}")


@settings(**examples(40))
@given(
    content=damaged(ROUTE), flags=st.sampled_from([["--cache"], ["--balance", "--devices", "2"], ["--cache", "--slots", "2"]])
)
def test_a_damaged_route_csv(content: bytes, flags: list[str]) -> None:
    with new_folder() as folder:
        (folder / "trace.route.csv").write_bytes(content)
        assert_survives(folder, "replay", folder / "trace.route.csv", *flags, *TO_OUT, folder / "out")


@settings(**examples(30))
@given(content=damaged(COUNTS))
def test_a_damaged_count_table(content: bytes) -> None:
    with new_folder() as folder:
        (folder / "counts.json").write_bytes(content)
        assert_survives(folder, "replay", folder / "counts.json", "--balance", "--devices", "2", *TO_OUT, folder / "out")


@settings(**examples(20))
@given(flag=st.sampled_from(FLAGS), value=st.sampled_from([*NUMBERS, *NAMES]))
def test_any_value_of_an_option(flag: str, value: str) -> None:
    with new_folder() as folder:
        (folder / "trace.route.csv").write_bytes(ROUTE)
        assert_survives(folder, "replay", folder / "trace.route.csv", "--cache", flag, value, *TO_OUT, folder / "out")


@settings(**examples(20))
@given(data=st.data())
def test_a_damaged_run(recorded: Path, data: st.DataObject) -> None:
    with new_folder() as folder:
        run = folder / "out"
        shutil.copytree(recorded / "run", run)
        files = sorted(path for path in run.rglob("*") if path.is_file())
        path = data.draw(st.sampled_from(files), label="file")
        path.write_bytes(data.draw(damaged(path.read_bytes()), label="content"))
        if data.draw(st.booleans(), label="removed"):
            path.unlink()
        command = data.draw(
            st.sampled_from([["report"], ["report", "--recompute"], ["replay", "--cache"], ["compare", recorded / "run"]])
        )
        out = [*TO_OUT, folder / "out" / "replay"] if command[0] == "replay" else []
        assert_survives(folder, *command, run, *out)


@settings(**examples(30))
@given(data=st.data())
def test_a_damaged_placement(recorded: Path, data: st.DataObject) -> None:
    with new_folder() as folder:
        content = data.draw(damaged((recorded / "placement.json").read_bytes()), label="content")
        (folder / "placement.json").write_bytes(content)
        assert_survives(folder, "placement", "show", folder / "placement.json")
        assert_survives(folder, "placement", "diff", folder / "placement.json", recorded / "placement.json")
        assert_survives(folder, "placement", "check", folder / "placement.json", "--recipe", recorded / "micro.toml")


@settings(**examples(20))
@given(data=st.data())
def test_a_damaged_baseline(recorded: Path, data: st.DataObject) -> None:
    with new_folder() as folder:
        content = data.draw(damaged((recorded / "base.json").read_bytes()), label="content")
        (folder / "base.json").write_bytes(content)
        assert_survives(folder, "baseline", "show", folder / "base.json")
        assert_survives(folder, "compare", folder / "base.json", recorded / "run")


@settings(**examples(6))
@given(content=damaged(TEXT), name=st.sampled_from([*NAMES, "mine"]))
def test_damaged_text(content: bytes, name: str) -> None:
    with new_folder() as folder:
        (folder / "recipe.toml").write_bytes(RECIPE)
        (folder / "text.txt").write_bytes(content)
        text = ["--data", f"{name}={folder / 'text.txt'}"]
        assert_survives(folder, "characterize", folder / "recipe.toml", *text, *TO_OUT, folder / "out")


@settings(**examples(6))
@given(data=st.data())
def test_a_damaged_checkpoint(recorded: Path, data: st.DataObject) -> None:
    with new_folder() as folder:
        (folder / "recipe.toml").write_bytes(RECIPE)
        content = data.draw(damaged((recorded / "micro.safetensors").read_bytes()), label="content")
        (folder / "micro.safetensors").write_bytes(content)
        weights = ["--set", f"model.checkpoint={folder / 'micro.safetensors'}"]
        assert_survives(folder, "characterize", folder / "recipe.toml", *weights, *TO_OUT, folder / "out")


@settings(**examples(20))
@given(data=st.data())
def test_a_file_of_another_kind(recorded: Path, data: st.DataObject) -> None:
    with new_folder() as folder:
        shutil.copytree(recorded, folder / "out")
        (folder / "out" / "trace.route.csv").write_bytes(ROUTE)
        (folder / "out" / "counts.json").write_bytes(COUNTS)
        path = data.draw(st.sampled_from(sorted((folder / "out").rglob("*"))), label="path")
        command, *options = data.draw(st.sampled_from(COMMANDS), label="command")
        out = [*TO_OUT, folder / "out" / "new"] if "replay" in command else []
        assert_survives(folder, *command.split(), path, *options, *out)
