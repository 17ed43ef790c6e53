"""The two kinds of trouble a user meets; both say what and where, then the remedy, with a suggestion for a misspelt word."""

from collections.abc import Iterable
from difflib import get_close_matches


class MoeprofError(Exception):
    """A run failed: two lines for the user, and exit code 1."""

    exit_code = 1

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}\n{remedy}")
        self.what = what
        self.remedy = remedy


class UsageError(MoeprofError):
    """The command, a recipe or a file it names cannot be used as it is: exit code 2."""

    exit_code = 2


def suggestion(word: str, known: Iterable[str]) -> str:
    """`Did you mean 'x'? `, or nothing."""
    nearest = get_close_matches(word, list(known), n=1)
    return f"Did you mean {nearest[0]!r}? " if nearest else ""
