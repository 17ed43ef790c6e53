"""Curves stand where their numbers say, in characters, whatever the numbers and the labels are."""

import io
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from moeprof.records.units import format_bytes, format_duration, format_significant
from moeprof.reporters.documents.document import Curves
from moeprof.reporters.formats.markdown import render_document as markdown
from moeprof.reporters.formats.terminal import render_document as terminal
from moeprof.reporters.formats.terminal import renderable
from moeprof.reporters.plot import NOTHING, as_table, canvas, counts_in_binary, has_points, scale_of_x, scale_of_y

GIB = 2**30
THROUGHPUT = Curves(
    "Throughput over batch",
    "batch",
    "tokens/s",
    [
        ("static", [(1, 800), (2, 1500), (4, 1600), (8, 1180)]),
        ("dynamic", [(1, 900), (2, 1800), (4, 3400), (8, 5600), (16, 8200), (32, 10400), (64, 11400)]),
    ],
    "Each point is a median.",
)
MEMORY = Curves(
    "Memory over batch",
    "batch",
    "memory",
    [("static", [(1, 0.9 * GIB), (2, 1.4 * GIB), (4, 2.4 * GIB), (8, 4.4 * GIB)]), ("dynamic", [(1, GIB), (64, 2 * GIB)])],
    limit=("budget", 3.25 * GIB),
    write_y=format_bytes,
)


def over(*points: tuple[float, float], label: str = "static") -> Curves:
    """One curve."""
    return Curves("t", "batch", "tokens/s", [(label, points)])


def lines_of(block: Curves, width: int, rows: int = 14) -> list[str]:
    """The canvas without its colours."""
    lines = canvas(block, width, rows)
    assert lines is not None
    return ["".join(text for text, _ in spans) for spans in lines]


def test_a_mark_stands_in_the_row_and_column_of_its_point() -> None:
    lines = lines_of(THROUGHPUT, 80)
    assert lines[0] == "tokens/s"
    plot = [line[7:70] for line in lines[1:15]]  # five digits, a blank and the axis; `+ dynamic` takes ten of 73 columns
    assert all(len(row) == 63 for row in plot)
    assert plot[0][62] == "+"  # 11400, the largest, at batch 64, the last
    assert plot[13 - 9][41] == "+"  # 8200 of 11400 is 9.35 of 13 rows up; batch 16 is 4 of 6 doublings across 62 columns
    assert plot[13 - 1][31] == "o"  # 1180 is 1.3 rows up; batch 8 is half way
    assert "".join(plot).count("+") == 7


def test_every_curve_has_its_label_at_its_end() -> None:
    lines = lines_of(THROUGHPUT, 80)
    assert lines[1].endswith("+ + dynamic")
    assert "o o static" in lines[13]
    together = Curves("t", "x", "y", [("lru", [(1, 3), (4, 9.9)]), ("min", [(1, 1), (4, 10)]), ("lfu", [(1, 2), (2, 4)])])
    assert [[word for word in ("o lru", "+ min", "x lfu") if word in line] for line in lines_of(together, 60)[1:3]] == [
        ["+ min"],
        ["o lru"],
    ]


def test_a_label_covers_no_curve() -> None:
    through = Curves("t", "x", "y", [("short", [(1, 5), (2, 5)]), ("long", [(1, 6), (4, 5), (64, 5)])])
    assert "".join(lines_of(through, 80)).count("o") - "short long".count("o") == 3  # two points and the label
    assert all(any(name in line for line in lines_of(through, 80)) for name in ("o short", "+ long"))


def test_marks_are_linked_by_dots() -> None:
    lines = lines_of(over((1, 700), (64, 1300)), 80)
    plot = [line[6:-9] for line in lines[1:15]]
    rows = {column: [row for row in range(14) if plot[row][column] != " "] for column in range(len(plot[0]))}
    assert all(len(taken) == 1 for taken in rows.values())
    assert (rows[0], rows[len(plot[0]) - 1]) == ([6], [0])  # 700 of 1300 is 7 of 13 rows up
    assert [taken[0] for taken in rows.values()] == sorted((taken[0] for taken in rows.values()), reverse=True)
    assert "".join(plot).count("·") == len(plot[0]) - 2


def test_a_steep_curve_has_a_dot_in_every_row() -> None:
    plot = [line[6:].strip() for line in lines_of(over((1, 100), (1, 1300)), 40)[1:15]]
    assert plot == ["o o static", *["·"] * 11, "o", ""]


def test_both_axes_are_named_and_numbered() -> None:
    lines = lines_of(THROUGHPUT, 80)
    numbered = [line[:7] for line in lines[1:15] if "┤" in line]
    assert numbered == ["10000 ┤", " 8000 ┤", " 6000 ┤", " 4000 ┤", " 2000 ┤", "    0 ┤"]
    axis, numbers, name = lines[15:18]
    assert [place - 7 for place, letter in enumerate(axis) if letter == "┬"] == [0, 10, 21, 31, 41, 52, 62]
    assert numbers.split() == ["1", "2", "4", "8", "16", "32", "64"]
    assert numbers.index("8") == 31 + 7
    assert name.strip() == "batch"
    assert len(name) == 70


def test_numbers_below_the_axis_never_touch() -> None:
    wide = over(*((2.0**power, 100.0) for power in range(21)))
    assert lines_of(wide, 80)[16].split() == ["1", "16", "256", "4096", "65536", "1048576"]
    assert lines_of(wide, 40)[16].split() == ["1", "1024", "1048576"]
    for width in range(20, 120):
        assert all(int(number).bit_count() == 1 for number in lines_of(wide, width)[16].split())


def test_a_curve_without_a_point_is_named_below_the_axis_and_a_long_label_is_cut() -> None:
    absent = Curves("t", "x", "y", [("static", [(1, 1)]), ("tutel", [])])
    assert lines_of(absent, 60)[-1] == "tutel: no point"
    assert "o aaaaaaaaaaaaaa…" in "".join(lines_of(over((1, 1), label="a" * 40), 60))


@pytest.mark.parametrize(
    "curves",
    [
        [("static", [(1, 5.0), (2, 6.0)]), ("dynamic", [(1, 5.0), (2, 6.0)])],  # one is hidden
        [(name, [(1, float(y)), (2, 2.0 * y)]) for y, name in enumerate(("a", "b", "c", "d"), 1)],  # more than there are marks
    ],
)
def test_a_table_has_what_a_plot_would_hide(curves: list[tuple[str, list[tuple[float, float]]]]) -> None:
    block = Curves("Speed", "batch", "tokens/s", curves, "Why.", limit=("budget", 7.0))
    assert canvas(block, 80) is None
    table = as_table(block)
    assert table.columns == ["batch", *(name for name, _ in curves)]
    assert table.rows == [[str(x), *(f"{dict(points)[x]:g}" for _, points in curves)] for x in (1, 2)]
    assert table.caption == "tokens/s by batch; budget 7. Why."
    shown = terminal([block], Console(width=80, file=io.StringIO()))
    assert shown.startswith("Speed\nbatch")
    assert markdown([block]).startswith("Speed\n\n| batch |")


def test_the_limit_is_a_dashed_row_with_its_name_and_value() -> None:
    lines = lines_of(MEMORY, 80)
    row = lines[1 + 13 - 10]  # 3.25 of 4.4 GiB is 9.6 of 13 rows up
    assert "│╌╌ budget 3.25 GiB ╌╌╌╌" in row
    assert row.rstrip().endswith("╌╌╌")
    assert sum("╌" in line for line in lines) == 1


def test_the_name_of_the_limit_makes_way_for_marks() -> None:
    crowded = over(*((2.0**power, 800.0) for power in range(4)), (64.0, 100.0))
    row = lines_of(replace(crowded, limit=("goal", 800.0)), 80)[1]
    assert row.count("o") == 5  # and the one in goal
    assert " goal 800 " in row


def test_the_plot_reaches_up_to_a_limit_beyond_all_points() -> None:
    high = replace(over((1, 100), (2, 120)), limit=("goal", 240.0))
    assert "goal 240" in lines_of(high, 60)[1]


def test_a_limit_far_from_all_points_makes_the_axis_logarithmic() -> None:
    far = replace(over((1, 100), (2, 120)), limit=("budget", 2001.0))
    assert scale_of_y(far, most=6).logarithmic
    assert not scale_of_y(replace(far, limit=("budget", 2000.0)), most=6).logarithmic


@pytest.mark.parametrize(
    ("ys", "write", "logarithmic", "ticks"),
    [
        ((600.0, 11400.0), format_significant, False, [0, 2000, 4000, 6000, 8000, 10000]),
        ((0.05, 0.3), format_significant, False, [0, 0.1, 0.2, 0.1 * 3]),
        ((500.0, 11400.0), format_significant, True, [500, 1000, 2000, 5000, 10000]),
        ((9.0, 1100.0), format_significant, True, [10, 30, 100, 300, 1000]),
        ((1e-3, 1e9), format_significant, True, [1e-3, 1e0, 1e3, 1e6, 1e9]),
        ((1.0 * GIB, 4.5 * GIB), format_bytes, False, [0, GIB, 2 * GIB, 3 * GIB, 4 * GIB]),
        ((0.3 * GIB, 2.6e9), format_bytes, False, [0, GIB // 2, GIB, 3 * GIB // 2, 2 * GIB]),
        ((GIB / 16.5, 4.5 * GIB), format_bytes, True, [GIB / 16, GIB / 4, GIB, 4 * GIB]),
    ],
)
def test_ticks_are_round_numbers_of_whoever_writes_them(
    ys: tuple[float, float], write: Callable[[float], str], logarithmic: bool, ticks: Sequence[float]
) -> None:
    scale = scale_of_y(replace(over((1, ys[0]), (2, ys[1])), write_y=write), most=6)
    assert scale.logarithmic == logarithmic
    assert list(scale.ticks) == pytest.approx(ticks)


def test_only_bytes_are_counted_in_powers_of_two() -> None:
    assert [counts_in_binary(write) for write in (format_bytes, format_significant, format_duration)] == [True, False, False]


def test_a_logarithmic_axis_says_so_and_keeps_ratios_equally_far_apart() -> None:
    block = over((1, 10), (2, 100), (4, 1000))
    assert lines_of(block, 80)[0] == "tokens/s (logarithmic)"
    assert [scale_of_y(block, 7).at(y) for y in (10, 100, 1000)] == pytest.approx([0, 0.5, 1])
    assert lines_of(THROUGHPUT, 80)[0] == "tokens/s"


def test_an_axis_that_must_be_linear_starts_at_zero_however_far_apart_its_values_are() -> None:
    block = replace(over((1, 1000), (2, 1)), linear=True)
    assert scale_of_y(over((1, 1000), (2, 1)), 7).logarithmic
    y = scale_of_y(block, 7)
    assert (y.logarithmic, y.low, y.high) == (False, 0.0, 1000)
    assert y.at(500) == 0.5
    assert not any("logarithmic" in line for line in lines_of(block, 60))


def test_the_horizontal_axis_ends_at_powers_of_two() -> None:
    assert [(x.low, x.high) for x in (scale_of_x(over((3, 1), (48, 1)), 80), scale_of_x(over((4, 1), (8, 1)), 80))] == [
        (2, 64),
        (4, 8),
    ]


def test_a_single_batch_stands_in_the_middle() -> None:
    lines = lines_of(over((4, 800)), 80)
    column = lines[1].index("o")
    assert abs(column - (5 + 70) / 2) <= 0.5
    assert (lines[15][column], lines[16][column]) == ("┬", "4")


def test_a_terminal_shows_each_curve_in_its_colour() -> None:
    console = Console(width=80, file=io.StringIO(), force_terminal=True, color_system="standard", no_color=False)
    console.print(renderable(THROUGHPUT, 80))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "".join(f"\x1b[34m{letter}\x1b[0m" for letter in "o static") in shown
    assert "".join(f"\x1b[32m{letter}\x1b[0m" for letter in "+ dynamic") in shown
    assert shown.count("\x1b[32m+\x1b[0m") == 8


def test_a_wide_terminal_gets_a_plot_of_a_hundred_columns() -> None:
    shown = terminal([THROUGHPUT], Console(width=200, file=io.StringIO())).splitlines()
    assert max(len(line.rstrip()) for line in shown) == 100
    assert shown[0].rstrip() == "Throughput over batch"
    assert "Each point is a median." in shown


def test_markdown_holds_the_plot_in_a_block_of_code() -> None:
    title, *plot, caption = markdown([THROUGHPUT]).strip().split("\n")
    assert (title, caption) == ("Throughput over batch", "Each point is a median.")
    assert plot[1:3] == ["```text", "tokens/s"]
    assert plot[-2] == "```"
    assert plot[2:-2] == [line.rstrip() for line in lines_of(THROUGHPUT, 100)]


@pytest.mark.parametrize("curves", [[], [("static", [])]])
def test_without_any_point_every_format_says_that_there_is_nothing_to_draw(
    curves: list[tuple[str, list[tuple[float, float]]]],
) -> None:
    block = Curves("Title", "batch", "tokens/s", curves, "Why", limit=("budget", 5.0))
    assert markdown([block]) == f"Title\n\n{NOTHING}\n\nWhy\n"
    assert [line.rstrip() for line in terminal([block], Console(width=80, file=io.StringIO())).splitlines()][:3] == [
        "Title",
        NOTHING,
        "Why",
    ]


def test_words_of_a_plot_are_never_markup() -> None:
    hostile = "<script>x</script> [red]y[/red] ```"
    block = Curves(hostile, hostile, hostile, [(hostile, [(1, 1), (2, 2)])], hostile, (hostile, 1.5))
    shown = terminal([block], Console(width=200, file=io.StringIO()))
    assert shown.count("[red]y[/red]") == 5  # title, both axes, limit, caption; the label is cut
    text = markdown([block])
    assert text.count("```") == 2
    assert "<script>" not in text.split("```")[0] + text.split("```")[2]


positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
points = st.lists(st.tuples(positive, positive), max_size=8).map(sorted)
labels = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=30)
blocks = st.builds(
    Curves,
    title=labels,
    x_name=labels,
    y_name=labels,
    curves=st.lists(st.tuples(labels, points), max_size=3),
    limit=st.none() | st.tuples(labels, positive),
    write_y=st.sampled_from([format_significant, format_bytes, format_duration]),
)


@given(blocks, st.integers(20, 220), st.integers(3, 30))
def test_every_line_fits_and_no_numbers_break_the_canvas(block: Curves, width: int, rows: int) -> None:
    found = canvas(block, width, rows)
    lines = ["".join(text for text, _ in spans) for spans in found or []]
    assert all(len(line) <= width for line in lines)
    assert found is None or (len(lines) >= rows + 4 if has_points(block) else len(lines) == 1)
    assert len(as_table(block).columns) == 1 + len(block.curves)
