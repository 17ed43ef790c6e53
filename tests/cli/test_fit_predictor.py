"""`moeprof fit-predictor` as its user types it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from moeprof.predictors.predictor import ExpertPredictor
from moeprof.records.predictor import Advantage, FitReport, HitRate
from moeprof.records.recipe.files import load_recipe
from moeprof.reporters.documents.predictor import document_of, verdict
from moeprof.reporters.formats.markdown import render_document

Call = Callable[..., tuple[int, str, str]]
Micro = Callable[[str], Path]
BRIEF = ("--tokens", 150, "--epochs", 1, "--width", 4)


def test_the_screen_shows_recall_beside_other_methods_and_json_has_all_numbers(
    moeprof: Call, micro: Micro, tmp_path: Path
) -> None:
    recipe, out = micro("lm"), tmp_path / "p.safetensors"
    code, stdout, stderr = moeprof("fit-predictor", recipe, "--out", out, *BRIEF)
    assert (code, stderr) == (0, "")
    assert "SiDA's predictor for lm-micro" in stdout
    assert "| layer | predicted |" in stdout
    for method in ("token table", "token before", "frequency", "shuffled labels", "precision"):
        assert method in stdout
    assert len(stdout.splitlines()) <= 18
    code, stdout, _ = moeprof("fit-predictor", recipe, "--out", out, *BRIEF, "--force", "--json", "--seed", 3)
    found = json.loads(stdout)
    assert (code, found["recipe"], found["epochs"]) == (0, "lm-micro", 1)
    assert {rate["method"] for rate in found["rates"]} == {"sida", "token", "previous", "frequency", "shuffled"}
    header = ExpertPredictor.open(out, load_recipe(str(recipe), [])).header
    assert (header.settings.seed, header.settings.tokens, header.width) == (3, 150, 4)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--out", "p.bin"], ["--out p.bin: the name does not end with .safetensors", "p.safetensors"]),
        (["--out", "absent/p.safetensors"], ["the folder absent does not exist", "Create it"]),
        (["--out", "there.safetensors"], ["the file already exists", "--force"]),
        (["--out", "p.safetensors", "--learning-rate", "0"], ["--learning-rate 0.0: must be greater than 0", "default"]),
        (["--out", "p.safetensors", "--learning-rate", "nan"], ["--learning-rate nan", "default"]),
        (["--out", "p.safetensors", "--cpu-minutes", "-1"], ["--cpu-minutes -1.0: must be greater than 0", "default"]),
        (["--out", "p.safetensors", "--width", "1000000"], ["--width 1000000: must be less than or equal to 65536", "default"]),
        (["--out", "p.safetensors", "--set", "routing.source=uniform"], ["no token decides", "routing.source=model"]),
        (["--out", "p.safetensors", "--data", "own=short.txt"], ["data own: too few tokens", "Give more text"]),
    ],
)
def test_bad_input_is_refused_in_two_lines_and_writes_nothing(
    moeprof: Call, micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: list[str]
) -> None:
    recipe = micro("lm")
    monkeypatch.chdir(tmp_path)
    Path("there.safetensors").write_text("mine")
    Path("short.txt").write_text("abc")
    code, stdout, stderr = moeprof("fit-predictor", recipe, *arguments)
    assert (code, stdout) == (2, "")
    first, second = stderr.splitlines()
    assert expected[0] in first
    assert expected[1] in second
    assert Path("there.safetensors").read_text() == "mine"
    assert not Path("p.safetensors").exists()


def report(layers: int, done: int = 8) -> FitReport:
    names = [("decoder", str(number)) for number in range(layers)] + [("", "")]
    rates = [
        HitRate(stack, layer, method, 2, share, share)
        for stack, layer in names
        for method, share in (("sida", 0.75), ("token", 0.5), ("previous", 0.25), ("frequency", 0.125), ("shuffled", 0.1))
    ]
    return FitReport("p.safetensors", "lm-tiny", 2, 40, 10_000, 10, 2500, 300_000, done, 8, 12.0, rates, [])


def test_the_table_has_a_line_per_layer_if_there_are_few_and_one_of_all_layers() -> None:
    def lines(layers: int) -> list[str]:
        return [line for line in render_document(document_of(report(layers))).splitlines() if line.startswith("|")]

    assert len(lines(4)) == 2 + 4 + 1
    (all_layers,) = lines(48)[2:]
    cells = [cell.strip() for cell in all_layers.strip("|").split("|")]
    assert cells == ["all", "2", "75.0%", "50.0%", "25.0%", "12.5%", "10.0%", "75.0%"]


def test_a_training_that_the_limit_on_cpu_time_ended_says_so() -> None:
    whole, ended = (render_document(document_of(report(1, done))) for done in (8, 3))
    assert "in 8 epochs and 12 s of CPU time" in whole
    assert "in 3 of 8 epochs, after which --cpu-minutes ended the training, and 12 s of CPU time" in ended


@pytest.mark.parametrize(
    ("low", "high", "word"), [(0.01, 0.1, "better"), (-0.01, 0.1, "no better"), (-0.2, -0.1, "worse"), (0.0, 0.1, "no better")]
)
def test_the_verdict_is_that_of_the_interval(low: float, high: float, word: str) -> None:
    text = verdict(Advantage("frequency", (low + high) / 2, low, high))
    assert f"It predicts {word} than the frequency baseline on this model" in text
    assert f"95% interval over documents {low * 100:+.1f} to {high * 100:+.1f}" in text
