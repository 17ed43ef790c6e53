"""JSON of studies of gpt-oss, token by token and layer by layer, becomes a trace."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moeprof.records.errors import UsageError
from moeprof.records.traces.formats import read_trace_file
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.layer_map import LayerMap
from tests.records.traces.logged import random_experts

CHOSEN = random_experts(3, 2)


def layers_of(token: int, **others: Any) -> dict[str, Any]:
    return {
        f"layer_{layer}": {"selected_experts": CHOSEN[token, at].tolist(), "selected_probs": [0.75, 0.25]} | others
        for at, layer in enumerate((2, 10))
    }


def document(*extra: Any) -> dict[str, Any]:
    return {"prompt": "x", "router_data": [*({f"token_{token}": layers_of(token)} for token in range(3)), *extra]}


def saved(folder: Path, content: object) -> Path:
    (path := folder / "talk.json").write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("content", [document(), {"router_data": [{f"token_{token}": layers_of(token) for token in range(3)}]}])
def test_every_token_is_a_step(tmp_path: Path, content: object) -> None:
    (trace,) = read_trace_file(saved(tmp_path, content)).traces
    assert (trace.header.phase, trace.header.layers, trace.header.top_k) == ("decode", ["2", "10"], 2)
    assert trace.column("expert").tolist() == CHOSEN.ravel().tolist()
    assert trace.column("step")[::4].tolist() == [0, 1, 2]
    assert set(trace.column("weight")) == {0.75, 0.25}


def test_every_prompt_of_a_list_is_a_sequence(tmp_path: Path) -> None:
    (trace,) = read_trace_file(saved(tmp_path, [document(), document()])).traces
    assert trace.column("sequence")[::4].tolist() == [0, 0, 0, 1, 1, 1]
    assert trace.column("position")[::4].tolist() == [0, 1, 2, 0, 1, 2]


def test_probabilities_are_those_of_all_prompts_or_of_none(tmp_path: Path) -> None:
    without = {"router_data": [{f"token_{token}": layers_of(token, selected_probs=None)} for token in range(3)]}
    (trace,) = read_trace_file(saved(tmp_path, [document(), without])).traces
    assert np.isnan(trace.column("weight")).all()
    assert trace.column("expert").tolist() == 2 * CHOSEN.ravel().tolist()


@pytest.mark.parametrize(
    ("content", "options", "reason"),
    [
        (document(5), {}, "not an object with the keys token_0, token_1"),
        (document({"token_3": []}), {}, "not an object with the keys layer_0, layer_1"),
        (document({"token_3": {"layer_2": {}}}), {}, "token_3 has no selected_experts in layer_2"),
        (
            document({"token_3": layers_of(0, selected_experts=[1])}),
            {},
            "not every token has the same number of selected_experts",
        ),
        (
            {"router_data": [{"token_0": {"layer_2": {"selected_experts": [1]}}}]},
            {},
            "its parts have 1 and 2 choices of a token",
        ),
        (document({"token_3": layers_of(0, selected_experts=[1, 1.5])}), {}, "selected_experts is not a list of numbers"),
        (document({"token_3": layers_of(0, selected_experts=[1, True])}), {}, "selected_experts is not a list of numbers"),
        (document({"token_3": layers_of(0, selected_experts=3)}), {}, "selected_experts is not a list of numbers"),
        (
            document({"token_3": layers_of(0, selected_experts=[1, 10**30])}),
            {},
            "selected_experts has a number of too many digits",
        ),
        (document({"token_3": layers_of(0, selected_probs=[0.5, "x"])}), {}, "selected_probs is not a list of numbers"),
        (
            document({"token_3": layers_of(0, selected_probs=[0.5, 10**400])}),
            {},
            "selected_probs has a number of too many digits",
        ),
        (
            document({"token_3": layers_of(0, selected_experts=[1, 2**40])}),
            {},
            "selected_experts has a number that is no expert",
        ),
        (document({"token_3": layers_of(0, selected_experts=[1, 1])}), {}, "expert 1 occurs twice among a token's choices"),
        (document({"token_2": layers_of(0)}), {}, "position 2 has two rows in layer 2"),
        (document({"token_3": {"layer_99999": {}}}), {}, "layer_99999 is not below 10,000"),
        (document() | {"router_data": 5}, {}, "router_data is not a list of tokens"),
        (document(), {"layers": LayerMap((2, 3))}, "layer 10 has choices, but no experts"),
        (document(), {"experts": 2}, "but there are 2 experts"),
        (document(), {"top_k": 3}, "a token has 2 choices, not 3 as stated"),
    ],
)
def test_what_does_not_fit_is_two_lines(tmp_path: Path, content: object, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        read_trace_file(saved(tmp_path, [document(), content]), options=ImportOptions(**options))
    assert len(str(caught.value).splitlines()) == 2
