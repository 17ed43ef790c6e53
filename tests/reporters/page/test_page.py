"""The page is one file that needs nothing else, refuses every script but its own, and can be read in both themes."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from moeprof.records.recipe.files import load_recipe
from moeprof.records.run.run import Run, RunRecord
from moeprof.records.run.writer import RunWriter
from moeprof.reporters.documents.document import Bullets, Details, Heading, Paragraph, Table
from moeprof.reporters.page.encoding import encoded, script_json
from moeprof.reporters.page.figure import Axis, Figure, FileSource, HeatCells, MarkedLine, Series, View
from moeprof.reporters.page.page import HERE, PagePart, RunPart, digest, names_of, page, render, render_document
from tests.reporters.page.origins import tree

HOSTILE = "</script><script>alert(1)</script><!-- =1+1 & \u2028"
SOURCE = FileSource("f.parquet", "x")
MIB = 2.0**20


def drawn(**changes: object) -> Figure:
    """A figure with two phases, changed."""
    limit = MarkedLine("budget", MIB, source=SOURCE)
    views = [
        View({"phase": phase}, [Series(HOSTILE, [1, 2], [MIB * factor, 3 * MIB], source=SOURCE)], marks=[limit])
        for phase, factor in (("score", 1), ("decode", 2))
    ]
    figure = Figure("f", HOSTILE, HOSTILE, Axis(HOSTILE), Axis("memory", "bytes"), views)
    return replace(figure, **changes)  # type: ignore[arg-type]


def shown(*blocks: object) -> str:
    """A page of one section."""
    return page("t", [], [PagePart("part", "Part", False, [RunPart(0, blocks)])])  # type: ignore[arg-type]


def test_the_library_is_unmodified_and_small_and_has_its_licence() -> None:
    folder = HERE / "vendor"
    recorded, name = (folder / "SHA256SUMS").read_text().split()
    assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == recorded
    assert "MIT License" in (folder / "plotly-cartesian.LICENSE").read_text()
    scripts = sum((HERE / path).stat().st_size for path in (f"vendor/{name}", "page.js"))
    assert scripts <= 2_000_000
    assert "</script" not in (folder / name).read_text()


def test_only_the_scripts_of_the_page_may_run_and_nothing_may_be_loaded() -> None:
    made = tree(shown(drawn()))
    policy = made.xpath("//meta[@http-equiv='Content-Security-Policy']/@content")[0]
    scripts = [script for script in made.iter("script") if not script.get("type")]
    assert [f"'sha256-{digest(script.text)}'" for script in scripts] == re.findall(r"'sha256-[^']+'", policy)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    assert not made.xpath("//link | //img | //iframe | //*[@src] | //*[@onclick]")
    assert all(href.startswith("#") for href in made.xpath("//@href"))


def test_text_from_files_is_never_markup_on_the_page() -> None:
    blocks = [Heading(HOSTILE), Paragraph(HOSTILE), Bullets([HOSTILE]), Table([HOSTILE], [[HOSTILE]], caption=HOSTILE)]
    made = tree(shown(*blocks, Details(HOSTILE, blocks), drawn()))
    assert [script.get("type") for script in made.iter("script")] == ["application/json", None, None]
    data = json.loads(made.findtext(".//figure/script"))
    assert data["title"] == data["views"][0]["series"][0]["name"] == HOSTILE
    assert "<" not in script_json(HOSTILE)


def test_a_page_without_figures_has_no_library() -> None:
    assert len(render_document([Heading("t", 1)])) < 60_000


def test_axes_are_in_the_largest_unit_that_leaves_at_least_one() -> None:
    data = encoded(drawn(), "r0-f")
    assert data["value"] == {"name": "memory", "base": "bytes", "factor": MIB, "unit": "MiB", "logarithmic": False}
    assert data["views"][1]["series"][0]["values"] == [2 * 2**20, 3 * 2**20]
    small = drawn(value=Axis("time", "ns"), views=[View(series=[Series("a", [1], [999.0], source=SOURCE)])])
    assert encoded(small, "f")["value"]["unit"] == "ns"


def test_a_figure_has_a_selector_for_every_facet_with_a_choice_and_the_bar_has_those_of_all() -> None:
    other = View({"phase": "encode", "region": "gate"}, [Series("a", [1], [1.0], source=SOURCE)])
    made = tree(shown(drawn(), drawn(name="g", views=[other])))
    assert [each.text for each in made.xpath("//figure[@id='r0-f']//select/option")] == ["score", "decode"]
    assert not made.xpath("//figure[@id='r0-g']//select")
    assert [each.text for each in made.xpath("//*[@id='selectors']//option")] == ["score", "decode", "encode"]


def test_a_slider_has_a_step_for_every_choice() -> None:
    views = [View({"slots": str(size)}, readout=f"{size} slots") for size in (1, 2, 4)]
    made = tree(shown(drawn(views=views, sliders=["slots"])))
    slider = made.xpath("//figure//input[@type='range']")[0]
    assert (slider.get("min"), slider.get("max"), slider.get("value")) == ("0", "2", "0")
    assert made.xpath("//figure//*[@class='readout']")[0].text == "1 slots"


def test_every_figure_can_be_focused_and_has_a_title_a_sentence_and_its_data() -> None:
    (figure,) = tree(shown(drawn(title="Memory", sentence="It rises."))).iter("figure")
    assert figure.get("tabindex") == "0"
    names = {each.get("id"): each.text_content() for each in figure.iter() if isinstance(each.tag, str) and each.get("id")}
    assert names[figure.get("aria-labelledby")] == "Memory"
    assert names[figure.get("aria-describedby")] == "It rises."
    assert [cell.text for cell in figure.xpath(".//tbody/tr[2]/td")] == ["2", "3145728", None, None, None]


def test_the_data_of_a_heat_map_is_a_row_for_every_cell() -> None:
    heat = HeatCells(["1", "3"], ["0", "1"], [[0.5, None], [0.25, 1.0]], source=SOURCE)
    figure = drawn(views=[View(heat=heat)], rows=Axis("layer"), position=Axis("expert"), value=Axis("share", "fraction"))
    rows = [[cell.text for cell in row] for row in tree(shown(figure)).xpath("//figure//tbody/tr")]
    assert rows == [["1", "0", "0.5"], ["1", "1", "-"], ["3", "0", "0.25"], ["3", "1", "1"]]


def test_several_runs_are_one_page_side_by_side(tmp_path: Path) -> None:
    record = RunRecord(command="characterize", recipe=load_recipe("lm-tiny"))
    runs = [RunWriter(tmp_path / name, record).finish("interrupted") for name in ("before", "after")]
    made = tree(render(runs))
    assert len(made.xpath("//head")) == 1
    assert [each.text for each in made.xpath("//*[@id='run']/option")] == ["side by side", "before", "after"]
    assert made.xpath("//*[@id='verdict']//*[@class='run']/@data-run") == ["0", "1"]


def test_runs_are_named_by_their_folders_or_by_their_paths_if_those_are_the_same(tmp_path: Path) -> None:
    record = RunRecord(command="characterize", recipe=load_recipe("lm-tiny"))
    paths = [tmp_path / "a" / "run", tmp_path / "b" / "run", tmp_path / "b" / "other"]
    assert names_of([Run(path, record) for path in paths[1:]]) == ["run", "other"]
    assert names_of([Run(path, record) for path in paths]) == [str(path) for path in paths]


def test_a_run_that_is_not_valid_says_so_first(tmp_path: Path) -> None:
    record = RunRecord(command="characterize", recipe=load_recipe("lm-tiny"))
    run: Run = RunWriter(tmp_path / "run", record).finish("interrupted")
    section = tree(render([run])).xpath("//*[@id='verdict']")[0]
    assert "NOT VALID: interrupted" in section.text_content()


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """The contrast ratio as WCAG 2 defines it."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("theme", [0, 1])
def test_text_and_graphics_have_the_contrast_of_wcag_aa_in_both_themes(theme: int) -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    pairs = re.findall(r"--([\w]+): light-dark\((#\w{6}), (#\w{6})\)", (HERE / "page.css").read_text())
    colours = {name: values[theme] for name, *values in pairs}
    for name in ("ink", "faint", "link"):
        assert min(contrast(colours[name], colours[ground]) for ground in ("page", "raised")) >= 4.5, name
    graphics = [f"c{index}" for index in range(8)] + ["muted", "cold", "hot", "good", "doubtful", "bad"]
    assert [name for name in graphics if contrast(colours[name], colours["page"]) < 3] == []
