"""Progress on stderr: a bar on a terminal, nothing elsewhere; it is drawn only between pieces of work."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Bar:
    """The progress bar of a study; it has no drawing thread, so that it cannot disturb timed rounds."""

    def __init__(self, title: str, *, quiet: bool) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(
            *columns, console=console, auto_refresh=False, transient=True, disable=quiet or not console.is_terminal
        )
        self.title = title
        self.task: TaskID | None = None

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.progress.stop()

    def stage(self, title: str, total: int) -> None:
        """Replaces the current bar by a new one."""
        if self.task is not None:
            self.progress.remove_task(self.task)
        self.task = self.progress.add_task(f"{self.title}  {title}", total=total or None)
        self.progress.refresh()

    def advance(self) -> None:
        """Counts one piece of work as done."""
        if self.task is not None:
            self.progress.advance(self.task)
            self.progress.refresh()
