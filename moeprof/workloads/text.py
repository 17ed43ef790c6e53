"""Reads the user's text: documents for language modelling, sentence pairs for translation; everything read is data."""

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from moeprof.records.errors import UsageError
from moeprof.records.name import RULE, name_from, valid_name
from moeprof.records.system.archives import SUFFIXES, unpacked_name
from moeprof.records.system.inputs import InputFile, filled_lines, lines_of, reported, texts_of, whole_lines
from moeprof.records.system.parsing import parsed_json, parsed_line

JSON_LINES = (".jsonl", ".json")
FIX_LINE = "Fix or remove that line; nothing was read."
REMOVE_EMPTY = "Remove the lines without text."
READABLE = "Give a file that exists and is complete, as text in UTF-8 (iconv -t UTF-8 converts it)."
LM_REMEDY = "Give a .txt or .jsonl file (also .gz and .zst), or a folder of them."
MT_REMEDY = "Give SOURCE,TARGET, two line-aligned files (also .gz and .zst), or one .jsonl file with `translation` objects."
FORMS = {"lm": "[NAME=]PATH", "mt": "[NAME=]SOURCE,TARGET (or [NAME=]FILE.jsonl)"}
EXAMPLES = {"lm": "wikipedia=wiki.txt.gz", "mt": "ne-en=devtest.ne,devtest.en"}

TOKEN_IDS = re.compile(r'\s*{\s*"tokens"\s*:')
"""How a line of JSON Lines with token ids begins."""

MAX_EMPTY = 100_000
"""The most pairs, or documents of a file, in a row without text."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Text:
    """One domain of a language-modelling workload."""

    name: str
    documents: list[str]
    sha256: str
    """SHA-256 of the decompressed bytes of all files in order; if a limit cut the text, of the documents used, each in
    UTF-8 and followed by a NUL."""


@dataclass(frozen=True)
class ParallelText:
    """One language pair of a translation workload."""

    name: str
    pairs: list[tuple[str, str]]
    sha256: str
    """SHA-256 of the pairs used, source and target in turn, each in UTF-8 and followed by a NUL."""


@dataclass(frozen=True)
class TextFile:
    """A file read in blocks; its faults are UsageErrors that name the text and the file."""

    name: str
    file: InputFile
    seen: Callable[[bytes], object] = len
    """Called with every block of decompressed bytes."""

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self.file.path

    @property
    def whose(self) -> str:
        """The beginning of an error: the text and the file."""
        return f"data {self.name}: {self.path}"

    def fault(self, what: str, remedy: str) -> UsageError:
        """A UsageError about this file, not yet raised."""
        return UsageError(f"{self.whose}: {what}", remedy)

    def blocks(self) -> Iterator[bytes]:
        """Blocks of decompressed bytes."""
        for block in self.file.blocks():
            self.seen(block)
            yield block

    def texts(self) -> Iterator[str]:
        """Decoded pieces of text; UsageError if the file cannot be read, or is not text."""
        with reported(self.whose, READABLE):
            yield from texts_of(self.blocks())

    def lines(self) -> Iterator[str]:
        """Lines without their ends; only LF and CR LF end a line, as `wc -l` and the corpora's own tools count."""
        return lines_of(self.texts())

    def is_json_lines(self, key: str) -> bool:
        """Whether every line is a JSON object, by the file's name, or by its first line if it is a pipe without a name."""
        if kind(self.path) in JSON_LINES:
            return True
        if self.path.suffix or os.path.isfile(self.path):  # noqa: PTH113 (Path.is_file raises for a name that is too long)
            return False
        with reported(self.whose, READABLE):
            line = self.file.head_text.partition("\n")[0]
        try:
            first = parsed_json(line)
        except ValueError:
            return False
        return isinstance(first, dict) and key in first

    def objects(self, key: str) -> Iterator[tuple[int, Any]]:
        """The line number and the value under `key` of every line of JSON that is not blank.

        UsageError if one is wrong, or more than MAX_EMPTY in a row hold an empty value.
        """
        empty = 0
        for number, line in filled_lines(self.texts()):
            try:
                item = parsed_line(line, number)
            except ValueError as error:
                remedy = FIX_LINE if kind(self.path) == ".jsonl" else "Give JSON Lines: a JSON object per line."
                raise self.fault(str(error), remedy) from error
            if not isinstance(item, dict) or key not in item:
                raise self.fault(f"line {number}: no field {key!r}", f"Every line is an object with a field {key!r}.")
            empty = 0 if item[key] else empty + 1
            if empty > MAX_EMPTY:
                raise self.fault(f"line {number}: more than {MAX_EMPTY:,} lines in a row hold no {key}", REMOVE_EMPTY)
            yield number, item[key]

    def documents(self, limit: int | None) -> Iterator[str]:
        """One document per line of JSON, or the whole file as one; reading stops after `limit` characters."""
        if self.is_json_lines("text"):
            for number, text in self.objects("text"):
                if not isinstance(text, str):
                    raise self.fault(f"line {number}: field 'text' is not a string", FIX_LINE)
                yield text
            return
        pieces, size = [], 0
        for piece in self.texts():
            pieces.append(piece)
            size += len(piece)
            if limit is not None and size > limit:
                break
        yield "".join(pieces)


def kind(path: Path) -> str:
    """The suffix of a file name, such as `.jsonl`, without that of an archive."""
    return unpacked_name(path).suffix.lower()


def stem(path: Path) -> str:
    """The name of a file without its suffix, and without that of an archive; that of the folder for `.` and `..`."""
    return unpacked_name(Path(os.path.abspath(path))).stem  # noqa: PTH100 (resolve would follow links)


def read_documents(name: str, text: Path | InputFile, max_chars: int | None = None) -> Text:
    """The documents of a file or a folder, in order, up to `max_chars` characters, without blank ones."""
    digest, source = hashlib.sha256(), InputFile.of(text)
    sources = [TextFile(name, file, digest.update) for file in text_files(name, source)]
    documents: list[str] = []
    left, cut = max_chars, False
    for document in chain.from_iterable(file.documents(max_chars) for file in sources):
        cut = left is not None and len(document) > left
        documents.append(document[:left])
        if cut:
            break
        left = None if left is None else left - len(document)
    documents = [document for document in documents if document.strip()]
    if not documents:
        raise TextFile(name, source).fault("holds no text, or only white space", LM_REMEDY)
    return Text(name, documents, hash_of(documents) if cut else digest.hexdigest())


def read_token_ids(name: str, file: InputFile, vocab_size: int) -> list[list[int]] | None:
    """The documents of a JSON Lines file whose lines begin with a field `tokens`; None if the first line does not.

    UsageError if one of them is not a list of ids below `vocab_size`.
    """
    source = TextFile(name, file)
    if os.path.isdir(file.path):  # noqa: PTH112 (Path.is_dir raises for a name that is too long)
        return None
    with reported(source.whose, READABLE):
        if not TOKEN_IDS.match(file.head_text):
            return None
    documents = []
    for number, tokens in source.objects("tokens"):
        if not isinstance(tokens, list) or not all(type(token) is int and 0 <= token < vocab_size for token in tokens):
            raise source.fault(f"line {number}: 'tokens' is not a list of ids from 0 to {vocab_size - 1}", FIX_LINE)
        documents.append(tokens)
    return documents


def hash_of(texts: Iterable[str]) -> str:
    """SHA-256 of texts in UTF-8, each followed by a NUL."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def text_files(name: str, source: InputFile) -> list[InputFile]:
    """The file itself, or the readable text files below a folder by relative path, without links that leave the folder."""
    path = source.path
    if not os.path.isdir(path):  # noqa: PTH112 (Path.is_dir raises for a name that is too long)
        return [source]
    root = path.resolve()
    files = [
        file
        for folder, _, names in os.walk(path)
        for file in (Path(folder, entry) for entry in names)
        if (file.suffix.lower() in SUFFIXES or kind(file) in (".txt", ".jsonl"))
        and file.is_file()
        and os.access(file, os.R_OK)
        and file.resolve().is_relative_to(root)
    ]
    if not files:
        raise TextFile(name, source).fault("the folder holds no .txt, .jsonl, .gz or .zst file that can be read", LM_REMEDY)
    return [InputFile(file) for file in sorted(files, key=lambda file: file.relative_to(path).as_posix())]


def read_pairs(name: str, paths: str | Sequence[str], max_pairs: int | None = None) -> ParallelText:
    """The first `max_pairs` sentence pairs of two line-aligned files, or of one JSONL file with `translation` objects.

    Pairs with an empty side are omitted. Line counts of both files are compared to the end, whatever the limit.
    """
    sources = [TextFile(name, InputFile(Path(path))) for path in ([paths] if isinstance(paths, str) else paths)]
    if len(sources) == 2:
        check_aligned(*sources)
        pairs = list(islice(filled(name, zip(*(source.lines() for source in sources), strict=False)), max_pairs))
    elif len(sources) == 1 and sources[0].is_json_lines("translation"):
        pairs = list(islice(filled(name, translations(sources[0])), max_pairs))
    else:
        raise UsageError(f"data {name}: {', '.join(str(s.path) for s in sources)}: not a pair of languages", MT_REMEDY)
    if not pairs:
        raise sources[0].fault("holds no sentence pair", MT_REMEDY)
    return ParallelText(name, pairs, hash_of(side for pair in pairs for side in pair))


def filled(name: str, sides: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Pairs with text on both sides; logs the first pair with one empty side, which may be a mistake.

    UsageError if more than MAX_EMPTY pairs in a row are left out.
    """
    silent, empty = False, 0
    for number, (source, target) in enumerate(sides, start=1):
        if source.strip() and target.strip():
            empty = 0
            yield source, target
        elif (empty := empty + 1) > MAX_EMPTY:
            raise UsageError(f"data {name}: more than {MAX_EMPTY:,} pairs in a row have an empty side", REMOVE_EMPTY)
        elif not silent and (source.strip() or target.strip()):
            log.warning("data %s: pair %d has one empty side; such pairs are left out", name, number)
            silent = True


def check_aligned(source: TextFile, target: TextFile) -> None:
    """UsageError with both counts of lines if they differ."""
    counts = [
        sum(piece.count("\n") + (not piece.endswith("\n")) for piece in whole_lines(side.texts(), "\n"))
        for side in (source, target)
    ]
    if counts[0] != counts[1]:
        raise UsageError(
            f"data {source.name}: {source.path} has {counts[0]} lines, {target.path} has {counts[1]}",
            "Give two files whose lines are translations of each other, one by one.",
        )


def translations(source: TextFile) -> Iterator[tuple[str, str]]:
    """Pairs of one JSONL file: source and target as in NAME `src-tgt`, else in the order of the first line."""
    order: tuple[str, ...] = ()
    for number, sides in source.objects("translation"):
        if not isinstance(sides, dict) or len(sides) != 2 or not all(isinstance(side, str) for side in sides.values()):
            raise source.fault(f"line {number}: 'translation' does not hold two languages as text", FIX_LINE)
        if not order:
            order = tuple(sides) if "-".join(reversed(sides)) != source.name else tuple(reversed(sides))
        if set(sides) != set(order):
            raise source.fault(f"line {number}: languages {', '.join(sides)} after {', '.join(order)}", FIX_LINE)
        yield sides[order[0]], sides[order[1]]


def parse_data_option(text: str, workload: str, *, plain: bool = False) -> tuple[str, str | list[str]]:
    """The name and the path, or the two paths, of `--data [NAME=]PATH` (lm or `plain`) or `--data [NAME=]SOURCE,TARGET` (mt).

    Without NAME it is the stem of the file, or of the source's file.
    """
    given, equals, path = text.partition("=") if "=" in text else ("", "", text)
    if plain and workload == "mt" and "," in path and not Path(path).exists():
        source = f"{given}{equals}{path.partition(',')[0]}"
        raise UsageError(f"--data {text}: this encoder-decoder reads sources only", f"Give them alone: --data {source}")
    workload = "lm" if plain else workload
    paths = path.split(",") if workload == "mt" else [path]
    if not all(paths) or len(paths) > 2:
        raise UsageError(f"--data {text}: not of the form {FORMS[workload]}", f"Example: --data {EXAMPLES[workload]}")
    name = given if equals else name_from(stem(Path(paths[0])), "text")
    if not valid_name(name):
        raise UsageError(f"--data {text}: {name!r} is not a valid name", RULE)
    return name, paths if len(paths) == 2 else path
