"""`moeprof train` as its user types it."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from moeprof.studies.train.state import state_path
from tests.studies.train.huggingface_lessons import small_recipe
from tests.studies.train.lessons import BRIEF, SETS
from tests.workloads.documentation.releases import PAGES, known_guide

Call = Callable[..., tuple[int, str, str]]
Micro = Callable[[str], Path]


def sets(workload: str, *more: str) -> list[str]:
    """The options of a brief training."""
    return [part for override in (*BRIEF, *SETS[workload], *more) for part in ("--set", override)]


@pytest.mark.slow
@pytest.mark.parametrize("workload", ["lm", "mt"])
def test_train_writes_a_checkpoint_that_characterize_runs_and_a_card(
    moeprof: Call, micro: Micro, tmp_path: Path, workload: str
) -> None:
    out = tmp_path / "model.safetensors"
    code, stdout, stderr = moeprof("train", micro(workload), *sets(workload), "--out", out)
    assert (code, stderr) == (0, "")
    assert stdout == out.with_suffix(".md").read_text()
    assert out.exists()
    assert not state_path(out).exists()
    checkpoint = ("--set", f"model.checkpoint={out}")
    assert moeprof("characterize", micro(workload), *checkpoint, "--out", tmp_path / "run")[0] == 0


def test_json_is_the_card(moeprof: Call, micro: Micro, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    code, stdout, _ = moeprof("train", micro("lm"), *sets("lm"), "--out", out, "--json")
    assert code == 0
    card = json.loads(stdout)
    assert card["file_bytes"] == out.stat().st_size
    assert [point["step"] for point in card["origin"]["curve"]] == [2, 4, 6]


def test_the_card_can_be_written_again_and_then_compares_with_the_twin(moeprof: Call, micro: Micro, tmp_path: Path) -> None:
    out, twin = tmp_path / "model.safetensors", tmp_path / "model-twin.safetensors"
    assert moeprof("train", micro("lm"), *sets("lm"), "--out", out)[0] == 0
    assert moeprof("train", micro("lm"), *sets("lm"), "--out", twin, "--twin")[0] == 0
    assert not twin.with_suffix(".md").exists()
    code, stdout, _ = moeprof("train", micro("lm"), *sets("lm"), "--out", out, "--card-only")
    assert code == 0
    assert "dense twin" in stdout


def test_documentation_is_read_from_a_given_file_and_is_on_the_card(
    moeprof: Call, micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = known_guide(tmp_path, monkeypatch, PAGES)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nothing"))
    command = ("train", micro("lm"), *sets("lm", 'train.documentation="guide==1.0"'), "--out", tmp_path / "model.safetensors")
    code, _, stderr = moeprof(*command)
    assert code == 1
    assert stderr.startswith("Error: documentation of guide==1.0: cannot be downloaded: ")
    assert "--documentation PATH" in stderr.splitlines()[1]
    code, stdout, _ = moeprof(*command, "--documentation", path)
    assert code == 0
    assert f"of guide==1.0, whose source distribution has SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}" in stdout
    assert "| documentation |" in stdout
    assert moeprof(*command, "--card-only")[0] == 0  # from the cache


def test_a_file_of_documentation_needs_a_recipe_that_names_it(moeprof: Call, micro: Micro, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    code, _, stderr = moeprof("train", micro("lm"), "--out", out, "--documentation", tmp_path / "guide-1.0.tar.gz")
    assert code == 2
    assert "names no release" in stderr
    assert not out.exists()


def test_an_existing_checkpoint_is_kept_unless_forced(moeprof: Call, micro: Micro, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    out.write_bytes(b"mine")
    code, _, stderr = moeprof("train", micro("lm"), *sets("lm"), "--out", out)
    assert code == 2
    assert stderr.splitlines() == [
        f"Error: --out {out}: the file already exists",
        "Give another --out, or --force to replace it.",
    ]
    assert out.read_bytes() == b"mine"
    assert moeprof("train", micro("lm"), *sets("lm"), "--out", out, "--force")[0] == 0


def test_a_file_in_the_place_of_the_card_is_kept(moeprof: Call, micro: Micro, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    code, _, stderr = moeprof("train", micro("lm"), *sets("lm"), "--out", tmp_path / "README.safetensors")
    assert code == 2
    assert "README.md: the file already exists" in stderr
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_hugging_face_model_becomes_a_folder_with_its_card(moeprof: Call, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="needs the extra moeprof[hf]")
    recipe, out = small_recipe(tmp_path), tmp_path / "out"
    code, stdout, stderr = moeprof("train", recipe, *sets("lm"), "--out", out)
    assert (code, stderr) == (0, "")
    assert (out / "README.md").read_text() == stdout
    assert not state_path(out).exists()
    code, again, _ = moeprof("train", recipe, *sets("lm"), "--out", out, "--card-only")
    assert (code, again) == (0, "".join(line for line in stdout.splitlines(keepends=True) if "CPU time" not in line))
    code, _, stderr = moeprof("train", recipe, *sets("lm"), "--out", out)
    assert (code, stderr.splitlines()[0]) == (2, f"Error: --out {out}: the file already exists")
    assert moeprof("train", recipe, *sets("lm", "train.seed=1"), "--out", out, "--force")[0] == 0
    mine = tmp_path / "mine"
    mine.mkdir()
    code, _, stderr = moeprof("train", recipe, *sets("lm"), "--out", mine, "--force")
    assert (code, stderr.splitlines()[0]) == (2, f"Error: --out {mine}: not a checkpoint of moeprof train")
    assert mine.is_dir()


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--out", "{}/model.bin"], "does not end with .safetensors"),
        (["--out", "{}/nowhere/model.safetensors"], "nowhere does not exist"),
        (["--out", "{}/model.safetensors", "--set", "train.steps=0"], "train.steps"),
        (["--out", "{}/model.safetensors", "--set", "train.stepz=3"], "Did you mean 'steps'?"),
        (["--out", "{}/model.safetensors", "--set", "train.cpu_minutes=60"], "train.cpu_minutes"),
        (["--out", "{}/model.safetensors", "--set", "model.tokenizer=hashed"], "hashed"),
        (["--out", "{}/model.safetensors", "--set", "train.corpus_size=2"], "too small"),
        (["--out", "{}/model.safetensors", "--card-only"], "no such file"),
        (["--out", "{}/model.safetensors", "--card-only", "--twin"], "a twin has no model card"),
    ],
)
def test_what_cannot_be_done_is_said_in_two_lines(
    moeprof: Call, micro: Micro, tmp_path: Path, arguments: list[str], what: str
) -> None:
    code, stdout, stderr = moeprof("train", micro("lm"), *[argument.format(tmp_path) for argument in arguments])
    assert (code, stdout) == (2, "")
    assert len(stderr.splitlines()) == 2
    assert what in stderr


@pytest.mark.slow
def test_ctrl_c_keeps_the_state_and_the_same_command_goes_on(micro: Micro, moeprof: Call, tmp_path: Path) -> None:
    out, whole = tmp_path / "model.safetensors", tmp_path / "whole.safetensors"
    many = sets("lm", "train.steps=300", "train.evaluate_every=100")
    command = [sys.executable, "-m", "moeprof", "train", str(micro("lm")), *many, "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # as in a terminal, also in the background
    ) as process:
        deadline = time.monotonic() + 120
        while not state_path(out).exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert state_path(out).exists()
    assert f"the state is in {state_path(out)}, and the same command continues from it" in stderr
    assert moeprof("train", micro("lm"), *many, "--out", out)[0] == 0
    assert moeprof("train", micro("lm"), *many, "--out", whole)[0] == 0
    assert out.read_bytes() == whole.read_bytes()
