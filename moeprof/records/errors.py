"""The classes of errors for users: the first line says what is wrong and where, the second line gives the remedy."""

from collections.abc import Iterable
from difflib import get_close_matches

MAX_SHOWN = 2000
"""Characters of a line of an error; input that is quoted in it may be longer."""


class MoeprofError(Exception):
    """A run failed; the command exits with 1."""

    exit_code = 1

    def __init__(self, what: str, remedy: str) -> None:
        self.what, self.remedy = cut(escaped(what)), cut(escaped(remedy))
        super().__init__(f"{self.what}\n{self.remedy}")


class UsageError(MoeprofError):
    """The command line, a recipe or an input file is not valid; the command exits with 2."""

    exit_code = 2


class OptionError(ValueError):
    """An input contradicts what an option states: the remedy is about the option, and not about the input."""

    def __init__(self, what: str, remedy: str) -> None:
        self.remedy = remedy
        super().__init__(what)


def escaped(text: str) -> str:
    """The text on one line, with control characters and line ends as escapes such as `\\n`."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text)


def cut(line: str) -> str:
    """The line without its middle if it is very long."""
    return line if len(line) <= MAX_SHOWN else f"{line[: MAX_SHOWN // 2]} ... {line[-MAX_SHOWN // 2 :]}"


def suggestion(word: str, known: Iterable[str]) -> str:
    """`Did you mean 'x'? ` for the most similar known word, or an empty string."""
    nearest = get_close_matches(word, list(known), n=1)
    return f"Did you mean {nearest[0]!r}? " if nearest else ""
