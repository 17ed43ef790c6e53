"""The two classes of errors for users: the first line says what is wrong and where, the second line gives the remedy."""

from collections.abc import Iterable
from difflib import get_close_matches


class MoeprofError(Exception):
    """A run failed; the command exits with 1."""

    exit_code = 1

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}\n{remedy}")
        self.what = what
        self.remedy = remedy


class UsageError(MoeprofError):
    """The command line, a recipe or an input file is not valid; the command exits with 2."""

    exit_code = 2


def suggestion(word: str, known: Iterable[str]) -> str:
    """`Did you mean 'x'? ` for the most similar known word, or an empty string."""
    nearest = get_close_matches(word, list(known), n=1)
    return f"Did you mean {nearest[0]!r}? " if nearest else ""
