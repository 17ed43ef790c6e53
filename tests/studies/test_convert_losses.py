"""A conversion names what the target has no field for, and nothing that a reader of the target finds in the order of the tokens."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moeprof.records.traces.choice_counts import ChoiceCounts
from moeprof.records.traces.formats import FORMATS
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.importing import Stated, imported
from moeprof.records.traces.routing_trace import RoutingTrace
from moeprof.records.traces.trace_format import TraceFile
from moeprof.studies.convert_losses import lost_facts
from tests.records.traces.logged import logged, random_experts

PROMPTED = {"step_T": [0, 0, 1, 2, 3, 3, 4], "sequence_T": [0] * 4 + [1] * 3, "position_T": [0, 1, 2, 3, 0, 1, 2]}
"""Two chats of a prompt of two tokens, one after the other."""

DECODED = [False, False, True, True, False, False, True]


def talk(decoded: list[bool], **places: list[int]) -> TraceFile:
    """Seven tokens with their places."""
    choices = logged(
        random_experts(7), decode_T=np.array(decoded), **{name: np.array(values) for name, values in places.items()}
    )
    return imported(choices, Stated("made-up", "talk", experts=8), ImportOptions())


def lost(file: TraceFile, name: str) -> list[str]:
    """What a format loses."""
    return list(lost_facts(file, FORMATS[name]))


@pytest.mark.parametrize("name", ["vllm", "sglang-api", "cache-lab"])
def test_a_step_for_each_prompt_and_decoded_token_is_not_lost(name: str) -> None:
    assert lost(talk(DECODED, **PROMPTED), name) == []


@pytest.mark.parametrize(
    "step_T",
    [
        [0, 0, 2, 4, 1, 1, 3],  # both prompts first, and then a token of each in turn
        [0, 0, 1, 2, 0, 0, 1],  # both together
        [0, 1, 2, 3, 4, 4, 5],  # a prompt in two parts
        [0, 0, 1, 1, 2, 2, 3],  # two decoded tokens of a sequence in one step
    ],
)
@pytest.mark.parametrize("name", ["vllm", "sglang-api", "cache-lab"])
def test_other_steps_are_lost(name: str, step_T: list[int]) -> None:
    assert lost(talk(DECODED, **(PROMPTED | {"step_T": step_T})), name) == ["forward passes"]
    assert lost(talk(DECODED, **(PROMPTED | {"step_T": step_T})), "route-csv") == []


def test_each_phase_of_a_run_counts_its_own_steps() -> None:
    """Decoded tokens of both chats have steps 0, 1 and 2, and prompts 0 and 1."""
    file = talk(DECODED, **(PROMPTED | {"step_T": [0, 0, 0, 1, 1, 1, 2]}))
    assert lost(file, "vllm") == ["forward passes"]
    own = [RoutingTrace(trace.header.model_copy(update={"clock": None}), trace.table) for trace in file.traces]
    assert lost(TraceFile(file.name, own), "vllm") == []


def test_selections_have_the_order_of_prompts_or_that_of_the_decoded_tokens_of_one_sequence() -> None:
    prompts = {"step_T": [0, 0, 0, 0, 1, 1, 1], "sequence_T": [0] * 4 + [1] * 3, "position_T": [0, 1, 2, 3, 0, 1, 2]}
    assert lost(talk([False] * 7, **prompts), "selections") == []
    assert lost(talk([False] * 7, **(prompts | {"sequence_T": [0] * 4 + [5] * 3})), "selections") == ["numbers of sequences"]
    assert lost(talk([False] * 7, **(prompts | {"position_T": [1, 2, 3, 4, 0, 1, 2]})), "selections") == ["positions"]
    assert lost(talk([True] * 7), "selections") == []
    decoded = prompts | {"step_T": list(range(7))}
    assert lost(talk([True] * 7, **decoded), "selections") == ["numbers of sequences"]


def counts(**changes: Any) -> TraceFile:
    """Loads of two layers."""
    stated = {"layers": [0, 1], "counts": {"all": np.array([[[5, 3], [1, 4]]])}, "top_k": 1}
    return TraceFile("loads", counts=ChoiceCounts(**stated | changes))


def test_how_many_experts_a_token_uses_is_lost_beside_loads() -> None:
    for name in ("eplb", "eplb-stats", "ktransformers", "sglang-location", "count-csv", "sglang"):
        assert lost(counts(), name) == ["how many experts a token uses"]
        assert lost(counts(top_k=None), name) == []
    assert [lost(counts(), name) for name in ("counts", "load-json")] == [[], []]
    assert "how many experts a token uses" in lost(talk(DECODED, **PROMPTED), "eplb")
    assert "how many experts a token uses" not in lost(talk(DECODED, **PROMPTED), "sglang")


def test_layers_that_are_not_all_from_0_lose_their_numbers_in_a_matrix_of_layers_with_experts() -> None:
    for name in ("eplb", "eplb-stats"):
        assert lost(counts(layers=[0, 2], top_k=None), name) == ["numbers of layers"]
    assert lost(counts(layers=[0, 2], top_k=None), "ktransformers") == []


def test_the_number_of_experts_is_lost_if_the_last_one_is_never_chosen_and_no_field_states_it() -> None:
    unused = imported(
        logged(np.array([[[0, 1]], [[1, 2]]])),
        Stated("made-up", "talk", experts=8),
        ImportOptions(),
    )
    assert [lost(unused, name) for name in ("vllm", "sglang-api")] == [["the number of experts"]] * 2
    assert [lost(unused, name) for name in ("sglang", "cache-lab", "selections")] == [[]] * 3


def test_the_size_of_an_expert_is_lost_outside_route_logs() -> None:
    file = replace(talk(DECODED, **PROMPTED), expert_bytes={"0": 100})
    assert lost(file, "route-csv") == []
    assert [lost(file, name) for name in ("run", "cache-lab")] == [["bytes of an expert"]] * 2
