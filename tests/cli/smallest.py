"""Every command that takes longer than a moment, on the smallest settings."""

from collections.abc import Callable
from pathlib import Path

from conftest import MICRO

from moeprof.cli import group
from tests.studies.train.lessons import SETS as LESSONS

SETS = ("load.phases=['score']", "load.batches=1", "data.domains=['prose']", "measure.warmup=0", "measure.rounds=5")
BRIEF = ("train.steps=2", "train.batch_size=2", "train.warmup_steps=1", "train.evaluate_every=2", "train.heldout_sequences=2")
SMALL, TRAINING = ([word for key in keys for word in ("--set", key)] for keys in (SETS, (*BRIEF, *LESSONS["lm"])))

COMMANDS: dict[str, Callable[[Path, Path], list[object]]] = {
    "characterize": lambda given, out: ["characterize", given / "lm.toml", *SMALL, "--out", out / "run"],
    "optimize": lambda given, out: ["optimize", given / "lm.toml", *SMALL, "--no-sweep", "--out", out / "run"],
    "replay": lambda given, out: ["replay", given / "run", "--cache", "--out", out / "run"],
    "compare": lambda given, out: [
        *("compare", "--run-both", given / "lm.toml", *SMALL, "--variant", "dynamic"),
        *("--processes", 3, "--out", out / "sides"),
    ],
    "baseline": lambda given, out: ["baseline", "save", out / "baseline.json", given / "run"],
    "train": lambda given, out: ["train", given / "lm.toml", *TRAINING, "--out", out / "model.safetensors"],
}
"""Each with the folder of its input and that of its output."""


def prepare(given: Path) -> Path:
    """Writes the recipe and the run that the commands read."""
    (given / "lm.toml").write_text(MICRO["lm"])
    assert group.run([str(word) for word in COMMANDS["characterize"](given, given)]) == 0
    return given
