"""Strategies that damage valid files as people, editors and disks do."""

import gzip
import re
from collections.abc import Callable

from hypothesis import strategies as st

NUMBERS = [
    "-1",
    "0",
    "0.5",
    "1e308",
    "1e-320",
    "nan",
    "inf",
    "-0",
    "2147483648",
    "1" + "0" * 30,
    "9" * 5000,
    "0x10",
    "1_000",
    "true",
]
NAMES = [
    "",
    " ",
    "../../x",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "=cmd|' /C calc'!A0",
    "\x1b[31mred",
    "a\nb",
    "::warning::x",
    "\u202eabc",
    "x" * 300,
    "history",
]
MARKS = ['"', "'", ",", "[", "]", "{", "}", "[[]]", "null", "[" * 3000, "#", "\n", "\r\n", "\ufeff", "\x00", "=", "\udcff"]
TOKENS = [token.encode("utf-8", "surrogateescape") for token in [*NUMBERS, *NAMES, *MARKS]]
SMALL_NUMBERS = [b"-1", b"0", b"1", b"2", b"3", b"7", b"0.5", b"nan", b"true", b'"x"', b"[]", b"[1, 2]", b"{}"]
"""Values that make no run long."""

Draw = Callable[[st.SearchStrategy[bytes]], bytes]


@st.composite
def with_other_words(draw: st.DrawFn, original: bytes, tokens: list[bytes] = TOKENS, count: int = 2) -> bytes:
    """The file with up to `count` of its words or numbers replaced."""
    found = original
    for _ in range(draw(st.integers(1, count))):
        words = list(re.finditer(rb"[\w.+-]+", found)) or list(re.finditer(rb"^", found))
        word = words[draw(st.integers(0, len(words) - 1))]
        found = found[: word.start()] + draw(st.sampled_from(tokens)) + found[word.end() :]
    return found


@st.composite
def with_other_bytes(draw: st.DrawFn, original: bytes) -> bytes:
    """The file with a part replaced, removed, or cut off."""
    first = draw(st.integers(0, len(original)))
    length = draw(st.sampled_from([0, 1, 7, 100, len(original)]))
    between = draw(st.sampled_from(TOKENS) | st.binary(max_size=20))
    return original[:first] + between + original[first + length :]


@st.composite
def with_other_lines(draw: st.DrawFn, original: bytes) -> bytes:
    """The file with a line moved, repeated or removed, or with other ends of lines."""
    lines = original.splitlines(keepends=True)
    line = lines.pop(draw(st.integers(0, len(lines) - 1)))
    for _ in range(draw(st.integers(0, 3))):
        lines.insert(draw(st.integers(0, len(lines))), line)
    return draw(st.sampled_from([b"\n", b"\r\n", b"\r"])).join(b"".join(lines).split(b"\n"))


def damaged(original: bytes) -> st.SearchStrategy[bytes]:
    """Any damage to a file, which may be compressed afterwards."""
    changed = st.one_of(
        with_other_words(original), with_other_bytes(original), with_other_lines(original), st.binary(max_size=64)
    )
    return changed | changed.map(gzip.compress) | st.just(b"")
