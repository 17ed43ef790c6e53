"""The report of a replay: a recommendation with its numbers, two operating points of memory, and what is not known."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from moeprof.analysis.run_metrics import of_replay
from moeprof.records.run.run import Run
from moeprof.records.run.writer import RunWriter
from moeprof.reporters.documents.document import Curves, Table
from moeprof.reporters.documents.replay import summary
from moeprof.reporters.documents.report import document_of
from moeprof.reporters.formats.registry import FORMATS, render
from moeprof.reporters.formats.terminal import render_document as terminal
from moeprof.reporters.sections.caches import some
from moeprof.studies.replay.source import read_source
from moeprof.studies.replay.study import CacheOptions, replay_caches
from tests.reporters.page.origins import visible
from tests.studies.replay.logs import route_log, run_of_shape

SCAN = [[0, 1, 2], [1, 2, 3], [4, 5, 6], [0, 1, 2], [7, 1, 2]] * 20


def replayed(tmp_path: Path, asked: CacheOptions | None = None, **log: bool) -> Run:
    """A small replay of two layers with eight experts."""
    path = route_log(tmp_path / "talk.route.csv", SCAN, prefill=[[0, 1, 2]], layers=2, experts=8, **log)
    return replay_caches(read_source(path), asked or CacheOptions(), tmp_path / "run")


@pytest.fixture
def paper(tmp_path: Path) -> Run:
    """MT-54B's decoder on eight devices."""
    source = read_source(run_of_shape(tmp_path / "made", "mt-54b"))
    return replay_caches(source, CacheOptions(devices=8), tmp_path / "run")


@pytest.mark.parametrize(
    "asked",
    [
        CacheOptions(),
        CacheOptions(slots=[8]),
        CacheOptions(slots=[2, 5], policies=["lru"], phase="decode"),
        CacheOptions(budgets=[4000, 8000, 12000, 20000], access="batch", overlap_ns=10),
        CacheOptions(policies=["min"]),
        CacheOptions(devices=4),
    ],
)
def test_every_format_renders_every_replay(tmp_path: Path, asked: CacheOptions) -> None:
    run = replayed(tmp_path, asked)
    for form in FORMATS:
        text = render(run, form)
        assert text
        assert not {"nan", "none"} & set(visible(text).lower().split())
    assert 3 <= len(summary(of_replay(run))) <= 10


def test_a_replay_that_was_stopped_at_once_is_rendered_as_invalid(tmp_path: Path) -> None:
    record = replayed(tmp_path).record
    run = RunWriter(tmp_path / "stopped", record).finish("interrupted")
    for form in FORMATS:
        assert render(run, form)
    assert "NOT VALID: interrupted" in render(run, "markdown")
    assert "Summary" not in render(run, "markdown")


def test_a_replay_that_lost_its_numbers_is_still_rendered(tmp_path: Path) -> None:
    run = replayed(tmp_path)
    lines = (run.path / "metrics.csv").read_text().splitlines()
    for kept in (lines[:1], lines[:20], [lines[0], *(line for line in lines if "knee" in line or "expert_accesses" in line)]):
        (run.path / "metrics.csv").write_text("\n".join(kept) + "\n")
        for form in FORMATS:
            assert render(Run.open(run.path), form)


def test_a_report_fits_its_terminal(paper: Run) -> None:
    for width in (80, 200):
        for line in terminal(document_of(paper), Console(width=width, file=io.StringIO())).splitlines():
            assert len(line) <= width


def test_the_papers_two_operating_points_are_never_one(paper: Run) -> None:
    line = next(line for line in summary(of_replay(paper)) if line.startswith("Memory: "))
    # paper 5.5: 5.6267 GiB, 32.17%, 1.474
    assert "Upper bound: 1 slot saves 5.63 GiB (32.2% of a device's weights, 1.47x reduction), at a 95.6% miss rate." in line
    table = next(block for block in document_of(paper) if isinstance(block, Table) and block.columns[:2] == ["slots", "saved"])
    rows = {row[0]: list(row[1:4]) for row in table.rows}
    assert rows["10"] == ["2.25 GiB", "12.9%", "1.15x"]
    assert rows["5"] == ["4.13 GiB", "23.6%", "1.31x"]
    assert rows["16"] == ["0 B", "0.0%", "1x"]


def test_one_miss_costs_what_the_paper_says(paper: Run) -> None:
    assert "5.59 ms per miss" in next(line for line in summary(of_replay(paper)) if line.startswith("Time (modelled)"))


def test_the_recommendation_names_the_lower_bound_the_worst_layer_and_the_range_of_sizes(tmp_path: Path) -> None:
    lines = summary(of_replay(replayed(tmp_path)))
    assert lines[0].startswith("Recommendation: ")
    assert "MIN, which needs future accesses: " in lines[0]
    assert "worst, layer " in lines[0]
    assert lines[1] == "Why 3: it is the knee of the miss-rate curve. Half (1): 100.0% misses; double (6): 33.3% misses."
    assert lines[2].startswith("Policy: lfu is best ")


def test_the_plot_has_a_point_per_landmark_and_the_floor_on_top(tmp_path: Path) -> None:
    run = replayed(tmp_path)
    plot = next(block for block in document_of(run) if isinstance(block, Curves))
    assert plot.curves[-1][0] == "min"
    assert [x for x, _ in plot.curves[-1][1]] == list(range(1, 9))
    floor, lru = dict(plot.curves[-1][1]), dict(dict(plot.curves)["lru"])
    assert all(floor[size] <= lru[size] for size in lru if size in floor)


def test_without_sizes_of_experts_memory_and_times_are_omitted(tmp_path: Path) -> None:
    text = render(replayed(tmp_path, sizes=False), "markdown")
    assert "Memory saved" not in text
    assert "per step" not in text
    assert "expert size unknown" in text


def test_a_phase_in_which_nothing_comes_back_has_no_plot(tmp_path: Path) -> None:
    assert "No expert is used twice in this phase" in render(replayed(tmp_path), "markdown")


def test_where_every_expert_has_a_slot_nothing_need_be_chosen(tmp_path: Path) -> None:
    assert summary(of_replay(replayed(tmp_path, CacheOptions(slots=[8]))))[0].startswith(
        "Recommendation: keep all experts resident. "
    )


def test_only_the_future_is_no_recommendation(tmp_path: Path) -> None:
    lines = summary(of_replay(replayed(tmp_path, CacheOptions(policies=["min"]))))
    assert lines[-1].startswith("No recommendation: every replayed policy needs future accesses.")


def test_sizes_of_a_table_are_about_equal_factors_apart() -> None:
    assert some([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128], 6, [24]) == [
        1,
        3,
        8,
        16,
        24,
        48,
        128,
    ]  # 128 to the power of n fifths: 2.6, 7.0, 18.4, 48.5
    assert some([5], 6, []) == [5]
