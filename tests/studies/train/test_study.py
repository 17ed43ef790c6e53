"""Trained twice, or in two sittings, a model has the same weights; what cannot go on says why."""

import errno
import os
import signal
from pathlib import Path

import pytest
import torch

from moeprof.models.build import build_model
from moeprof.records.errors import MoeprofError, UsageError
from moeprof.records.system.files import PARTIAL
from moeprof.records.system.signals import ENDINGS, Ended
from moeprof.studies.train.checkpoint import read_origin
from moeprof.studies.train.state import state_path
from moeprof.studies.train.study import train

from .lessons import Micro, Quiet, brief, weights

WORKLOADS = pytest.mark.parametrize("workload", ["lm", "mt"])


@pytest.mark.slow
@WORKLOADS
def test_the_same_training_gives_the_same_file_byte_for_byte(micro: Micro, tmp_path: Path, workload: str) -> None:
    files = [tmp_path / f"{name}.safetensors" for name in ("one", "other")]
    for file in files:
        train(brief(micro, workload), file, Quiet())
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.slow
@WORKLOADS
@pytest.mark.parametrize("stop_after", [1, 3, 4])
def test_an_interrupted_training_goes_on_to_the_same_weights(
    micro: Micro, tmp_path: Path, workload: str, stop_after: int
) -> None:
    recipe, whole, parts = brief(micro, workload), tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    train(recipe, whole, Quiet())
    with pytest.raises(KeyboardInterrupt):
        train(recipe, parts, Quiet(stop_after))
    assert not parts.exists()
    train(recipe, parts, Quiet())
    assert parts.read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_another_seed_gives_other_weights(micro: Micro, tmp_path: Path) -> None:
    recipe, other = brief(micro, "lm"), brief(micro, "lm", "train.seed=1")
    for number, one in enumerate((recipe, other)):
        train(one, tmp_path / f"{number}.safetensors", Quiet())
    found = [weights(recipe, tmp_path / f"{number}.safetensors")["embedding.weight"] for number in (0, 1)]
    assert not torch.equal(*found)


@pytest.mark.slow
@WORKLOADS
def test_training_lowers_the_held_out_loss_and_moves_every_matrix(micro: Micro, tmp_path: Path, workload: str) -> None:
    recipe, out = brief(micro, workload, "train.steps=30", "train.evaluate_every=10"), tmp_path / "model.safetensors"
    course = train(recipe, out, listener := Quiet())
    assert [point.step for point in course.curve] == [10, 20, 30]
    first, last = course.curve[0].heldout, course.curve[-1].heldout
    assert all(last[domain] < first[domain] for domain in first)
    assert len(listener.lines) == 3
    untrained = dict(build_model(recipe).named_parameters())
    moved = {name: not torch.equal(value, untrained[name]) for name, value in weights(recipe, out).items()}
    assert all(moved.values())


def test_the_checkpoint_keeps_where_it_comes_from(micro: Micro, tmp_path: Path) -> None:
    recipe, out = brief(micro, "lm"), tmp_path / "model.safetensors"
    course = train(recipe, out, Quiet())
    origin = read_origin(out)
    assert origin is not None
    assert origin.tokens == course.tokens == 6 * 4 * 23
    assert set(origin.text_hashes) == {"prose", "code", "records"}
    assert origin.recipe["train"]["steps"] == 6
    assert not origin.twin


def test_the_twin_is_dense_and_k_times_as_wide(micro: Micro, tmp_path: Path) -> None:
    recipe, out = brief(micro, "lm"), tmp_path / "model-twin.safetensors"
    train(recipe, out, Quiet(), twin=True)
    shapes = {name: tuple(value.shape) for name, value in weights(recipe, out, twin=True).items()}
    assert [shapes[f"layers.{layer}.ffn.w1.weight"] for layer in (0, 1)] == [(48, 16), (48, 16)]


def test_a_state_of_another_recipe_is_refused(micro: Micro, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(brief(micro, "lm"), out, Quiet(stop_after=2))
    with pytest.raises(UsageError, match="another recipe"):
        train(brief(micro, "lm", "train.learning_rate=0.02"), out, Quiet())
    with pytest.raises(UsageError, match="another recipe"):
        train(brief(micro, "lm"), out, Quiet(), twin=True)


def test_a_damaged_state_is_refused(micro: Micro, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    state_path(out).write_bytes(b"no safetensors")
    with pytest.raises(UsageError, match="damaged"):
        train(brief(micro, "lm"), out, Quiet())


def test_a_full_disk_is_told_and_leaves_no_half_file(micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "model.safetensors"

    write = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name != out.name + PARTIAL:
            return write(path, content)
        write(path, content[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(MoeprofError, match="no space left on device"):
        train(brief(micro, "lm"), out, Quiet())
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".toml"] == ["model.safetensors.state"]


def test_the_budget_is_cpu_time_over_all_sittings(micro: Micro, tmp_path: Path) -> None:
    recipe, out = brief(micro, "lm", "train.cpu_minutes=0.5"), tmp_path / "model.safetensors"
    seconds = iter(range(0, 1000, 7))
    with pytest.raises(KeyboardInterrupt):
        train(recipe, out, Quiet(stop_after=2), timer=lambda: next(seconds))
    with pytest.raises(MoeprofError, match=r"0\.5 are used up after 5 of 6 steps"):
        train(recipe, out, Quiet(), timer=lambda: next(seconds))


@pytest.mark.parametrize("workload", ["lm", "mt"])
def test_a_corpus_that_is_too_small_is_refused(micro: Micro, tmp_path: Path, workload: str) -> None:
    with pytest.raises(UsageError, match="too small"):
        train(brief(micro, workload, "train.corpus_size=3"), tmp_path / "model.safetensors", Quiet())


def test_a_hashed_vocabulary_and_a_model_too_large_are_refused(micro: Micro, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    with pytest.raises(UsageError, match="hashed"):
        train(brief(micro, "lm", "model.tokenizer=hashed"), out, Quiet())
    with pytest.raises(MoeprofError, match="training needs more than"):
        train(brief(micro, "lm", "model.experts=10000", "model.dim=8192", "model.ffn_dim=32768"), out, Quiet())


class Signalled(Quiet):
    """A listener that sends a signal to this process in every update, which a handler raises."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def advance(self) -> None:
        super().advance()
        signal.raise_signal(self.number)
        self.lines.append("the update ended")


@pytest.mark.parametrize("number", ENDINGS)
def test_a_signal_ends_training_after_the_update_in_which_it_comes(
    micro: Micro, tmp_path: Path, signals: None, number: int
) -> None:
    out, listener = tmp_path / "model.safetensors", Signalled(number)
    with pytest.raises(Ended, match="interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"):
        train(brief(micro, "lm"), out, listener)
    assert listener.lines == ["the update ended"]
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".toml"] == [state_path(out).name]
