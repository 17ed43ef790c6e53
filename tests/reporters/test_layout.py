"""Tables fit any width: no word is broken, no column is missing, and every row keeps its labels."""

import io
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from moeprof.reporters.documents.document import Table
from moeprof.reporters.formats.terminal import render_document
from moeprof.reporters.layout import lines_of, wrapped

WORDS = st.text("abc/%[]é漢", min_size=1, max_size=14)
CELLS = st.lists(WORDS, max_size=4).map(" ".join)
HEADINGS = st.lists(WORDS, min_size=1, max_size=4).map(" ".join)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Tables of up to twelve columns, with up to three of labels."""
    columns = draw(st.lists(HEADINGS, min_size=1, max_size=12))
    row = st.tuples(*[CELLS] * len(columns))
    return Table(columns, draw(st.lists(row, max_size=4)), labels=draw(st.integers(0, min(3, len(columns)))))


@pytest.mark.parametrize("width", [40, 80, 120, 200])
@settings(max_examples=40)
@given(tables())
def test_every_word_of_every_cell_appears_whole(width: int, table: Table) -> None:
    texts = [line.text for line in lines_of(table, width)]
    found = Counter(word.removesuffix(":") for text in texts for word in text.split())
    wanted = Counter(word for row in [table.columns, *table.rows] for cell in row for word in cell.split())
    assert not wanted - found, "a word is broken or missing"


@settings(max_examples=40)
@given(tables(), st.sampled_from([40, 80, 120, 200]))
def test_no_line_is_longer_than_the_terminal(table: Table, width: int) -> None:
    from rich.cells import cell_len

    assert all(cell_len(line.text) <= width for line in lines_of(table, width))


def test_a_command_in_backticks_is_in_one_piece() -> None:
    command = "`moeprof report 'my run' --full`"
    assert wrapped(f"See {command}, or the page.", 30) == ["See", f"{command},", "or the page."]
    assert wrapped("a ` b", 3) == ["a `", "b"]


def test_headings_wrap_between_words_before_a_table_is_divided() -> None:
    table = Table(["domain", "dropped choices", "dropped tokens"], [["prose", "0.1%", "0.2%"]])
    assert [line.text for line in lines_of(table, 40)] == [
        "domain  dropped choices  dropped tokens",
        "prose              0.1%            0.2%",
    ]
    assert [line.text for line in lines_of(table, 24)] == [
        "        dropped  dropped",
        "domain  choices   tokens",
        "prose      0.1%     0.2%",
    ]


def test_a_table_that_is_too_wide_is_divided_into_blocks_that_repeat_the_labels() -> None:
    table = Table(
        ["layer", "max/mean", "tokens/step", "records"], [["enc.1", "1.5x", "1,024", "7"], ["dec.1", "2.5x", "8", "9"]]
    )
    assert [line.text for line in lines_of(table, 30)] == [
        "layer  max/mean  tokens/step",
        "enc.1      1.5x        1,024",
        "dec.1      2.5x            8",
        "",
        "layer  records",
        "enc.1        7",
        "dec.1        9",
    ]


def test_a_long_description_wraps_and_the_name_beside_it_stays_whole() -> None:
    table = Table(
        ["recipe", "description", "parameters"], [["paper-lm-small", "The twelve layers of a paper", "1 M"]], labels=2
    )
    assert [line.text for line in lines_of(table, 50)] == [
        "recipe          description             parameters",
        "paper-lm-small  The twelve layers of a         1 M",
        "                paper",
    ]


def test_what_no_column_can_hold_becomes_records() -> None:
    table = Table(["name", "formula"], [["a", "b" * 30], ["c", "d"]], labels=1)
    assert [line.text for line in lines_of(table, 20)] == ["name: a", "formula:", "b" * 30, "", "name: c", "formula: d"]


def test_a_terminal_executes_nothing_of_a_name() -> None:
    hostile = "evil\x1b[2J\x07name\x9b1m"
    text = render_document([Table(["a", "b"], [[hostile, "1"]], caption=hostile)], Console(width=40, file=io.StringIO()))
    assert text.isprintable() or {char for char in text if not char.isprintable()} == {"\n"}
    assert text.count("evil␛[2J␇name�1m") == 2
