"""A tracker with a limit ends what it watches as soon as too much is live, and can be used again."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from moeprof.instrument.memory import MemoryTracker, OverLimitError
from moeprof.instrument.probe import active, region

KIB = 1024


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def kib(size: int) -> Tensor:
    return torch.empty(size * KIB, dtype=torch.uint8)


def tracker_of(limit: int | None, *, weights: int = 4, begun: bool = True) -> MemoryTracker:
    """Limit and weights in KiB."""
    model = nn.Linear(weights * KIB // 4, 1, bias=False)
    tracker = MemoryTracker(model, limit_bytes=None if limit is None else limit * KIB)
    if begun:
        tracker.begin()
    return tracker


def test_the_first_byte_too_many_ends_it_and_the_limit_itself_does_not() -> None:
    """4 KiB are weights, which count."""
    tracker = tracker_of(20)
    with tracker.observing():
        kept = kib(16)
        assert tracker.static_bytes + tracker.bytes.total == 20 * KIB
        with pytest.raises(OverLimitError) as caught:
            torch.empty(1, dtype=torch.uint8)
    assert caught.value.args == (20 * KIB + 1,)
    del kept


def test_it_ends_at_the_allocation_and_not_at_the_end() -> None:
    tracker, kept = tracker_of(20), list[Tensor]()
    with pytest.raises(OverLimitError), tracker.observing():
        kept.extend(kib(6) for _ in range(100))
    assert len(kept) == 2


def test_what_is_freed_makes_room() -> None:
    tracker = tracker_of(20)
    with tracker.observing():
        for _ in range(10):
            held = kib(10)
            del held
    assert tracker.bytes.peak.total == 10 * KIB


def test_before_the_beginning_is_over_nothing_is_too_much() -> None:
    tracker = tracker_of(20, begun=False)
    with tracker.observing():
        gone, kept = kib(1000), kib(10)
        del gone
    tracker.begin()
    with tracker.observing():
        small = kib(6)
        del small
        with pytest.raises(OverLimitError):
            kib(7)
    del kept


def test_what_the_beginning_left_over_the_limit_ends_it_at_the_next_allocation() -> None:
    tracker = tracker_of(20, begun=False)
    with tracker.observing():
        kept = kib(100)
    tracker.begin()
    with pytest.raises(OverLimitError), tracker.observing():
        kib(1)
    del kept


def test_without_a_limit_nothing_is_too_much() -> None:
    tracker = tracker_of(None)
    with tracker.observing():
        kib(10_000)
    assert tracker.bytes.peak.total == 10_000 * KIB


def test_afterwards_nobody_looks_on_and_the_tracker_counts_from_where_it_was() -> None:
    tracker = tracker_of(20)
    with pytest.raises(OverLimitError), tracker.observing(), region("experts", "1"):
        kib(17)
    assert active() is None
    assert (tracker.bytes.region, tracker.bytes.layer) == ("other", "")
    assert tracker.bytes.total == 0
    kib(100)  # nobody counts it
    tracker.begin()
    with tracker.observing(), region("gate", "1"):
        kib(12)
    assert tracker.bytes.peak.total == 12 * KIB
    assert dict(tracker.bytes.by_category)["activations"] == 12 * KIB


def test_the_allocation_that_was_too_much_is_part_of_the_peak() -> None:
    tracker = tracker_of(20)
    with pytest.raises(OverLimitError), tracker.observing(), region("experts", "1"):
        kib(17)
    assert tracker.bytes.peak.total == 17 * KIB
    assert tracker.bytes.peak.region == "experts"
