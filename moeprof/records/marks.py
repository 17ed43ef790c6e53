"""Marks around numbers in a text: while a page is made, the text of a number says where the number comes from.

Sentences are f-strings, which keep nothing of a number but its text. A mark is part of that text, and survives until the page is written:
START, the origin as JSON, VALUE, the number with all digits, TEXT, what a reader sees, END. The four characters are noncharacters of
Unicode, which no text has that programs exchange.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps

START, VALUE, TEXT, END = "\ufdd0", "\ufdd1", "\ufdd2", "\ufdd3"
MARK = re.compile(f"{START}([^{START}-{END}]*){VALUE}([^{START}-{END}]*){TEXT}([^{START}-{END}]*){END}")
ASKED: ContextVar[bool] = ContextVar("marked_numbers", default=False)


@dataclass(frozen=True)
class MarkedText:
    """The text of a number with its origin as JSON and its value."""

    text: str
    origin: str
    value: str


class MarkedNumber(float):
    """A number that has an origin, which its text is marked with."""

    def origin_json(self) -> str:
        """The origin as JSON."""
        raise NotImplementedError

    def __format__(self, form: str) -> str:
        return number_text(float(self).__format__(form), self)


def number_text(text: str, number: float) -> str:
    """The text of a number, marked if the context asks for it and the number has an origin."""
    if not (ASKED.get() and isinstance(number, MarkedNumber)):
        return text
    return f"{START}{number.origin_json()}{VALUE}{float(number)!r}{TEXT}{text}{END}"


def keeps_origin(write: Callable[[float], str]) -> Callable[[float], str]:
    """A writer of numbers whose text is marked as that of the number."""

    @wraps(write)
    def written(value: float) -> str:
        return number_text(write(float(value)), value) if isinstance(value, MarkedNumber) else write(value)

    return written


@contextmanager
def marked_numbers() -> Iterator[None]:
    """Numbers with an origin that are formatted in this context are marked."""
    before = ASKED.set(True)
    try:
        yield
    finally:
        ASKED.reset(before)


def pieces(text: str) -> Iterator[str | MarkedText]:
    """A text in pieces: the numbers that are marked, and what is between them."""
    last = 0
    for found in MARK.finditer(text):
        if found.start() > last:
            yield unmarked(text[last : found.start()])
        origin, value, shown = found.groups()
        yield MarkedText(shown, origin, value)
        last = found.end()
    if last < len(text):
        yield unmarked(text[last:])


def unmarked(text: str) -> str:
    """A text without its marks."""
    return re.sub(f"[{START}-{END}]", "", MARK.sub(r"\3", text)) if re.search(f"[{START}-{END}]", text) else text
