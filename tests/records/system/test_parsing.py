"""Documents are parsed within bounds, and what is wrong with one is said in our words, with its place."""

import gc
import json
import sys
from collections.abc import Callable, Iterator

import pytest

from moeprof.records.system import parsing
from moeprof.records.system.parsing import JsonError, parsed_json, parsed_line, parsed_toml

DOCUMENT = '{"text": "\\u00e4 \\" }",\n "list": [1, -2.5e-3, true, false, null],\n "empty": {}}'


def whole_without(text: str) -> Iterator[str]:
    """Every beginning of a text that is not empty."""
    return (text[:length] for length in range(1, len(text)))


@pytest.mark.parametrize("document", [DOCUMENT, json.dumps(["a", [], {"b": 10.5}]), '"text"'])
def test_json_that_was_cut_anywhere_is_said_to_be_truncated_and_where_it_ends(document: str) -> None:
    for text in whole_without(document):
        with pytest.raises(JsonError) as caught:
            parsed_json(text)
        last = text.rstrip().split("\n")
        assert str(caught.value) == f"truncated JSON: it ends at line {len(last)}, column {len(last[-1])}, inside a value"
        assert caught.value.remedy == "Copy or record the file again: a part of it is missing."


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a", "broken JSON at line 1, column 1: a value is missing"),
        ("[1,\n ,2]", "broken JSON at line 2, column 2: a value is missing"),
        ("[1 2]", "broken JSON at line 1, column 4: a comma or a closing bracket is missing"),
        ('{"a" 1}', "broken JSON at line 1, column 6: a colon is missing"),
        ("{1: 2}", "broken JSON at line 1, column 2: a key in double quotes is missing"),
        ("[1]\n[2]", "broken JSON at line 2, column 1: there is more text behind its end"),
        ('["a\nb"]', "broken JSON at line 1, column 4: a string has a line end or another control character in it"),
        ('["\\q"]', "broken JSON at line 1, column 3: a string has an escape that JSON does not have"),
        ('["\\u12"]', "broken JSON at line 1, column 4: a string has an escape that JSON does not have"),
        (" \n", "an empty text at line 1, not JSON"),
    ],
)
def test_broken_json_is_described_with_line_and_column(text: str, what: str) -> None:
    with pytest.raises(JsonError) as caught:
        parsed_json(text)
    assert str(caught.value) == what


def test_a_line_of_json_lines_is_named_by_its_number() -> None:
    assert parsed_line('{"a": 1}', 7) == {"a": 1}
    for text, what in (
        ('{"a": 1', "truncated JSON: it ends at line 7, column 7, inside a value"),
        ('{"a": 1]', "broken JSON at line 7, column 8: a comma or a closing bracket is missing"),
        ('{"a": 1, "a": 2}', "line 7: 'a' occurs twice"),
        ('{"a": ' + "9" * 5000 + "}", "line 7: a number has more than 4,300 digits"),
    ):
        with pytest.raises(ValueError, match="line 7") as caught:
            parsed_line(text, 7)
        assert str(caught.value) == what


def test_a_key_that_occurs_twice_is_found_among_many() -> None:
    keys = ",".join(f'"{number}":0' for number in [*range(100_000), 99_999])
    with pytest.raises(ValueError, match="'99999' occurs twice"):
        parsed_json("{" + keys + "}")


def test_a_document_of_too_many_objects_is_refused_at_the_first_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "MAX_OBJECTS", 3)
    assert parsed_json('[{}, {"a": {}}]') == [{}, {"a": {}}]
    with pytest.raises(ValueError, match="more than 3 objects"):
        parsed_json("[{}, {}, {}, {}, what follows is not read")


def test_a_document_of_too_many_keys_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing, "MAX_KEYS", 2)
    assert parsed_json('{"a": {"b": "colons in a string: :::"}}') == {"a": {"b": "colons in a string: :::"}}
    with pytest.raises(ValueError, match="more than 2 keys"):
        parsed_json('{"a": {"b": 1}, "c": 2}')


@pytest.mark.parametrize("document", ["[[], [[]]]", b"[[], [[]]]"])
def test_a_document_of_too_many_lists_is_refused_before_it_is_parsed(
    document: str | bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parsing, "MAX_LISTS", 4)
    assert parsed_json(document) == [[], [[]]]
    with pytest.raises(ValueError, match="more than 4 lists"):
        parsed_json("[" * 5 + "what follows is not read")


class Cycle:
    """Garbage that only the collector finds; its finalizer needs half of the depth of calls that Python allows."""

    unfinished = 0

    def __init__(self) -> None:
        self.itself = self
        Cycle.unfinished += 1

    def __del__(self) -> None:
        self.finish(sys.getrecursionlimit() // 2)

    def finish(self, calls: int) -> None:
        if calls:
            self.finish(calls - 1)
        else:
            Cycle.unfinished -= 1


@pytest.fixture
def garbage() -> Iterator[None]:
    """Garbage is collected as soon as some hundreds of objects more exist."""
    thresholds = gc.get_threshold()
    gc.collect()
    gc.set_threshold(500 + 800)
    for _ in range(500):
        Cycle()
    yield
    gc.set_threshold(*thresholds)
    gc.collect()


@pytest.mark.usefixtures("garbage")
@pytest.mark.parametrize(
    ("parsed", "start", "opening"),
    [(parsed_json, "", "["), (parsed_json, "", '{"a":'), (parsed_toml, "a = ", "["), (parsed_toml, "a = ", "{a = ")],
)
def test_no_finalizer_runs_in_the_depth_of_a_document(parsed: Callable[[str], object], start: str, opening: str) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        parsed(start + opening * 100_000)
    assert gc.isenabled()
    gc.collect()
    assert Cycle.unfinished == 0


@pytest.mark.parametrize("text", ["[" * 20, "a"])
def test_the_collector_stays_as_it_was_behind_a_document(text: str) -> None:
    gc.disable()
    try:
        with pytest.raises(ValueError, match="truncated" if text.startswith("[") else "broken"):
            parsed_json(text)
        assert not gc.isenabled()
    finally:
        gc.enable()
