"""Progress on stderr: a bar on a terminal, silence elsewhere; it draws only between pieces of work."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Bar:
    """A Progress for studies; nothing is drawn by a thread of its own, so that timed rounds are left alone."""

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
        """Starts a new bar in place of the last one."""
        if self.task is not None:
            self.progress.remove_task(self.task)
        self.task = self.progress.add_task(f"{self.title}  {title}", total=total or None)
        self.progress.refresh()

    def advance(self) -> None:
        """One piece further."""
        if self.task is not None:
            self.progress.advance(self.task)
            self.progress.refresh()
