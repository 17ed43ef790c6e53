"""How a study tells where it is; the command decides who listens."""

from typing import Protocol


class Progress(Protocol):
    """Called between pieces of work, never inside a timed round."""

    def stage(self, title: str, total: int) -> None:
        """A new stage of `total` pieces begins; 0 where nobody knows how many."""
        ...

    def advance(self) -> None:
        """One piece is done."""
        ...


class Silent:
    """Nobody listens."""

    def stage(self, title: str, total: int) -> None:
        """Nothing."""

    def advance(self) -> None:
        """Nothing."""
