"""Transfer is the shortest rank's time, waiting what the others took longer; every number holds against plain loops over rows."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.analysis.timing.communication import (
    bytes_by_pair,
    communication_floor_rows,
    communication_rows,
    communication_share_rows,
    link_rows,
    share_rows,
    traffic_rows,
)
from moeprof.analysis.timing.timing import Timing
from moeprof.records.link import WITHIN, Link, Links
from moeprof.records.metrics.registry import Samples
from moeprof.records.run.raw_tables import ROUNDS, TIME, TRAFFIC
from moeprof.records.run.run import Run
from moeprof.records.traces.traffic import Collectives
from tests.records.run.runs import raw_run
from tests.records.traces.traffics import rows_of, traffic_of

SLOW = Link(sizes_bytes=[1, 1001], times_ns=[50.0, 1050.0])
"""50 ns, and a byte per ns."""

TIMED = {"comm_time", "comm_wait_time", "comm_exposed_time"}

Row = dict[str, Any]


def measured(*ops: list[Row], forced: bool = False) -> dict[tuple[str, ...], float]:
    """Values by (metric, domain, region, layer, rank, category)."""
    (collectives,) = traffic_of(*ops).collectives
    return by_place(traffic_rows("lm", collectives, forced=forced))


def by_place(samples: Iterable[Samples]) -> dict[tuple[str, ...], float]:
    """Values by (metric, domain, region, layer, rank, category)."""
    rows = [row for row, _ in samples]
    found = {(row.metric, row.domain, row.region, row.layer, row.rank, row.category): row.value for row in rows}
    assert len(found) == len(rows), "two rows have one address"
    return found


def recorded(path: Path, *ops: list[Row], links: Links | None = None, rounds: Sequence[Row] = ()) -> Run:
    """A run that recorded these collectives, and the links between its ranks."""
    run = raw_run(path, {ROUNDS: rounds})
    traffic_of(*ops).write(path / "traffic.parquet")
    if links is not None:
        links.write(path / "links.json")
    return run


def value(found: dict[tuple[str, ...], float], metric: str, rank: str = "", category: str = "", *, layer: str = "") -> float:
    """The value of the only domain, over regions."""
    return found[metric, "prose", "", layer, rank, category]


# By hand


def test_the_rank_that_came_last_waits_for_nobody_and_its_time_is_the_transfer() -> None:
    """Rank 0 starts at 100 and must wait for rank 1, which starts at 400; both are done 60 later."""
    found = measured(rows_of([[8, 24], [40, 56]], [(100, 100, 460), (400, 400, 460)]))
    assert value(found, "comm_time") == 60
    assert [value(found, "comm_wait_time", rank) for rank in ("0", "1")] == [300, 0]
    assert value(found, "comm_wait_time") == 150
    assert [value(found, "comm_exposed_time", rank) for rank in ("0", "1")] == [360, 60]
    assert value(found, "collectives") == 1


def test_ranks_need_no_common_clock() -> None:
    shifted = measured(rows_of([[8, 24], [40, 56]], [(100, 100, 460), (10**15 + 400, 10**15 + 400, 10**15 + 460)]))
    assert shifted == measured(rows_of([[8, 24], [40, 56]], [(100, 100, 460), (400, 400, 460)]))


def test_what_a_rank_does_meanwhile_is_not_exposed() -> None:
    """Rank 0 is done 10 after it began to wait, rank 1 before: its end lies ahead of its wait."""
    found = measured(rows_of([[8, 8], [8, 8]], [(100, 150, 160), (100, 190, 150)]))
    assert [value(found, "comm_exposed_time", rank) for rank in ("0", "1")] == [10, 0]
    assert value(found, "comm_time") == 50


def test_bytes_are_told_with_and_without_what_stays_on_a_rank() -> None:
    found = measured(rows_of([[8, 24], [40, 56]], [(0, 0, 9)] * 2))
    assert value(found, "comm_bytes") == 128
    assert value(found, "comm_bytes", "", "crossing") == 64
    assert [value(found, "comm_bytes", rank) for rank in ("0", "1")] == [32, 96]
    assert [value(found, "comm_bytes", rank, "crossing") for rank in ("0", "1")] == [24, 40]


def test_layers_add_up_and_steps_are_averaged() -> None:
    """Two layers in each of two steps: 10 + 30 and 20 + 40 of transfer are 50 in a step."""
    times = iter([10, 30, 20, 40])
    ops = [
        rows_of([[8]], [(0, 0, next(times))], op_id=2 * step + index, step=step, layer=layer)
        for step in (0, 1)
        for index, layer in enumerate(("1", "3"))
    ]
    found = measured(*ops)
    assert value(found, "comm_time") == 50
    assert (value(found, "comm_time", layer="1"), value(found, "comm_time", layer="3")) == (15, 35)
    assert (value(found, "comm_bytes"), value(found, "collectives")) == (16, 2)


def test_the_median_is_over_rounds_of_whole_steps() -> None:
    """Each collective by itself has the median 10, but every round took 10 + 100 in one of them."""
    ops = [
        rows_of(
            [[8]],
            [(0, 0, 100 if layer == str(round_number) else 10)],
            op_id=3 * round_number + index,
            round=round_number,
            layer=layer,
        )
        for round_number in (0, 1, 2)
        for index, layer in enumerate(("0", "1", "2"))
    ]
    found = measured(*ops)
    assert value(found, "comm_time") == 120
    assert value(found, "comm_time", layer="1") == 10


def test_raw_rounds_stand_beside_times_over_all_layers_only() -> None:
    ops = [rows_of([[8]], [(0, 0, 10 * (number + 1))], op_id=number, round=number) for number in range(3)]
    (collectives,) = traffic_of(*ops).collectives
    rows = [(row, values) for row, values in traffic_rows("lm", collectives) if row.domain and not row.rank]
    raw = {(row.metric, row.region, row.layer): values for row, values in rows}
    assert raw["comm_time", "", ""] == raw["comm_time", "a2a_dispatch", ""] == [10, 20, 30]
    assert raw["comm_time", "", "1"] == raw["comm_bytes", "", ""] == []


def test_the_share_of_a_step_is_taken_round_by_round_from_the_same_rounds() -> None:
    """10 of 100, 30 of 60 and 20 of 100 are a fifth in the median."""
    ops = [rows_of([[8]], [(0, 0, time)], op_id=number, round=number) for number, time in enumerate((10, 30, 20))]
    (collectives,) = traffic_of(*ops).collectives
    timings = [Timing("static", "prose", [100, 60, 100], 1, 1), Timing("dynamic", "prose", [1, 1, 1], 1, 1)]
    ((row, values),) = share_rows(traffic_rows("lm", collectives), timings)
    assert (row.metric, row.domain, row.value) == ("comm_share", "prose", 0.2)
    assert values == [0.1, 0.5, 0.2]


def test_the_share_of_a_run_is_of_its_observed_rounds_in_every_domain_and_over_all_of_them(tmp_path: Path) -> None:
    """10 of 100, 30 of 60 and 20 of 100 again, on the slower rank; rounds of other passes do not count."""
    ops = [rows_of([[8]], [(0, 0, time)], op_id=number, round=number) for number, time in enumerate((10, 30, 20))]
    rounds = [
        {"pass": name, "phase": "score", "variant": "static", "domain": "prose", "rank": rank, "round": index}
        | {"steps": 1, "time_ns": time_ns}
        for name, rank, times_ns in ((TRAFFIC, 0, (100, 50, 90)), (TRAFFIC, 1, (70, 60, 100)), (TIME, 0, (1, 1, 1)))
        for index, time_ns in enumerate(times_ns)
    ]
    found = list(communication_share_rows(recorded(tmp_path / "run", *ops, rounds=rounds)))
    assert {row.domain: (row.metric, row.value, values) for row, values in found} == dict.fromkeys(
        ("", "prose"), ("comm_share", 0.2, [0.1, 0.5, 0.2])
    )


def test_the_rows_of_a_run_tell_how_unevenly_its_ranks_wait(tmp_path: Path) -> None:
    """Rank 0 waits 300 in layer 1 and 30 in layer 3, rank 1 waits 0 and 10: 2 and 1.5 times the mean rank."""
    ops = [
        rows_of([[8, 8], [8, 8]], [(0, 0, 360), (300, 300, 360)], op_id=0),
        rows_of([[8, 8], [8, 8]], [(0, 0, 90), (20, 20, 90)], op_id=1, layer="3"),
        rows_of([[8, 8], [8, 8]], [(10, 10, 90), (0, 0, 90)], op_id=2, layer="3"),
        rows_of([[8, 8], [8, 8]], [(0, 0, 70), (10, 10, 70)], op_id=3, layer="3"),
    ]
    found = by_place(communication_rows(recorded(tmp_path / "run", *ops)))
    uneven = {(domain, layer): value for (name, domain, _, layer, *_), value in found.items() if name.startswith("rank_wait")}
    assert uneven == {
        (domain, layer): value for domain in ("", "prose") for layer, value in (("1", 2.0), ("3", 1.5), ("", 1.75))
    }
    assert {key: found[key] for key in measured(*ops)} == measured(*ops)


# Floors


def floors(path: Path, *ops: list[Row], links: Links | None) -> dict[tuple[str, ...], float]:
    """The rows about floors of a run that recorded these collectives, without those about the links themselves."""
    rows = communication_floor_rows(recorded(path, *ops, links=links))
    return by_place((row, values) for row, values in rows if not row.metric.startswith("link_"))


def test_the_floor_is_the_busiest_rank_s_crossing_bytes_at_the_link_s_pace(tmp_path: Path) -> None:
    """Rank 1 receives 24 + 36 = 60 bytes: more than any rank sends to others."""
    bytes_NN = [[10**6, 24, 0], [10, 10**6, 10], [5, 36, 10**6]]
    ops = rows_of(bytes_NN, [(0, 0, 218)] * 3)
    found = floors(tmp_path / "run", ops, links=Links([0, 0, 0], {WITHIN: SLOW}))
    assert value(found, "floor_time") == pytest.approx(50 + 59)
    assert value(found, "time_over_floor") == pytest.approx(218 / 109)


def test_what_crosses_nothing_has_no_floor_and_no_ratio(tmp_path: Path) -> None:
    ops = rows_of([[64, 0], [0, 64]], [(0, 0, 10)] * 2)
    found = floors(tmp_path / "run", ops, links=Links([0, 0], {WITHIN: SLOW}))
    assert value(found, "floor_time") == 0
    assert not [key for key in found if key[0] == "time_over_floor"]


def test_without_a_link_there_is_no_floor(tmp_path: Path) -> None:
    ops = rows_of([[8, 8], [8, 8]], [(0, 0, 10)] * 2)
    assert floors(tmp_path / "run", ops, links=None) == {}
    assert not [key for key in measured(ops) if key[0] in ("floor_time", "time_over_floor")]


def test_a_link_is_told_by_its_latency_and_its_bandwidth_at_every_size() -> None:
    link = Link(sizes_bytes=[8, 1000, 4000], times_ns=[40, 500, 4000])
    found = {(row.metric, row.point): row.value for row in link_rows("lm", Links([0, 0], {WITHIN: link}))}
    assert found == {
        ("link_latency", ""): 40,
        ("link_bandwidth", ""): 2e9,
        ("link_bandwidth", "message=8"): 2e8,
        ("link_bandwidth", "message=1000"): 2e9,
        ("link_bandwidth", "message=4000"): 1e9,
    }
    assert {row.category for row in link_rows("lm", Links([0, 0], {WITHIN: link}))} == {"within a machine"}


# Everything, against plain loops


@st.composite
def drawn_ops(draw: st.DrawFn) -> list[list[Row]]:
    """Rounds of the same steps; every step has a domain and some layers with one or two collectives."""
    num_ranks, num_rounds = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    steps = [
        (draw(st.sampled_from(["prose", "code"])), draw(st.sets(st.sampled_from(["1", "3"]), min_size=1))) for _ in range(3)
    ]
    number = st.integers(0, 1000)
    ops = []
    for round_number in range(num_rounds):
        for step, (domain, layers) in enumerate(steps):
            for layer in sorted(layers):
                for region in ("a2a_dispatch", "a2a_combine"):
                    starts = draw(st.lists(number, min_size=num_ranks, max_size=num_ranks))
                    times = [(start, start + draw(number), start + draw(number)) for start in starts]
                    bytes_NN = [[draw(number) for _ in range(num_ranks)] for _ in range(num_ranks)]
                    place = {"round": round_number, "step": step, "domain": domain, "layer": layer, "region": region}
                    ops.append(rows_of(bytes_NN, times, op_id=len(ops), **place))
    return ops


def oracle(ops: list[list[Row]], of: Callable[[list[Row]], float], over_rounds: Callable[[list[float]], float]) -> float:
    """`of` every collective, added up in every round, per step."""
    rounds = sorted({op[0]["round"] for op in ops})
    steps = len({op[0]["step"] for op in ops})
    return over_rounds([sum(of(op) for op in ops if op[0]["round"] == number) / steps for number in rounds])


def own_time(op: list[Row], rank: int) -> int:
    """From start to end, as one rank saw it."""
    (time,) = {row["end_ns"] - row["start_ns"] for row in op if row["rank"] == rank}
    return int(time)


def of_collective(op: list[Row], metric: str, rank: str, category: str) -> float:
    """A metric of one collective: of one rank, or over all."""
    everyone = sorted({row["rank"] for row in op})
    ranks = [int(rank)] if rank else everyone
    transfer = min(own_time(op, one) for one in everyone)
    if metric == "collectives":
        return 1
    if metric == "comm_time":
        return transfer
    if metric == "comm_wait_time":
        return fmean(own_time(op, one) - transfer for one in ranks)
    if metric == "comm_exposed_time":
        blocked = {row["rank"]: row["end_ns"] - row["wait_ns"] for row in op}
        return fmean(max(blocked[one], 0) for one in ranks)
    assert metric == "comm_bytes"
    sent = [row for row in op if row["source"] in ranks and (not category or row["source"] != row["destination"])]
    return sum(row["bytes"] for row in sent)


@settings(max_examples=30, deadline=None)
@given(drawn_ops())
def test_every_number_is_what_plain_loops_over_the_rows_find(ops: list[list[Row]]) -> None:
    found = measured(*ops)
    domains = {op[0]["domain"] for op in ops}
    for (metric, domain, region, layer, rank, category), number in found.items():
        wanted = {"domain": domain, "region": region, "layer": layer}
        here = [op for op in ops if all(name in ("", op[0][key]) for key, name in wanted.items())]
        of = partial(of_collective, metric=metric, rank=rank, category=category)
        expected = oracle(here, of, median if metric in TIMED else fmean)
        assert number == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert {key[1] for key in found} == {*domains, ""}
    for rank in {str(row["rank"]) for op in ops for row in op}:
        places = {(domain, region, layer) for metric, domain, region, layer, at, _ in found if at == rank}
        regions, layers = (("", *{op[0][key] for op in ops}) for key in ("region", "layer"))
        wholes = ["", *(domains if len(domains) == 1 else ())]
        assert places == {(whole, region, "") for whole in wholes for region in regions} | {
            (whole, "", layer) for whole in wholes for layer in layers
        }


@settings(max_examples=20, deadline=None)
@given(drawn_ops())
def test_transfer_and_waiting_add_up_to_every_rank_s_own_time(ops: list[list[Row]]) -> None:
    one_round = [op for op in ops if op[0]["round"] == 0]
    found = measured(*one_round)
    for rank in {row["rank"] for row in one_round[0]}:
        waiting = found["comm_wait_time", "", "", "", str(rank), ""]
        assert waiting >= 0
        whole = oracle(one_round, partial(own_time, rank=rank), fmean)
        assert found["comm_time", "", "", "", "", ""] + waiting == pytest.approx(whole)


@settings(max_examples=20, deadline=None)
@given(drawn_ops())
def test_bytes_by_pair_are_those_of_a_step(ops: list[list[Row]]) -> None:
    (collectives,) = traffic_of(*ops).collectives
    by_pair = bytes_by_pair(collectives)
    for source, destination in np.ndindex(by_pair.shape):

        def sent(op: list[Row], pair: tuple[int, int] = (source, destination)) -> int:
            return sum(row["bytes"] for row in op if (row["source"], row["destination"]) == pair)

        assert by_pair[source, destination] == pytest.approx(oracle(ops, sent, fmean))


def test_rows_carry_the_whole_address_and_say_when_routing_was_forced() -> None:
    (collectives,) = traffic_of(rows_of([[8]], [(0, 0, 1)], variant="dynamic", point="batch=4", phase="decode")).collectives
    rows = [row for row, _ in traffic_rows("mt", collectives, forced=True)]
    assert {(row.workload, row.phase, row.variant, row.point) for row in rows} == {("mt", "decode", "dynamic", "batch=4")}
    assert {row.kind for row in rows if row.metric == "comm_bytes"} == {"forced"}
    assert {row.kind for row in rows if row.metric in TIMED} == {"timed"}


def test_a_large_file_is_summed_without_loops_over_rows() -> None:
    """A long decoding: as many numbers as places, not as collectives."""
    num_ops = 3000
    ones = np.ones((num_ops, 2), np.int64)
    collectives = Collectives(
        *("decode", "static", ""),
        *(["prose"] * num_ops, ["1"] * num_ops, ["a2a_combine"] * num_ops),
        round_C=np.zeros(num_ops, np.int64),
        step_C=np.arange(num_ops),
        bytes_CNN=np.ones((num_ops, 2, 2), np.int64),
        start_CN=0 * ones,
        wait_CN=0 * ones,
        end_CN=7 * ones,
    )
    rows = {(row.metric, row.region, row.layer, row.rank): row.value for row, _ in traffic_rows("mt", collectives)}
    assert (rows["comm_time", "", "", ""], rows["comm_wait_time", "", "", "1"]) == (7, 0)
