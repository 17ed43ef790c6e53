"""One line of progress: the pass among all passes, the stage within it, and the time that is left; nothing into a pipe."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from moeprof.cli.progress import Bar, minutes
from moeprof.records.recipe.files import load_recipe
from moeprof.studies.characterize import characterization
from moeprof.studies.progress import Silent


class Counting(Silent):
    """Counts passes."""

    planned = done = 0

    def plan(self, passes: int) -> None:
        self.planned = passes

    def passed(self) -> None:
        self.done += 1


def test_every_pass_of_the_plan_is_counted(micro: Callable[[str], Path], tmp_path: Path) -> None:
    progress = Counting()
    overrides = ["load.batches=1", 'data.domains=["prose"]']
    characterization().run(load_recipe(str(micro("lm")), overrides), tmp_path / "run", progress=progress)
    assert progress.planned == progress.done > 10


def test_the_line_says_which_pass_runs_and_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    screen = io.StringIO()
    with Bar(
        "lm-tiny 1 of 2", quiet=False, console=Console(file=screen, force_terminal=True, color_system=None, width=80)
    ) as bar:
        bar.plan(4)
        bar.stage("score: routing", 3)
        assert "lm-tiny 1 of 2  pass 1 of 4  score: routing" in screen.getvalue()
        assert "0/3 0:00" in screen.getvalue()
        now = 130.0
        bar.advance()
        bar.passed()
        bar.stage("score: time", 7)
        assert "pass 2 of 4  score: time" in screen.getvalue()
        assert "0/7 0:30, 1:30 left" in screen.getvalue()


def test_nothing_is_written_into_a_pipe() -> None:
    pipe = io.StringIO()
    with Bar("lm-tiny", quiet=False, console=Console(file=pipe)) as bar:
        bar.plan(2)
        bar.stage("score: routing", 3)
        bar.advance()
        bar.passed()
    assert pipe.getvalue() == ""


def test_times_are_minutes_and_seconds() -> None:
    assert [minutes(seconds) for seconds in (0.4, 59.6, 4500)] == ["0:00", "1:00", "75:00"]
