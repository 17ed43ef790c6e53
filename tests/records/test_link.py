"""A link's curve is a floor, and only one measured under the same circumstances is used again."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from moeprof.records.link import BETWEEN, WITHIN, Link, Links, link_file

ABOUT = {"cpu": "Example 9000", "link": WITHIN}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def times_of(link: Link, *sizes: int) -> list[float]:
    return link.time_ns(np.array(sizes)).tolist()


def test_times_lie_on_lines_between_what_was_measured() -> None:
    link = Link(sizes_bytes=[8, 100, 200], times_ns=[40, 50, 150])
    assert times_of(link, 1, 8, 100, 150, 200) == [40, 40, 50, 100, 150]


def test_above_the_largest_size_its_bandwidth_holds_and_nothing_takes_no_time() -> None:
    assert times_of(Link(sizes_bytes=[8, 200], times_ns=[40, 150]), 0, 400, 2000) == [0, 300, 1500]


def test_a_small_message_that_was_measured_too_slow_is_no_floor() -> None:
    link = Link(sizes_bytes=[8, 100, 200], times_ns=[70, 50, 150])
    assert times_of(link, 8, 100) == [50, 50]
    assert link.latency_ns == 50


@given(st.lists(st.floats(1, 1e9), min_size=1, max_size=8), st.lists(st.integers(1, 2**40), min_size=2, max_size=10))
def test_no_message_is_faster_than_a_smaller_one(times: list[float], sizes: list[int]) -> None:
    link = Link(sizes_bytes=[8 * 4**power for power in range(len(times))], times_ns=times)
    found = times_of(link, *sorted(sizes))
    assert all(before <= after * (1 + 1e-12) for before, after in pairwise(found))


def test_bandwidth_is_bytes_per_second() -> None:
    assert Link(sizes_bytes=[8, 1000], times_ns=[40, 500]).bandwidths == [2e8, 2e9]


@pytest.mark.parametrize(
    ("sizes", "times", "expected"),
    [
        ([], [], "equal lengths"),
        ([8], [1, 2], "equal lengths"),
        ([8, 8], [1, 2], "must ascend"),
        ([0, 8], [1, 2], "at least 1"),
        ([8], [0], "must be above 0"),
        ([8], [float("nan")], "must be above 0"),
        ([8], [float("inf")], "must be above 0"),
    ],
)
def test_what_is_no_curve_is_refused(sizes: list[int], times: list[float], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        Link(sizes_bytes=sizes, times_ns=times)


# Floors


FAST = Link(sizes_bytes=[1, 1001], times_ns=[10, 1010])
FAR = Link(sizes_bytes=[1, 1001], times_ns=[500, 10500])


def test_the_floor_is_the_busiest_direction_of_the_busiest_rank() -> None:
    bytes_CNN = np.array([[[9999, 20, 0], [30, 9999, 0], [31, 0, 9999]], [[9999, 0, 0], [0, 9999, 0], [0, 0, 9999]]])
    assert Links([0, 0, 0], {WITHIN: FAST}).floors_ns(bytes_CNN).tolist() == [10 + 60, 0]  # rank 0 receives 61


def test_each_kind_of_link_carries_its_own_share_and_the_slower_one_counts() -> None:
    """Ranks 0 and 1 share a machine; rank 1 sends 101 to rank 0 and 11 to rank 2 on another."""
    bytes_CNN = np.array([[[0, 0, 0], [101, 0, 11], [0, 0, 0]]])
    links = Links([0, 0, 1], {WITHIN: FAST, BETWEEN: FAR})
    assert links.floors_ns(bytes_CNN).tolist() == [pytest.approx(500 + 10 * 10)]
    near = Links([0, 0, 1], {WITHIN: FAR, BETWEEN: FAST})
    assert near.floors_ns(bytes_CNN).tolist() == [pytest.approx(500 + 100 * 10)]


# Kept


def test_a_link_is_kept_for_the_same_circumstances_only() -> None:
    link = Link(about=ABOUT, sizes_bytes=[8], times_ns=[0.1 + 0.2])
    assert Link.kept(ABOUT) is None
    link.write(link_file(ABOUT))
    assert Link.kept(ABOUT) == link
    assert Link.kept(dict(reversed(ABOUT.items()))) == link
    assert Link.kept(ABOUT | {"cpu": "another"}) is None


def test_what_somebody_else_left_there_is_measured_anew(tmp_path: Path) -> None:
    file = link_file(ABOUT)
    Link(about=ABOUT, sizes_bytes=[8], times_ns=[5]).write(file)
    assert file.is_relative_to(tmp_path)
    document = json.loads(file.read_text())
    wrong = (document | {"about": {}}, document | {"schema_version": 2}, document | {"times_ns": [-1]}, [])
    for text in (*map(json.dumps, wrong), "{", ""):
        file.write_text(text)
        assert Link.kept(ABOUT) is None
    file.unlink()
    file.mkdir()
    assert Link.kept(ABOUT) is None


def test_without_a_cache_folder_of_its_own_it_is_the_home_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "somebody"))
    assert link_file(ABOUT).is_relative_to(tmp_path / "somebody" / ".cache" / "moeprof")
