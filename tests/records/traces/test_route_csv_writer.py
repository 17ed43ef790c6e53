"""A trace that is written as a route log is read again with the same decisions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.records.errors import UsageError
from moeprof.records.traces.formats import read_trace_file
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.importing import Stated, imported
from moeprof.records.traces.route_csv_writer import write_route_file
from moeprof.records.traces.routing_trace import RoutingTrace
from moeprof.records.traces.trace_format import TraceFile
from tests.analysis.traces import Row, trace_of
from tests.records.traces.logged import logged, random_experts


def rows_of(trace: RoutingTrace) -> list[dict[str, Any]]:
    """The rows, with an unknown weight as None."""
    return [row | {"weight": None if np.isnan(row["weight"]) else row["weight"]} for row in trace.table.to_pylist()]


def assert_same(file: TraceFile, folder: Path) -> None:
    """Written and read again it has the same rows, and what is known of the model."""
    write_route_file(file, folder / "talk.route.csv")
    again = read_trace_file(folder / "talk.route.csv")
    assert [trace.header.phase for trace in again.traces] == [trace.header.phase for trace in file.traces]
    for one, other in zip(again.traces, file.traces, strict=True):
        assert rows_of(one) == rows_of(other)
        facts = ("num_experts", "top_k", "layers", "workload", "clock")
        assert one.header.model_dump(include={*facts}) == other.header.model_dump(include={*facts})
    assert (again.expert_bytes, again.experts_guessed) == (file.expert_bytes, file.experts_guessed)


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    layers=st.integers(1, 3),
    top_k=st.integers(1, 3),
    prompt=st.integers(0, 4),
    batched=st.booleans(),
    passes=st.booleans(),
    seed=st.integers(0, 99),
)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[int],
    layers: int,
    top_k: int,
    prompt: int,
    batched: bool,
    passes: bool,
    seed: int,
) -> None:
    drawn = np.random.default_rng(seed)
    later_K = np.arange(top_k) > 0  # a phase whose choices were all dropped is refused
    sequence_T = np.repeat(np.arange(len(lengths)), lengths)
    position_T = np.concatenate([np.arange(length) for length in lengths])
    choices = logged(
        random_experts(len(sequence_T), layers, top_k, seed=seed),
        layers=[f"enc.{layer + 2}" for layer in range(layers)] if seed % 2 else range(3, 3 + layers),
        step_T=position_T if batched else np.arange(len(sequence_T)),
        sequence_T=sequence_T,
        position_T=position_T,
        decode_T=position_T >= prompt,
        token_id_T=drawn.integers(0, 9, len(sequence_T)) if seed % 3 else None,
        weights_TLK=drawn.random((len(sequence_T), layers, top_k)) if seed % 5 else None,
        domain_T=sequence_T % 2,
        domains=["code, C", "prose"],
        dropped_TLK=later_K & (drawn.random((len(sequence_T), layers, top_k)) < (0.3 if seed % 7 else 0)),
    )
    stated = Stated("made-up", "talk", experts=9, expert_bytes={"3": 40}, clock="pass" if passes or batched else "token")
    file = imported(choices, stated, ImportOptions(keep_padding=True))
    assert_same(file, tmp_path_factory.mktemp("again"))


def test_phases_of_a_run_count_their_own_steps_when_they_are_read_again(tmp_path: Path) -> None:
    header, table = (one := trace_of([Row(0, 1)])).header, one.table
    phases = [RoutingTrace(header.model_copy(update={"phase": phase}), table) for phase in ("prefill", "decode")]
    assert_same(TraceFile("talk", phases), tmp_path)


def test_a_log_carries_what_an_earlier_import_left_out(tmp_path: Path) -> None:
    padded = random_experts(9)
    padded[5:] = padded[4]
    places = np.minimum(np.arange(9), 4)
    stated = Stated("made-up", "talk", experts=8, notes=["a remark with # and\na second line"])
    file = imported(logged(padded, step_T=places, position_T=places), stated, ImportOptions())
    write_route_file(file, path := tmp_path / "talk.route.csv")
    assert file.report is not None
    assert file.report.padding == 8
    assert read_trace_file(path).report == file.report
    for _ in range(2):
        write_route_file(read_trace_file(path), path)
    assert read_trace_file(path).report == file.report
    path.write_text(path.read_text().replace('"padding":8', '"padding":-8'))
    with pytest.raises(UsageError, match="padding: must be greater than or equal to 0"):
        read_trace_file(path)


def test_traces_of_two_ranks_or_of_another_phase_have_no_place_in_one_log(tmp_path: Path) -> None:
    (trace,) = imported(logged(random_experts(3)), Stated("made-up", "talk"), ImportOptions()).traces
    with pytest.raises(UsageError, match="talk has several traces of phase decode"):
        write_route_file(TraceFile("talk", [trace, trace]), tmp_path / "a.route.csv")
    odd = RoutingTrace(trace.header.model_copy(update={"phase": "dream"}), trace.table)
    with pytest.raises(UsageError, match="a route log has no phase 'dream'"):
        write_route_file(TraceFile("talk", [odd]), tmp_path / "a.route.csv")
    assert not list(tmp_path.iterdir())


def test_the_log_of_gemma_is_read_again(shared_data: Path, tmp_path: Path) -> None:
    assert_same(replace(read_trace_file(shared_data / "traces" / "gemma.route.csv"), name="gemma"), tmp_path)
