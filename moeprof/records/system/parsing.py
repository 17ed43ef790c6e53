"""Documents in JSON and TOML: where text becomes objects, within bounds, and where an error says what is wrong with the text."""

import gc
import json
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any

import jiter

MAX_OBJECTS, MAX_KEYS = 2**20, 2**22
"""The most objects of one JSON document, and keys of all its objects: a document of a million choices has as many objects."""

MAX_LISTS = 2**22
"""The most `[` of one JSON document, counted before it is parsed; a document of so many lists takes seconds."""

FAULTS = {
    "Expecting value": "a value is missing",
    "Expecting ',' delimiter": "a comma or a closing bracket is missing",
    "Expecting ':' delimiter": "a colon is missing",
    "Expecting property name": "a key in double quotes is missing",
    "Illegal trailing comma": "a comma is before a closing bracket",
    "Extra data": "there is more text behind its end",
    "Invalid control character": "a string has a line end or another control character in it",
    "Invalid \\": "a string has an escape that JSON does not have",
}
"""How messages of the parser begin, and what they mean."""

UNFINISHED = re.compile(r"|[.eE]?[+-]?|tr?u?|fa?l?s?|nu?l?|Na?|-?I[nfinity]*|\\?u[0-9a-fA-F]{0,4}")
"""What is behind the place of an error if the text was cut there: nothing, or the beginning of a number, a word or an escape."""


RECORD_AGAIN = "Copy or record the file again: a part of it is missing."
"""The remedy for a text that was cut."""


class JsonError(ValueError):
    """A text that is not JSON; the remedy is about the text, whatever it should hold."""

    def __init__(self, what: str, remedy: str) -> None:
        self.remedy = remedy
        super().__init__(what)


def parsed_json(text: str | bytes, line: int = 1) -> Any:
    """The document in JSON; ValueError if it is nested too deeply, exceeds MAX_OBJECTS, MAX_KEYS or MAX_LISTS, or a key occurs
    twice, which would hide a value. JsonError with line and column if it is not JSON; the text begins at line `line`.
    """
    content = text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
    if content.count(b"[") > MAX_LISTS:
        raise ValueError(f"more than {MAX_LISTS:,} lists")
    with nested():
        if content.count(b"{") <= MAX_OBJECTS and content.count(b":") <= MAX_KEYS:
            with suppress(ValueError):  # json, which takes three times as long, says what is wrong and where
                return jiter.from_json(content, cache_mode="keys", catch_duplicate_keys=True)
        return checked_json(text, line)


def checked_json(text: str | bytes, line: int) -> Any:
    """As `parsed_json`, object by object, for a text that is wrong or has braces or colons in its strings."""
    objects, keys = count(1), 0

    def counted(pairs: list[tuple[str, object]]) -> dict[str, object]:
        nonlocal keys
        keys += len(pairs)
        if next(objects) > MAX_OBJECTS:
            raise ValueError(f"more than {MAX_OBJECTS:,} objects")
        if keys > MAX_KEYS:
            raise ValueError(f"more than {MAX_KEYS:,} keys")
        return unique(pairs)

    try:
        return json.loads(text, object_pairs_hook=counted)
    except json.JSONDecodeError as error:
        raise json_error(error, line) from error
    except ValueError as error:
        if str(error).startswith("Exceeds the limit"):
            raise ValueError(f"a number has more than {sys.get_int_max_str_digits():,} digits") from error
        raise


def parsed_line(text: str, number: int) -> Any:
    """The document in one line of JSON lines; errors as in `parsed_json`, with the number of the line."""
    try:
        return parsed_json(text, number)
    except JsonError:
        raise
    except ValueError as error:
        raise ValueError(f"line {number}: {error}") from error


def json_error(error: json.JSONDecodeError, line: int) -> JsonError:
    """What is wrong with a text that begins at a line: it is empty, was cut, or is broken somewhere."""
    lines = error.doc.rstrip().split("\n")
    if lines == [""]:
        return JsonError(f"an empty text at line {line}, not JSON", RECORD_AGAIN)
    if error.msg.startswith("Unterminated string") or UNFINISHED.fullmatch(error.doc[error.pos :].rstrip()):
        end = f"line {len(lines) + line - 1}, column {len(lines[-1])}"
        return JsonError(f"truncated JSON: it ends at {end}, inside a value", RECORD_AGAIN)
    meant = next((meant for begin, meant in FAULTS.items() if error.msg.startswith(begin)), error.msg)
    where = f"line {error.lineno + line - 1}, column {error.colno}"
    return JsonError(f"broken JSON at {where}: {meant}", "Correct the file at this place, or record it again.")


def parsed_toml(text: str) -> dict[str, Any]:
    """The document in TOML; ValueError if it is not TOML, or is nested too deeply."""
    with nested():
        return tomllib.loads(text)


@contextmanager
def nested() -> Iterator[None]:
    """Turns the end of a recursion into a ValueError, and collects no garbage meanwhile.

    The finalizers of other objects would run at the same depth, fail there, and leave their files and processes behind.
    """
    with uncollected():
        try:
            yield
        except RecursionError as error:
            raise ValueError("nested too deeply") from error


@contextmanager
def uncollected() -> Iterator[None]:
    """Collects no garbage meanwhile: looking for cycles in documents of millions of lists, which have none, takes seconds."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object; ValueError if a key occurs twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        times = Counter(key for key, _ in pairs)
        raise ValueError(f"{next(key for key in times if times[key] > 1)!r} occurs twice")
    return found
