"""The traffic pass keeps every collective of every round, with the step that its layer was at."""

import numpy as np
import pytest
import torch

from moeprof.instrument.probe import active
from moeprof.instrument.step import Step, make_step
from moeprof.instrument.traffic import Collective, TrafficRecorder, traffic_table
from moeprof.records.traces.traffic import COLUMNS, joined

CHOICES = torch.zeros(1, 1)


def a_step(index: int, domain: str = "prose") -> Step:
    return make_step("decode", index, domain, np.array([[7]]), np.array([[True]]), np.array([0]), 0, "cpu")


def send(layer: str, region: str, to_bytes: list[int], *times_ns: int) -> None:
    """What a collective tells whoever looks on."""
    probe = active()
    assert probe is not None
    probe.exchanged(region, layer, to_bytes, *times_ns)


def end_of(layer: str, step: Step) -> None:
    """What a layer tells."""
    probe = active()
    assert probe is not None
    probe.routed(layer, step, CHOICES.long(), CHOICES, CHOICES.bool(), 1)


def one_round() -> None:
    """Two layers in two steps."""
    for index, domain in ((4, "prose"), (5, "code")):
        for layer in ("1", "3"):
            send(layer, "a2a_dispatch", [8, 16], 10 + index, 11, 12)
            send(layer, "a2a_combine", [16, 8], 20 + index, 21, 22)
            end_of(layer, a_step(index, domain))


def test_collectives_are_kept_in_order_with_their_step_and_domain() -> None:
    recorder = TrafficRecorder()
    recorder.observing(one_round)()
    assert active() is None
    assert [(one.domain, one.step, one.layer, one.region) for one in recorder.rounds[0]] == [
        (domain, step, layer, region)
        for domain, step in (("prose", 4), ("code", 5))
        for layer in ("1", "3")
        for region in ("a2a_dispatch", "a2a_combine")
    ]
    assert recorder.rounds[0][1] == Collective("prose", 4, "1", "a2a_combine", (16, 8), 24, 21, 22)


def test_every_round_is_kept_apart() -> None:
    recorder = TrafficRecorder()
    play = recorder.observing(one_round)
    play()
    play()
    assert [len(collectives) for collectives in recorder.rounds] == [8, 8]


def test_a_layer_without_exchange_leaves_nothing() -> None:
    recorder = TrafficRecorder()
    recorder.observing(lambda: end_of("1", a_step(0)))()
    assert recorder.rounds == [[]]


def test_a_failure_leaves_no_recorder_behind() -> None:
    def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        TrafficRecorder().observing(fail)()
    assert active() is None


def test_rows_of_all_ranks_make_one_file() -> None:
    """Two episodes of two rounds of one collective each: numbers go on, and mean the same on every rank."""

    def seen_by(rank: int) -> list[list[list[Collective]]]:
        return [
            [
                [Collective(domain, step, "1", "a2a_combine", (8 + rank, 16 + rank), 100 * rank + number, 200, 300)]
                for number in range(2)
            ]
            for step, domain in enumerate(("prose", "code"))
        ]

    tables = [traffic_table(rank, "score", "static", seen_by(rank)) for rank in (0, 1)]
    assert all(table.schema == COLUMNS for table in tables)
    found = joined(tables).of("score", "static")
    assert found is not None
    assert found.domains == ["prose", "prose", "code", "code"]
    assert (found.round_C.tolist(), found.step_C.tolist()) == ([0, 1, 0, 1], [0, 0, 1, 1])
    assert found.bytes_CNN.tolist() == [[[8, 16], [9, 17]]] * 4
    assert found.start_CN.tolist() == [[0, 100], [1, 101]] * 2


def test_nothing_observed_is_an_empty_table() -> None:
    table = traffic_table(0, "score", "static", [])
    assert (table.num_rows, table.schema) == (0, COLUMNS)
