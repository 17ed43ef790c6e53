"""The link between real ranks is measured once, by the same words on every rank, and kept."""

import os
from itertools import count
from pathlib import Path

from moeprof.instrument.clock import wall_clock
from moeprof.parallel.group import Group
from moeprof.parallel.link import SIZES_BYTES, measured_links, numbered, pairs_by_kind
from moeprof.records.link import BETWEEN, WITHIN
from tests.parallel.ranks import over_ranks

Found = tuple[list[int], dict[str, list[float]]]


def measure(group: Group, cache: Path, about: dict[str, str], step_ns: int) -> Found:
    """Hosts and times; under a clock that moves on by `step_ns` whenever it is read, or a real one where that is 0."""
    os.environ["XDG_CACHE_HOME"] = str(cache)
    ticks = count(0, step_ns)
    links = measured_links(group, about, "cpu", (lambda: next(ticks)) if step_ns else wall_clock)
    return list(links.hosts), {kind: list(link.times_ns) for kind, link in links.by_kind.items()}


def test_all_ranks_know_the_same_link_and_larger_messages_take_longer(tmp_path: Path) -> None:
    first, *others = over_ranks(2, measure, tmp_path, {"backend": "gloo"}, 0)
    assert others == [first]
    hosts, times = first
    assert (hosts, list(times)) == ([0, 0], [WITHIN])
    assert len(times[WITHIN]) == len(SIZES_BYTES)
    assert 0 < min(times[WITHIN]) < times[WITHIN][-1]


def test_a_message_takes_half_of_its_way_there_and_back_and_is_measured_once(tmp_path: Path) -> None:
    """The clock is read at the beginning and at the end of a turn: 1000 ns each, whatever the size."""
    measured = over_ranks(3, measure, tmp_path, {"backend": "gloo"}, 1000)
    assert measured == [([0, 0, 0], {WITHIN: [500.0] * len(SIZES_BYTES)})] * 3
    assert len(list((tmp_path / "moeprof" / "links").iterdir())) == 1
    assert over_ranks(2, measure, tmp_path, {"backend": "gloo"}, 7000) == [([0, 0], measured[0][1])] * 2
    assert over_ranks(2, measure, tmp_path, {"backend": "another"}, 7000)[0][1] == {WITHIN: [3500.0] * len(SIZES_BYTES)}


def test_a_user_without_a_place_for_it_has_it_measured_every_time(tmp_path: Path) -> None:
    (tmp_path / "moeprof").write_text("a file where the folder should be")
    assert over_ranks(2, measure, tmp_path, {}, 2)[1] == ([0, 0], {WITHIN: [1.0] * len(SIZES_BYTES)})


def test_both_kinds_of_links_are_found_where_there_are_both() -> None:
    assert pairs_by_kind([0, 0, 0]) == {WITHIN: (0, 1)}
    assert pairs_by_kind([0, 1]) == {BETWEEN: (0, 1)}
    assert pairs_by_kind([0, 1, 1, 0]) == {BETWEEN: (0, 1), WITHIN: (0, 3)}
    assert pairs_by_kind([0]) == {}


def test_machines_are_numbered_as_they_appear() -> None:
    assert numbered(["b", "a", "b", "c"]) == [0, 1, 0, 2]
