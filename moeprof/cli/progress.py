"""Progress on stderr: a line on a terminal, nothing elsewhere; it is drawn only between pieces of work."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TaskID, TextColumn


class Bar:
    """The progress of a command: its pass among all passes, the stage within it, and the time that is left.

    It has no drawing thread, so that it cannot disturb timed rounds.
    """

    def __init__(self, title: str, *, quiet: bool, console: Console | None = None) -> None:
        console = console or Console(stderr=True)
        columns = (
            TextColumn("{task.description}", markup=False),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}", markup=False),
        )
        self.progress = Progress(
            *columns, console=console, auto_refresh=False, transient=True, disable=quiet or not console.is_terminal
        )
        self.title = title
        self.task: TaskID | None = None
        self.passes = self.done = 0
        self.begun = time.monotonic()

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()

    def plan(self, passes: int) -> None:
        """So many passes follow; their time is counted from here."""
        self.passes, self.done, self.begun = passes, 0, time.monotonic()

    def passed(self) -> None:
        """Counts one pass as done."""
        self.done += 1

    def stage(self, title: str, total: int) -> None:
        """Replaces the current stage by a new one."""
        if self.task is not None:
            self.progress.remove_task(self.task)
        number = f"pass {min(self.done + 1, self.passes)} of {self.passes}  " if self.passes else ""
        self.task = self.progress.add_task(f"{self.title}  {number}{title}", total=total or None, left=self.left())
        self.progress.refresh()

    def advance(self) -> None:
        """Counts one piece of work as done."""
        if self.task is not None:
            self.progress.update(self.task, advance=1, left=self.left())
            self.progress.refresh()

    def left(self) -> str:
        """`0:30, 1:30 left`, if the passes that follow take as long as those before; without a pass done, the time until now."""
        seconds = time.monotonic() - self.begun
        rest = f", {minutes(seconds / self.done * (self.passes - self.done))} left" if self.done else ""
        return f"{minutes(seconds)}{rest}"


def minutes(seconds: float) -> str:
    """Seconds as `0:40` or `75:00`."""
    return f"{round(seconds) // 60}:{round(seconds) % 60:02}"
