"""Every format renders every comparison, and nothing in one is taken for markup or for a command."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from markdown_it import MarkdownIt

from moeprof.analysis.comparison.compare import Comparison
from moeprof.reporters.comparison_formats.registry import FORMATS, render

from .findings import any_comparison, comparison, hostile, one_of_each, read_commands, read_json, read_xml

JSON = ("json", "benchmark-action-bigger", "benchmark-action-smaller", "bencher")
MARKDOWN = ("markdown", "summary")


def read(form: str, written: str) -> None:
    """As whoever gets the format would; fails where it is not well formed, or holds markup that is not ours."""
    written.encode()
    if form in JSON:
        read_json(written)
    elif form == "junit":
        read_xml(written)
    elif form == "annotations":
        read_commands(written)
    elif form in MARKDOWN:
        read_markdown(written)


def read_markdown(written: str) -> None:
    """No HTML but our own, no link, no heading out of place, every row as wide as its table."""
    flat = MarkdownIt("commonmark").enable("table").parse(written)
    tokens = [*flat, *(child for token in flat for child in token.children or [])]
    html = {token.content.strip() for token in tokens if token.type in ("html_block", "html_inline")}
    assert all(one.startswith(("<details><summary>", "</details>")) for one in html), html
    assert not [token for token in tokens if token.type in ("link_open", "image", "code_inline", "em_open", "fence")]
    headings = [flat[i + 1].content.split(":")[0] for i, token in enumerate(flat) if token.type == "heading_open"]
    assert set(headings[1:]) <= {"Not comparable", "Removed", "New"}
    rows = [token.type for token in flat if token.type in ("tr_open", "tr_close", "td_open", "th_open", "table_close")]
    for table in " ".join(rows).split("table_close")[:-1]:
        widths = {row.count("_open") for row in table.replace("tr_open", "").split("tr_close")[:-1]}
        assert len(widths) == 1


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_renders_every_verdict(form: str) -> None:
    written = render(one_of_each(), form)
    assert written.endswith("\n")
    read(form, written)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_renders_nothing_at_all(form: str) -> None:
    read(form, render(comparison(), form))


@pytest.mark.parametrize("form", FORMATS)
def test_hostile_names_stay_text(form: str) -> None:
    written = render(hostile(), form)
    read(form, written)
    assert "<script>" not in written or form not in ("junit", *MARKDOWN)
    assert "##[" not in written
    assert "##vso[" not in written
    assert not set("\x1b\x07\x00\r\u202e\u2028\x85") & set(written)
    if form != "annotations":
        assert not any(line.lstrip().startswith("::") for line in written.splitlines())


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=40, deadline=None)
@given(one=any_comparison)
def test_every_format_renders_any_finding_and_parses_back(form: str, one: Comparison) -> None:
    read(form, render(one, form))


def test_no_format_needs_torch_or_pandas() -> None:
    program = (
        "import sys; from moeprof.reporters.comparison_formats.registry import FORMATS, render;"
        "from moeprof.analysis.comparison.compare import Comparison; from moeprof.analysis.comparison.verdicts import Rules;"
        "[render(Comparison('a', 'b', [], Rules({})), form) for form in FORMATS];"
        "sys.exit(','.join({'torch', 'pandas', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stderr == "\n"
