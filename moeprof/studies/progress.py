"""How a study reports its progress; the command decides how it is shown."""

from typing import Protocol


class Progress(Protocol):
    """Called between pieces of work, never inside a timed round."""

    def plan(self, passes: int) -> None:
        """So many passes follow, each of them of one stage or several."""
        ...

    def passed(self) -> None:
        """One pass of the plan is done."""
        ...

    def stage(self, title: str, total: int) -> None:
        """A new stage of `total` pieces begins; 0 if the number is unknown."""
        ...

    def advance(self) -> None:
        """One piece of the stage is done."""
        ...


class Silent:
    """A progress that is not shown."""

    def plan(self, passes: int) -> None: ...

    def passed(self) -> None: ...

    def stage(self, title: str, total: int) -> None: ...

    def advance(self) -> None: ...
