"""Heat maps show loads in doublings beside the even load, and a region has the same letter in every bar."""

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from moeprof.records.regions import REGIONS
from moeprof.reporters.documents.document import Document, HeatMap, Stacked
from moeprof.reporters.formats.markdown import render_document as markdown
from moeprof.reporters.formats.terminal import render_document as terminal
from moeprof.reporters.shading import REGION_LETTERS, SHADES, STEPS, folded, letters, segments, shade, step


def test_only_nothing_is_blank_in_a_heat_map() -> None:
    assert [shade(value, 1.0) for value in (0.0, 1e-9, 0.3, 0.6, 1.0)] == [*SHADES[:4], SHADES[4]]
    assert shade(0.0, 0.0) == " "
    assert step(0.0, 1.0) == " "
    assert step(1e-30, 1.0) == STEPS[0]


def test_each_doubling_of_the_load_is_a_step_and_the_even_load_is_in_the_middle() -> None:
    loads = [1 / 9, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8]
    assert [step(load, 1.0) for load in loads] == list(STEPS)
    assert [step(load / 32, 1 / 32) for load in loads] == list(STEPS)
    assert step(0.999, 1.0) == "="
    assert step(1000.0, 1.0) == "█"


def test_a_map_of_loads_shows_the_scale_of_its_steps_and_what_one_character_is() -> None:
    block = HeatMap("Loads", ["layer 1"], [[0.0, 2.0, 0.2, 1.0] * 50], 2.0, "Caption.", even=1.0)
    for text in (markdown([block]), shown([block])):
        assert "blank 0, . < 1/8, : < 1/4, - < 1/2, = < 1, ░ < 2, ▒ < 4, ▓ < 8, █ ≥ 8." in " ".join(text.split()).replace(
            "\\", ""
        )
    assert "layer 1 ▒▒" in shown([block])
    assert "One character is 3 neighbours, the largest of them." in " ".join(shown([block]).split())
    small = HeatMap("Loads", ["layer 1"], [[0.0, 2.0, 0.2, 1.0]], 2.0, even=1.0)
    assert "layer 1  ▒:░|" in shown([small])
    assert "neighbours" not in shown([small])


def test_folding_keeps_the_hottest_of_each_group() -> None:
    assert folded([1, 9, 2, 3, 8], 3) == [9, 3, 8]
    assert folded([1, 2], 10) == [1, 2]


def test_every_region_has_a_letter_of_its_own_which_no_bar_changes() -> None:
    assert tuple(REGION_LETTERS) == REGIONS
    assert len(set(REGION_LETTERS.values())) == len(REGIONS)
    assert letters(["embed", "experts"]) == ["m", "e"]
    assert letters(["experts", "extra", "else", ""]) == ["e", "x", "l", " "]


def test_a_region_has_the_same_colour_in_every_bar() -> None:
    both = [Stacked("t", parts, [("", [0.5] * len(parts))]) for parts in (["gate", "experts"], ["experts"])]
    first, second = (shown([block], colours=True) for block in both)
    colour = second.split("e")[0].rsplit("\x1b[", 1)[-1]
    assert colour in first


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.integers(1, 120))
def test_a_stacked_bar_is_exactly_as_long_as_its_width(fractions: list[float], width: int) -> None:
    bar = segments([f"part{index}" for index in range(len(fractions))], fractions, width)
    cells = [length for _, _, length in bar]
    assert sum(cells) == (width if any(fractions) else 0)
    whole = sum(fractions)
    assert all(abs(length - fraction / whole * width) <= 1 for length, fraction in zip(cells, fractions, strict=True) if whole)


def shown(blocks: Document, *, colours: bool = False) -> str:
    """The blocks on a terminal of 80 columns."""
    return terminal(blocks, Console(width=80, file=io.StringIO(), force_terminal=colours))
