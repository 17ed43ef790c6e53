"""The page in a browser, opened from a file without a network. Skipped where chromium or playwright is not installed."""

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from moeprof.cli import group
from moeprof.records.run.run import Run
from moeprof.reporters.page.page import render
from tests.conftest import MICRO
from tests.studies.replay.test_along_trace import moving

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

AXE = "axe-core@4.14.1"
"""The package of npm whose rules the page keeps."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
pytestmark = pytest.mark.slow
WINDOWS = [(width, theme) for width in (1440, 390) for theme in ("light", "dark")]

Opened = Callable[..., AbstractContextManager["Page"]]


def ran(out: Path, *arguments: str) -> Run:
    """The run of a command."""
    assert group.run([*arguments, "--quiet", "--out", str(out)]) == 0
    return Run.open(out)


def of_a_trace(_: Run, folder: Path) -> list[Run]:
    """A trace that is characterized, replayed over caches, and replayed over placements that are made again, with copies."""
    trace, size = str(moving(folder / "moving.parquet")), ("--expert-bytes", "1000")
    placing = ("--balance", "--devices", "2,4", "--every", "2,4", "--window", "8", "--replicas", "1,0,2", "--token-bytes", "64")
    return [
        ran(folder / "traced", "characterize", trace),
        ran(folder / "caches", "replay", trace, "--cache", *size),
        ran(folder / "placements", "replay", trace, *placing, "--tokens-per-step", "8,16", *size),
    ]


def of_ranks(_: Run, folder: Path) -> list[Run]:
    """Expert buffering with several numbers of slots, and load balancing, over two ranks."""
    recipe = folder / "ranks.toml"
    recipe.write_text(MICRO["lm"])
    settings = ("--all", "--sweep-slots", "--no-sweep", "--ranks", "2")
    return [ran(folder / "ranks", "optimize", str(recipe), *settings)]


SETS: dict[str, Callable[[Run, Path], list[Run]]] = {
    "one run": lambda run, _: [run],
    "twice": lambda run, _: [run, run],
    "trace": of_a_trace,
    "ranks": of_ranks,
}
FEWEST = {"one run": 8, "trace": 14, "ranks": 12}
"""Sets of runs with the fewest figures that their pages have."""


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A browser of the system."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no chromium")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def opened(browser: "Browser", run: Run, tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """A function that opens the page of a set of runs; every message of the console and every request fails the test."""
    folder = tmp_path_factory.mktemp("pages")

    @contextmanager
    def open_page(width: int, theme: str, runs: str = "one run") -> Iterator["Page"]:
        file, said = folder / f"{runs}.html", []
        if not file.exists():
            file.write_text(render(SETS[runs](run, folder)))
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, offline=True)  # type: ignore[arg-type]
        page = context.new_page()
        page.set_default_timeout(120_000)  # machines that others use too
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on(
            "request", lambda request: None if request.url.startswith(("file:", "data:", "blob:")) else said.append(request.url)
        )
        page.goto(file.as_uri())
        yield page
        context.close()
        assert said == []

    return open_page


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of axe-core."""
    npm, folder = shutil.which("npm"), tmp_path_factory.mktemp("axe")
    if npm is None:
        pytest.skip("no npm")
    ended = subprocess.run([npm, "pack", AXE], cwd=folder, capture_output=True, text=True, timeout=120)
    if ended.returncode:
        pytest.skip(f"npm does not deliver {AXE}")
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member
        return member.read().decode()


def draw_all(page: "Page") -> int:
    """Scrolls through the page until every figure is drawn; their number."""
    figures = page.locator("figure")
    for index in range(figures.count()):
        figures.nth(index).scroll_into_view_if_needed()
        figures.nth(index).locator(".plot.drawn svg").first.wait_for()
    return figures.count()


def fits(page: "Page") -> bool:
    """Whether nothing is wider than the window."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


def test_selectors_clicks_and_keys_work_on_a_phone_without_a_message_in_the_console(opened: Opened) -> None:
    with opened(390, "dark") as page:
        regions = page.locator("#r0-time-regions")
        regions.scroll_into_view_if_needed()
        regions.locator(".plot.drawn svg").first.wait_for()
        page.locator("#selectors select[data-facet=phase]").select_option("decode")
        assert regions.locator("select[data-facet=phase]").input_value() == "decode"
        regions.focus()
        page.keyboard.press("ArrowRight")
        told = regions.locator(".told").inner_text()
        assert told.startswith("static, region ")
        page.keyboard.press("Enter")
        layers = page.locator("#r0-time-layers")
        assert page.evaluate("document.activeElement.id") == "r0-time-layers"
        assert layers.locator("select[data-facet=phase]").input_value() == "decode"
        assert layers.locator("select[data-facet=region]").input_value() in told
        assert fits(page)


@pytest.mark.parametrize("runs", FEWEST)
@pytest.mark.parametrize(("width", "theme"), WINDOWS)
def test_every_figure_is_drawn_without_an_error_and_axe_finds_no_violation(
    opened: Opened, axe: str, width: int, theme: str, runs: str
) -> None:
    with opened(width, theme, runs) as page:
        assert draw_all(page) >= FEWEST[runs]
        assert fits(page)
        page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        page.evaluate(axe)
        found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
        assert [(each["id"], [node["html"][:200] for node in each["nodes"][:3]]) for each in found["violations"]] == []
        assert fits(page)


def test_the_tab_key_reaches_every_figure(opened: Opened) -> None:
    with opened(1440, "light") as page:
        wanted, reached = page.locator("figure").count(), set()
        for _ in range(400):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.tagName === 'FIGURE' ? document.activeElement.id : ''"))
        assert len(reached - {""}) == wanted


def test_downloads_have_the_rows_of_every_selection_and_no_formula(opened: Opened, tmp_path: Path) -> None:
    with opened(1440, "light") as page:
        figure = page.locator("#r0-time-regions")
        figure.scroll_into_view_if_needed()
        figure.locator(".data summary").click()
        saved = {}
        for kind in ("csv", "json", "svg"):
            with page.expect_download() as download:
                figure.locator(f"[data-save={kind}]").click()
            download.value.save_as(tmp_path / f"f.{kind}")
            saved[kind] = (tmp_path / f"f.{kind}").read_text()
        assert saved["csv"].startswith(
            "phase,domain,series,region,time per step (ns),low,high,remark\nscore,all domains,static,"
        )
        views = json.loads(saved["json"])["views"]
        assert saved["csv"].count("\n") == 1 + sum(len(series["at"]) for view in views for series in view["series"])
        assert saved["svg"].startswith("<svg")
        assert page.evaluate("csvCell('=1+1')") == "'=1+1"
        assert page.evaluate("csvCell('a,\"b')") == '"a,""b"'


def test_a_theme_is_chosen_and_a_run_is_selected(opened: Opened) -> None:
    with opened(1440, "light", "twice") as page:
        draw_all(page)
        ground = "getComputedStyle(document.body).backgroundColor"
        assert page.evaluate(ground) == "rgb(255, 255, 255)"
        for _ in range(2):  # system, light, dark
            page.locator("#theme").click()
        assert page.evaluate(ground) == "rgb(21, 25, 29)"
        assert page.locator("section#time .run:visible").count() == 2
        page.locator("#run").select_option("1")
        assert page.locator("section#time .run:visible").count() == 1
