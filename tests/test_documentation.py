"""The pages: paths and links exist, and commands have the options that the pages give them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from moeprof.cli.group import group

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def named_paths() -> Iterator[tuple[str, str]]:
    """Every file or folder of the repository that a page names in backticks, unless it has a placeholder."""
    for page in PAGES:
        for path in re.findall(r"`((?:moeprof|tests|benchmarks|recipes|docs)/[\w./-]+)`", page.read_text(encoding="utf-8")):
            yield page.name, path


def links() -> Iterator[tuple[Path, str]]:
    """Every link to another page or to a heading."""
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                yield page, target


def commands() -> Iterator[str]:
    """Every call of moeprof in a block of shell code."""
    for page in PAGES:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
            yield from (line for line in block.replace("\\\n", " ").splitlines() if line.startswith("moeprof "))


@pytest.mark.parametrize(("page", "path"), sorted(set(named_paths())))
def test_a_path_on_a_page_exists(page: str, path: str) -> None:
    assert (ROOT / path).exists(), f"{page} names {path}"


@pytest.mark.parametrize(("page", "target"), sorted(set(links())), ids=str)
def test_a_link_leads_to_a_page_and_its_heading(page: Path, target: str) -> None:
    path, _, heading = target.partition("#")
    file = page.parent / path if path else page
    assert file.exists()
    if heading:
        titles = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert heading in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_a_command_on_a_page_has_these_options(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    command: click.Command = group
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words.pop(0))
        assert found is not None
        command = found
    command.make_parser(click.Context(command)).parse_args(words)
