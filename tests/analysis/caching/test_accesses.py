"""Batches of accesses: distinct experts of every layer's step, prefill of a log taken together, ranks side by side."""

from pathlib import Path

from hypothesis import assume, given
from hypothesis import strategies as st

from moeprof.analysis.caching.accesses import AccessStream, stream_of
from moeprof.records.traces.formats import read_trace_file
from moeprof.records.traces.routing_trace import RoutingTrace
from tests.analysis.traces import Row, drawn_rows, trace_of

LAYERS = ("1", "3")


def trace(*rows: tuple[int, str, int, int]) -> RoutingTrace:
    """Of (step, layer, slot, expert)."""
    return trace_of([Row(step, expert, slot, layer) for step, layer, slot, expert in rows], num_experts=8, layers=LAYERS)


def batches(stream: AccessStream) -> list[tuple[str, str, list[int]]]:
    """(phase, layer, experts in order) of every batch."""
    found: dict[int, tuple[str, str, list[int]]] = {}
    for batch, phase, layer, expert in zip(
        *(column.tolist() for column in (stream.batch_N, stream.phase_N, stream.layer_N, stream.expert_N)), strict=True
    ):
        found.setdefault(batch, (stream.phases[phase], stream.layers[layer], []))[2].append(expert)
    assert list(found) == sorted(found)
    return list(found.values())


def test_a_step_of_several_tokens_uses_each_expert_once_in_the_order_of_ids() -> None:
    decode = trace_of([Row(0, 5), Row(0, 2, sequence=1), Row(0, 5, sequence=2), Row(1, 4)], num_experts=8)
    assert batches(stream_of({"decode": [decode]}, ["1"], as_logged=False)) == [
        ("decode", "1", [2, 5]),
        ("decode", "1", [4]),
    ]


def test_layers_take_turns_within_a_step_and_phases_follow_each_other() -> None:
    prefill = trace((7, "3", 0, 1), (7, "1", 0, 0))
    decode = trace((0, "1", 0, 2), (0, "3", 0, 3), (1, "1", 0, 4))
    stream = stream_of({"prefill": [prefill], "decode": [decode]}, LAYERS, as_logged=False)
    assert batches(stream) == [
        ("prefill", "1", [0]),
        ("prefill", "3", [1]),
        ("decode", "1", [2]),
        ("decode", "3", [3]),
        ("decode", "1", [4]),
    ]
    assert stream.steps_P.tolist() == [1, 2]
    assert stream.batches_PL.tolist() == [[1, 1], [2, 1]]


def test_prefill_steps_of_a_log_run_together_in_the_order_of_last_use() -> None:
    prefill = trace((0, "1", 0, 6), (0, "1", 1, 2), (1, "1", 0, 4), (1, "1", 1, 6))
    decode = trace((2, "1", 0, 7), (2, "1", 1, 0))
    stream = stream_of({"prefill": [prefill], "decode": [decode]}, ["1"], as_logged=True)
    assert batches(stream) == [("prefill", "1", [2, 4, 6]), ("decode", "1", [7, 0])]


def test_a_second_turn_of_a_log_is_a_prefill_of_its_own_between_the_decode_steps() -> None:
    prefill = trace((0, "1", 0, 1), (1, "1", 0, 2), (3, "1", 0, 3), (4, "1", 0, 1))
    decode = trace((2, "1", 0, 5), (5, "1", 0, 6))
    stream = stream_of({"prefill": [prefill], "decode": [decode]}, ["1"], as_logged=True)
    assert [experts for _, _, experts in batches(stream)] == [[1, 2], [5], [3, 1], [6]]
    assert stream.steps_P.tolist() == [2, 2]


def test_passes_that_share_one_count_run_in_its_order_and_prompts_stay_apart() -> None:
    prefill = trace((0, "1", 0, 1), (1, "1", 0, 2), (3, "1", 0, 1), (4, "1", 0, 3))
    decode = trace((2, "1", 0, 5), (4, "1", 0, 6))
    stream = stream_of({"prefill": [prefill], "decode": [decode]}, ["1"], as_logged=False, shared_steps=True)
    assert [experts for _, _, experts in batches(stream)] == [[1], [2], [5], [1], [3], [6]]


def test_ranks_take_a_step_together() -> None:
    ranks = [trace((0, "1", 0, 3), (1, "1", 0, 1)), trace((0, "1", 0, 2), (1, "1", 0, 1))]
    assert [experts for _, _, experts in batches(stream_of({"decode": ranks}, ["1"], as_logged=False))] == [[2, 3], [1]]


def test_experts_are_spread_over_devices_in_equal_blocks() -> None:
    stream = stream_of({"decode": [trace(*((step, "1", 0, step) for step in range(8)))]}, ["1"], as_logged=False)
    assert stream.device_N(4).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


@given(drawn_rows(), st.booleans())
def test_batches_hold_the_distinct_experts_of_every_step_and_layer(rows: list[Row], as_logged: bool) -> None:
    assume(rows)
    stream = stream_of({"decode": [trace_of(rows, num_experts=5, layers=LAYERS)]}, LAYERS, as_logged=as_logged)
    expected: dict[tuple[int, int], list[int]] = {}
    for row in rows:  # brute force: an expert that comes again moves to the end; what a log dropped was not read
        if as_logged and row.dropped:
            continue
        batch = expected.setdefault((row.step, LAYERS.index(row.layer)), [])
        if row.expert in batch:
            batch.remove(row.expert)
        batch.append(row.expert)
    wanted = [("decode", LAYERS[layer], expected[step, layer]) for step, layer in sorted(expected)]
    if not as_logged:
        wanted = [(phase, layer, sorted(experts)) for phase, layer, experts in wanted]
    assert batches(stream) == wanted
    assert stream.counted().sum() == len(stream) == sum(len(experts) for _, _, experts in wanted)


def test_gemmas_log_has_one_prefill_batch_per_layer(shared_data: Path) -> None:
    path = shared_data / "traces" / "gemma.route.csv"
    traces = {trace.header.phase: [trace] for trace in read_trace_file(path).traces}
    stream = stream_of(traces, [str(layer) for layer in range(30)], as_logged=True)
    assert stream.steps_P.tolist() == [1, 128]
    assert stream.counted()[:, 1].sum() == 30 * 128 * 6
    # gemma-curve.csv: a cache in which everything misses reads 92,362.0 MiB
    sizes = read_trace_file(path).expert_bytes
    read = sum(sizes[layer] * int(count) for layer, count in zip(stream.layers, stream.counted().sum(axis=(1, 2)), strict=True))
    assert round(read / 2**20, 1) == 92362.0
