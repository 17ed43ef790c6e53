"""Strategies that damage valid files as people, editors and disks do."""

import gzip
import re
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import torch
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

VALUES = [None, True, -1, 0, 7, 2**31, 2**63 - 1, 0.5, float("nan"), "", "x" * 300, [], [1, 2], [[]], {}]
"""Values of a document."""

TENSORS = [
    torch.empty(0),
    torch.tensor(5),
    torch.tensor([[-1, 0], [2**40, 3]]),
    torch.tensor([[[float("nan"), 0.5]]]),
    torch.ones(3, 6, dtype=torch.bool),
    torch.ones(2, 4, dtype=torch.complex64),
    torch.ones(3, 4, dtype=torch.bfloat16),
    torch.ones(1, dtype=torch.int8).expand(10**6, 10**6),
    torch.ones(2, 4).to_sparse(),
    torch.ones(2, 4, device="meta"),
]
"""Tensors of every kind, one of which claims to be far larger than its file."""

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


@st.composite
def with_other_values(draw: st.DrawFn, document: Any, values: Sequence[Any], count: int = 2) -> Any:
    """A document of nested dicts and lists with up to `count` of its values replaced or removed."""
    found = document
    for _ in range(draw(st.integers(1, count))):
        found = replaced(draw, found, values)
    return found


def replaced(draw: st.DrawFn, node: Any, values: Sequence[Any]) -> Any:
    """The node with one value in it replaced or removed, or another value in its place."""
    if isinstance(node, torch.Tensor) and node.numel() and draw(st.booleans()):
        return with_other_number(node, draw(st.integers(0, node.numel() - 1)), draw(st.sampled_from([-1, 0, 9, 2**31 - 1])))
    if not (isinstance(node, (dict, list)) and node and draw(st.integers(0, 5))):
        return draw(st.sampled_from(values))
    changed, key = copy(node), draw(st.sampled_from(list(node) if isinstance(node, dict) else range(len(node))))
    if draw(st.integers(0, 4)):
        changed[key] = replaced(draw, node[key], values)
    else:
        del changed[key]
    return changed


def with_other_number(tensor: torch.Tensor, place: int, number: int) -> torch.Tensor:
    """The tensor with another number at a place; the same if its kind cannot hold the number."""
    try:
        changed = tensor.clone().contiguous()
        changed.view(-1)[place] = number
    except (RuntimeError, NotImplementedError):
        return tensor
    return changed


def damaged(original: bytes) -> st.SearchStrategy[bytes]:
    """Any damage to a file, which may be compressed afterwards."""
    changed = st.one_of(
        with_other_words(original), with_other_bytes(original), with_other_lines(original), st.binary(max_size=64)
    )
    return changed | changed.map(gzip.compress) | st.just(b"")
