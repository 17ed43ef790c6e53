"""Dumps of SGLang's recorder: counts and choices in every mode, of one rank or several, and what a dump cannot say."""

import json
import os
import pickle
import zipfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.errors import UsageError
from moeprof.records.traces.choice_counts import ALL_DOMAINS, ChoiceCounts
from moeprof.records.traces.dumps.sglang import SGLANG, write_dump
from moeprof.records.traces.formats import files_in
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.layer_map import LayerMap
from moeprof.records.traces.routing_trace import RoutingTrace
from moeprof.records.traces.trace_format import TraceFile
from moeprof.reporters.documents.answers.traced import answer
from moeprof.studies.characterize_trace import characterize_trace, read_recorded
from moeprof.studies.convert import convert
from moeprof.studies.replay.loads import read_loads
from tests.analysis.traces import Row, drawn_rows, trace_of
from tests.records.traces.dumps.dumped import fault, loads, notes, per_pass, per_token, read, recording, sample, saved

MAP = [[0, 1, 2, 3, 0, 1]] * 2
"""Four experts, the first two of them twice, in a dense layer and one with experts."""

NONE: list[list[int]] = [[], [], []]


def stat(path: Path, counts: Any, **changes: Any) -> Path:
    document = {
        "rank": 0,
        "logical_count": torch.tensor(counts, dtype=torch.int32),
        "average_utilization_rate_over_window": None,
    }
    return saved(path, document | changes)


@pytest.mark.parametrize("mode", ["stat", "stat_infinite", "stat_approx", "per_pass", "per_token"])
def test_real_dumps_have_their_true_counts(mode: str) -> None:
    truth = json.loads(sample("sglang/truth.json").read_text())[mode]
    found = loads(read(sample(f"sglang/{mode}/*.pt")))
    assert [found.get(layer, [0] * 8) for layer in range(4)] == truth


def test_the_steps_of_a_ring_are_those_before_its_empty_end(tmp_path: Path) -> None:
    file = read(stat(tmp_path / "a.pt", [[[0, 0], [3, 1]], [[0, 0], [2, 2]], [[0, 0], [0, 0]]]), top_k=1)
    assert file.counts is not None
    assert (file.counts.layers, file.counts.top_k) == ([1], 1)
    assert file.counts.counts[ALL_DOMAINS].tolist() == [[[3, 1]], [[2, 2]]]
    assert notes(file) == []


def test_a_ring_without_an_empty_row_may_have_wrapped_and_one_with_a_gap_began_in_its_middle(tmp_path: Path) -> None:
    (full,) = notes(read(stat(tmp_path / "a.pt", [[[3, 1]], [[2, 2]]])))
    assert "if it was a ring that wrapped" in full
    assert "the passes before the last 2 are missing" in full
    (gap,) = notes(read(stat(tmp_path / "b.pt", [[[3, 1]], [[0, 0]], [[2, 2]]])))
    assert gap.startswith("1 forward passes between others have no choices")
    assert notes(read(stat(tmp_path / "c.pt", [[[0, 0]], [[3, 1]], [[2, 2]]]))) == []
    assert full in read_loads(tmp_path / "a.pt").notes
    run = characterize_trace(read_recorded([tmp_path / "a.pt"]), tmp_path / "run")
    assert answer(run, RunMetrics.of(run)).light.reasons[0] == f"The order of steps may be lost: {full}."


def test_passes_are_mapped_and_summed_over_ranks_and_overlapping_batches(tmp_path: Path) -> None:
    dense = [0] * 6
    one = recording(tmp_path / "a_0.pt", [per_pass(7, [dense, [1, 2, 3, 4, 5, 6]]), per_pass(8, [dense, [1] * 6])], MAP)
    halves = [per_pass(7, [dense, [1, 0, 0, 0, 0, 0]]), per_pass(7, [dense, [0, 0, 0, 0, 0, 2]]), per_pass(8, [dense, dense])]
    other = recording(tmp_path / "a_1.pt", halves, MAP, rank=1)
    file = read(one, other)
    assert file.counts is not None
    assert file.counts.counts[ALL_DOMAINS].tolist() == [[[7, 10, 3, 4]], [[2, 2, 1, 1]]]
    assert "mapped by the map at the end" in notes(file)[0]
    physical = read(one, physical=True)
    assert loads(physical) == {1: [2, 3, 4, 5, 6, 7]}
    assert notes(physical) == ["ids are those of physical experts"]


def test_choices_are_mapped_padding_is_left_out_and_phases_are_apart(tmp_path: Path) -> None:
    prompts = per_token(3, [NONE, [[4, 2], [5, 3], [1, 0]]], extend_seq_lens=[2, 1], positions=[0, 1, 0])
    decode = per_token(4, [NONE, [[0, 1], [], [3, 2]]], mode=2, positions=[2, 0, 1], global_physical_count=None)
    file = read(recording(tmp_path / "a.pt", [prompts, decode], MAP))
    rows = [
        [(row["step"], row["sequence"], row["position"], row["token_id"], row["expert"]) for row in trace.table.to_pylist()]
        for trace in file.traces
    ]
    assert [trace.header.phase for trace in file.traces] == ["prefill", "decode"]
    assert rows[0] == [
        (0, 0, 0, 100, 0),
        (0, 0, 0, 100, 2),
        (0, 0, 1, 101, 1),
        (0, 0, 1, 101, 3),
        (0, 1, 0, 102, 1),
        (0, 1, 0, 102, 0),
    ]
    assert rows[1] == [(1, 0, 2, 100, 0), (1, 0, 2, 100, 1), (1, 2, 1, 102, 3), (1, 2, 1, 102, 2)]
    assert {(trace.header.num_experts, trace.header.top_k, *trace.header.layers) for trace in file.traces} == {(4, 2, "1")}
    assert file.report is not None
    assert (file.report.kept, file.report.padding) == (5, 1)


def test_physical_ids_and_token_ids_are_kept_or_left_out_as_wished(tmp_path: Path) -> None:
    path = recording(tmp_path / "a.pt", [per_token(3, [NONE, [[4, 2], [5, 3], [1, 0]]])], MAP)
    (trace,) = read(path, physical=True, strip_tokens=True).traces
    assert trace.column("expert").tolist() == [4, 2, 5, 3, 1, 0]
    assert trace.header.num_experts == 6
    assert set(trace.column("token_id").tolist()) == {-1}


def test_a_mixed_batch_has_prompts_and_decoded_tokens(tmp_path: Path) -> None:
    ids = [[[], [], [], []], [[0], [1], [2], [3]]]
    mixed = per_token(3, ids, mode=3, extend_seq_lens=[2, 1, 1], positions=[0, 1, 9, 0])
    prefill, decode = read(recording(tmp_path / "a.pt", [mixed], MAP)).traces
    assert prefill.column("expert").tolist() == [0, 1, 3]
    assert decode.column("expert").tolist() == [2]
    assert decode.column("sequence").tolist() == [1]


def test_ranks_with_other_tokens_follow_each_other_and_copies_count_once(tmp_path: Path) -> None:
    first = recording(tmp_path / "a_0.pt", [per_token(3, [[[]], [[0, 1]]])], MAP)
    other = recording(tmp_path / "a_1.pt", [per_token(3, [[[]], [[2, 3]]])], MAP, rank=1)
    (trace,) = read(first, other).traces
    assert trace.column("sequence").tolist() == [0, 0, 1, 1]
    assert trace.column("expert").tolist() == [0, 1, 2, 3]
    copied = read(first, recording(tmp_path / "a_2.pt", [per_token(3, [[[]], [[0, 1]]])], MAP, rank=2))
    assert len(copied.traces[0]) == 2
    assert "1 ranks recorded the same choices as another; they count once" in notes(copied)


def test_two_copies_of_an_expert_are_two_choices_and_are_reported(tmp_path: Path) -> None:
    file = read(recording(tmp_path / "a.pt", [per_token(3, [[[]], [[1, 5]]])], MAP))
    assert loads(file) == {1: [0, 2, 0, 0]}
    assert notes(file)[0].startswith("1 rows have two copies of one expert")


def test_two_copies_of_an_expert_are_kept_by_a_format_that_may_have_them_and_refused_by_others(tmp_path: Path) -> None:
    path = recording(tmp_path / "a.pt", [per_token(3, [[[]], [[1, 5]]])], MAP)
    for target in ("route-csv", "sglang", "run"):
        convert([path], out := tmp_path / target, target=target, options=ImportOptions())
        again = read(*files_in(out))
        assert again.traces[0].column("expert").tolist() == [1, 1]
        assert again.traces[0].header.imported is not None
        assert again.traces[0].header.imported.repeated == 1
    for target in ("vllm", "sglang-api", "cache-lab", "selections"):
        with pytest.raises(
            UsageError, match=f"1 rows have two copies of one expert, and in {target} a token's experts differ"
        ) as caught:
            convert([path], tmp_path / target, target=target, options=ImportOptions())
        offered = caught.value.remedy.removeprefix("Choose another format with --to: ").removesuffix(".").split(", ")
        assert {"route-csv", "sglang", "run", "counts"} < set(offered)
        assert not {"vllm", "sglang-api", "cache-lab", "selections"} & set(offered)


DENSE = [0] * 6
GOOD = per_token(3, [[[]], [[0, 1]]])


@pytest.mark.parametrize(
    ("records", "mapped", "why"),
    [
        ([], MAP, "no records in it"),
        ([per_pass(1, [DENSE, DENSE])], MAP, "no choices in it"),
        ([per_pass(1, [DENSE])], MAP, "global_physical_count of forward pass 1 is not a count of 6 experts in 2 layers"),
        ([per_pass(1, [DENSE, [-1, 0, 0, 0, 0, 0]])], MAP, "is not a count of 6 experts"),
        ([{"rank": 0}], MAP, "record 0 has no forward_pass_id"),
        ([GOOD, per_pass(4, [DENSE, DENSE])], MAP, "record 1 is of another mode than the first"),
        ([GOOD], [[0, 1, 2, 9, 0, 1]] * 2, "has values that are not ids of at most 6 experts"),
        ([per_token(3, [[[]], [[0, 6]]])], MAP, "forward pass 3: expert 6 is not one of 6 physical experts"),
        ([per_token(3, [[[]], [[0, -1, 1]]])], MAP, "the experts at position 0 of sequence 0, layer 1 are [0, -1, 1]"),
        ([per_token(3, [[[], []], [[0, 1], [0]]])], MAP, "the experts at position 1 of sequence 0, layer 1 are [0, -1]"),
        ([per_token(3, [[[]], [[]]])], MAP, "no choices in it"),
        (
            [per_token(3, [[[]], [[0, 1]], [[0, 1]]])],
            MAP,
            "forward pass 3: topk_ids_of_layer has 3 layers and 1 tokens, not 2 and 1",
        ),
        ([GOOD | {"input_ids": [1.5]}], MAP, "forward pass 3: input_ids is no list of whole numbers"),
        ([GOOD | {"positions": [1, 2]}], MAP, "2 positions do not belong to 1 tokens"),
        ([GOOD | {"extend_seq_lens": [3]}], MAP, "extend_seq_lens has 3 tokens, not 1"),
        (
            [GOOD | {"topk_ids_of_layer": torch.zeros(2, 1, 8)}],
            MAP,
            "topk_ids_of_layer of forward pass 3 is no array of whole numbers",
        ),
        ([GOOD | {"forward_mode": None}], MAP, "forward pass 3: forward_mode is no number"),
    ],
)
def test_a_damaged_recording_is_refused(tmp_path: Path, records: Any, mapped: Any, why: str) -> None:
    assert why in fault(recording(tmp_path / "a.pt", records, mapped))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"logical_count": torch.zeros(2, 2, 2, dtype=torch.int32)}, "no choices in it"),
        ({"logical_count": torch.ones(2, 2, dtype=torch.int32)}, "has the shape (2, 2), but 3 dimensions are needed"),
        ({"logical_count": torch.ones(2, 2, 2)}, "is of type float32, not of whole numbers"),
        ({"logical_count": torch.zeros(0, 2, 2, dtype=torch.int32)}, "is empty"),
        ({"logical_count": [1]}, "logical_count is no array of numbers"),
        ({"logical_count": -torch.ones(1, 2, 2, dtype=torch.int32)}, "has a count that is negative"),
        ({"logical_count": torch.ones(1, 1, 1, dtype=torch.int32).expand(2**15, 2**9, 2**14)}, "of memory are free"),
        (
            {"logical_count": torch.ones(1, 1, 1, dtype=torch.int32).expand(2, 2, 2**17)},
            "more than 10,000 layers or 65,536 experts",
        ),
    ],
)
def test_counts_that_are_none_are_refused(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    assert why in fault(stat(tmp_path / "a.pt", [[[1]]], **changes))


def test_what_the_user_states_must_fit(tmp_path: Path) -> None:
    path = stat(tmp_path / "a.pt", [[[0, 0], [3, 1], [1, 3]]])
    assert "it has 2 experts, but --experts states 3" in fault(path, experts=3)
    assert "layer 1 has choices, but the model has no experts there" in fault(path, layers=LayerMap((0, 2), 3))
    assert "it has 3 layers, but the model has 5" in fault(path, layers=LayerMap((1, 2), 5))
    assert notes(read(path, layers=LayerMap((0, 1, 2), 3))) == ["layer 0 has experts, but no choices"]
    choices = recording(tmp_path / "b.pt", [GOOD], MAP)
    assert "a token has 2 choices, not 3 as stated" in fault(choices, top_k=3)


@pytest.mark.parametrize(
    ("options", "flag"),
    [({"layers": LayerMap((1, 2, 3))}, "--layers"), ({"experts": 3}, "--experts"), ({"top_k": 1}, "--top-k")],
)
def test_the_remedy_of_a_wrong_option_names_the_option(tmp_path: Path, options: dict[str, Any], flag: str) -> None:
    path = recording(tmp_path / "a.pt", [GOOD], MAP)
    with pytest.raises(UsageError) as caught:
        read(path, **options)
    assert flag in caught.value.remedy
    assert "recorder" not in caught.value.remedy


def test_files_that_are_not_the_ranks_of_one_recording_are_refused(tmp_path: Path) -> None:
    first = recording(tmp_path / "a_0.pt", [per_pass(7, [DENSE, [1] * 6])], MAP)
    other = recording(tmp_path / "a_1.pt", [per_pass(7, [DENSE, [1] * 6]), per_pass(8, [DENSE, [1] * 6])], MAP, rank=1)
    assert f"only {other} has forward pass 8; further such passes: 0" in fault(first, other)
    moved = recording(tmp_path / "b.pt", [per_pass(7, [DENSE, [1] * 6])], [[1, 0, 2, 3, 0, 1]] * 2, rank=1)
    assert "has another map of physical experts" in fault(first, moved)
    assert "is of another mode" in fault(first, recording(tmp_path / "c.pt", [GOOD | {"forward_pass_id": 7}], MAP, rank=1))
    counts = stat(tmp_path / "d.pt", [[[1]]])
    assert "it is the only file of a recording" in fault(counts, counts)


def test_a_rank_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    """A copy would count twice, and another recording has other tokens under the same numbers of forward passes."""
    (tmp_path / "both").mkdir()
    counts = [per_pass(7, [DENSE, [1] * 6])]
    one, copy = (recording(tmp_path / "both" / name, counts, MAP) for name in ("a.pt", "b.pt"))
    with pytest.raises(UsageError) as caught:
        read(*files_in(tmp_path / "both"))
    assert str(caught.value) == f"SGLang dump {copy}: rank 0 is given twice, also in {one}\nGive each rank's file once."
    assert "rank 0 is given twice" in fault(one, one)
    chosen = [recording(tmp_path / f"{name}.pt", [per_token(3, [[[]], [[name, 3]]])], MAP, rank=1) for name in (0, 1)]
    assert f"rank 1 is given twice, also in {chosen[0]}" in fault(*chosen)


def test_a_map_of_which_a_layer_lacks_an_expert_of_another_is_refused(tmp_path: Path) -> None:
    """Physical expert 0 of layer 1 is said to be expert 4, of which layer 0 has no copy."""
    path = recording(tmp_path / "a.pt", [per_pass(7, [DENSE, [1] * 6])], [MAP[0], [4, 1, 2, 3, 0, 1]])
    assert "contradicts itself: layer 1 has expert 4, but layer 0 has no copy of expert 4" in fault(path)
    assert loads(read(path, physical=True)) == {1: [1] * 6}


class Hostile:
    """What a pickle would run when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("hostile",)


def test_a_pickle_with_code_is_refused_and_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    what = fault(saved(tmp_path / "a.pt", {"forward_pass_id": Hostile()}))
    assert "a pickle that calls posix.mkdir, which is not run: only tensors are read (weights_only)" in what
    assert not (tmp_path / "hostile").exists()


def test_truncated_packed_and_foreign_archives_are_refused(tmp_path: Path) -> None:
    whole = stat(tmp_path / "a.pt", [[[1, 2]]] * 50).read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[:-200])
    assert "a damaged or truncated PyTorch file" in fault(tmp_path / "cut.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as source, zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for member in source.namelist():
            packed.writestr(member, source.read(member))
    assert "compressed members, which torch.save does not write" in fault(tmp_path / "b.pt", named="sglang")
    (tmp_path / "c.pt").write_bytes(pickle.dumps({"logical_count": [1]}))
    assert "a Python pickle" in fault(tmp_path / "c.pt")
    assert "it has neither logical_count nor records" in fault(saved(tmp_path / "d.pt", [1]), named="sglang")


@settings(deadline=None, max_examples=25)
@given(st.data(), st.integers(1, 4), st.integers(1, 3), st.integers(1, 5))
def test_counts_that_are_written_are_read_again(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, num_steps: int, num_layers: int, num_experts: int
) -> None:
    cells = st.lists(st.integers(1, 2**33), min_size=num_experts, max_size=num_experts)
    counts_SLE = np.array([[data.draw(cells) for _ in range(num_layers)] for _ in range(num_steps)])
    counts = ChoiceCounts(list(range(1, 2 * num_layers, 2)), {ALL_DOMAINS: counts_SLE})
    write_dump(TraceFile("x", counts=counts), path := tmp_path_factory.mktemp("written") / "a.pt")
    again = read(path).counts
    assert again is not None
    assert again.layers == counts.layers
    assert (again.counts[ALL_DOMAINS] == counts_SLE).all()


@settings(deadline=None, max_examples=25)
@given(drawn_rows().filter(bool))
def test_choices_that_are_written_are_read_again(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    trace = trace_of([row._replace(domain="a") for row in rows], num_experts=5, layers=("1", "3"))
    write_dump(TraceFile("x", [trace]), tmp_path_factory.getbasetemp() / "a.pt")
    (again,) = read(tmp_path_factory.getbasetemp() / "a.pt").traces
    assert chosen(again) == chosen(trace)


def chosen(trace: RoutingTrace) -> list[tuple[int, str, int, list[int]]]:
    """The choices of every token and layer: the place of its step among all, layer, position, and experts by slot."""
    steps, found = sorted(set(trace.column("step").tolist())), defaultdict(dict)
    for row in trace.table.to_pylist():
        found[row["step"], row["layer"], row["position"], row["sequence"]][row["slot"]] = row["expert"]
    return sorted(
        (steps.index(step), layer, position, [experts[slot] for slot in sorted(experts)])
        for (step, layer, position, _), experts in found.items()
    )


def test_a_dump_is_written_pass_by_pass_as_it_was_recorded(tmp_path: Path) -> None:
    """A prompt, a decoded token, the prompt of another request beside a decoded token, and two decoded tokens."""
    one, two = [[], []], [[[], []], [[0, 1], [2, 3]]]
    records = [
        per_token(1, [[[]], [[0, 1]]]),
        per_token(2, [[[]], [[1, 2]]], mode=2, positions=[1]),
        per_token(3, [[[]] * 3, [[0, 2], [1, 3], [2, 0]]], mode=3, positions=[0, 1, 2], extend_seq_lens=[2, 1]),
        per_token(4, [one, [[0, 1], [2, 3]]], mode=2, positions=[2, 3]),
        per_token(5, two, mode=2, positions=[3, 4]),
    ]
    first = read(recording(tmp_path / "a.pt", records, [[0, 1, 2, 3]] * 2))
    assert first.shared_steps
    write_dump(first, tmp_path / "b.pt")
    again = read(tmp_path / "b.pt")
    assert [one.column("step").tolist() for one in again.traces] == [[0, 0, 2, 2, 2, 2], [1, 1, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4]]
    for one, other in zip(again.traces, first.traces, strict=True):
        kept = ["step", "position", "token_id", "slot", "expert"]
        rows, wanted = (trace.table.select(kept).to_pylist() for trace in (one, other))
        assert sorted(rows, key=str) == sorted(wanted, key=str)


def test_a_later_request_at_a_place_of_the_batch_is_another_sequence(tmp_path: Path) -> None:
    """Two requests, then a third one at the place of the first, beside the second one; padding at a place begins nothing."""
    one, two = [[], []], [[[], []], [[0, 1], [2, 3]]]
    records = [
        per_token(1, [[[]] * 3, [[0, 1], [2, 3], [0, 3]]], positions=[0, 1, 0], extend_seq_lens=[2, 1]),
        per_token(2, two, mode=2, positions=[2, 1]),
        per_token(3, [[[]], [[1, 2]]]),
        per_token(4, two, mode=2, positions=[1, 2]),
        per_token(5, [one, [[0, 1], []]], mode=2, positions=[2, 0]),
        per_token(6, two, mode=2, positions=[3, 3]),
    ]
    prefill, decode = read(recording(tmp_path / "a.pt", records, MAP)).traces
    assert prefill.column("sequence")[::2].tolist() == [0, 0, 1, 2]
    assert decode.column("sequence")[::2].tolist() == [0, 1, 2, 1, 2, 2, 1]
    assert decode.column("position")[::2].tolist() == [2, 1, 1, 2, 2, 3, 3]


def test_what_the_recorder_cannot_hold_is_not_written(tmp_path: Path) -> None:
    wide = trace_of([Row(0, expert, slot=expert) for expert in range(9)], num_experts=9)
    assert SGLANG.write is not None
    with pytest.raises(UsageError, match="9 choices of a token"):
        SGLANG.write(TraceFile("x", [wide]), tmp_path / "a.pt")
    with pytest.raises(UsageError, match=r"layer 'dec\.1' has no number"):
        SGLANG.write(TraceFile("x", [trace_of([Row(0, 1, layer="dec.1")], layers=("dec.1",))]), tmp_path / "a.pt")
