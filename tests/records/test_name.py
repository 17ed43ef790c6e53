"""A name can be a part of a path, a table and a line of a report; other text is refused or replaced."""

import pytest

from moeprof.records.name import checked_name, name_from

VALID = ["lm-tiny", "a", "_a", "8x7b", "a vs b", "ne-en", "x.y+z", "\u0928\u0947", "a" * 64]
INVALID = [
    "",
    " a",
    "..",
    "../../x",
    "a/b",
    "a\\b",
    "a\n::warning::b",
    "\x1b[31m",
    "a\u2028b",
    "=cmd|",
    "-x",
    "\udcff",
    "a" * 65,
]


@pytest.mark.parametrize("text", VALID)
def test_plain_text_is_a_name(text: str) -> None:
    assert checked_name(text) == name_from(text, "trace") == text


@pytest.mark.parametrize("text", INVALID)
def test_paths_controls_formulas_and_long_text_are_not_names(text: str) -> None:
    with pytest.raises(ValueError, match="is not a valid name") as caught:
        checked_name(text)
    assert str(caught.value).isprintable()
    assert checked_name(name_from(text, "trace"))


def test_a_name_from_a_file_keeps_what_can_be_kept() -> None:
    assert name_from("", "trace") == "trace"
    assert name_from("../x\n", "trace") == "_._x_"
    assert name_from("b" * 70, "trace") == "b" * 64
