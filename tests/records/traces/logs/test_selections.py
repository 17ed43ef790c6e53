"""Selections of experts in one JSON object become a trace with a step per prompt, and are written."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.records.errors import UsageError
from moeprof.records.traces.formats import read_trace_file
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.layer_map import LayerMap
from moeprof.records.traces.logs.selections import SELECTIONS
from tests.records.traces.logged import random_experts
from tests.records.traces.logs.again import assert_read_again, random_file

CHOSEN = random_experts(6, 2)


def document(**others: Any) -> dict[str, Any]:
    return {"layers": 2, "expertsPerLayer": 8, "topK": 2, "selections": CHOSEN.tolist()} | others


def saved(folder: Path, content: object) -> Path:
    (path := folder / "talk.json").write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    "prompts",
    [
        {"promptBoundaries": [0, 4]},
        {"promptBoundaries": [0, 4, 6]},
        {"promptLengths": [4, 2]},
        {"promptBoundaries": [0, 4], "promptLengths": [4, 2]},
    ],
)
def test_a_prompt_is_a_step(tmp_path: Path, prompts: dict[str, Any]) -> None:
    (trace,) = read_trace_file(saved(tmp_path, document(**prompts))).traces
    assert (trace.header.phase, trace.header.layers, trace.header.num_experts) == ("prefill", ["0", "1"], 8)
    assert trace.column("step").tolist() == [0] * 16 + [1] * 8
    assert trace.column("sequence").tolist() == [0] * 16 + [1] * 8
    assert trace.column("position")[16::2].tolist() == [0, 1, 0, 1]
    assert trace.column("expert").tolist() == [
        *np.moveaxis(CHOSEN[:4], 0, 1).ravel().tolist(),
        *np.moveaxis(CHOSEN[4:], 0, 1).ravel().tolist(),
    ]


def test_without_prompts_a_token_is_a_step(tmp_path: Path) -> None:
    file = read_trace_file(saved(tmp_path, document(layers=[3, 7])))
    (trace,) = file.traces
    assert (trace.header.phase, trace.header.layers) == ("decode", ["3", "7"])
    assert trace.column("step")[::4].tolist() == [0, 1, 2, 3, 4, 5]
    assert file.report is not None
    assert list(file.report.lines) == ["the file does not state where prompts begin: each token is taken as a step of decoding"]


def test_dense_layers_are_mapped_and_never_counted(tmp_path: Path) -> None:
    dense = np.concatenate([np.zeros((6, 1, 2), int), CHOSEN], axis=1).tolist()
    path = saved(tmp_path, document(layers=3, selections=dense))
    (trace,) = read_trace_file(path, options=ImportOptions(layers=LayerMap((1, 2), 3))).traces
    assert trace.header.layers == ["1", "2"]
    with pytest.raises(UsageError, match="layer 0 of them is empty, as if it were dense"):
        read_trace_file(path)


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    layers=st.integers(1, 3),
    top_k=st.integers(2, 3),
    seed=st.integers(0, 99),
)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], layers: int, top_k: int, seed: int
) -> None:
    path = tmp_path_factory.mktemp("again") / "talk.selections.json"
    assert_read_again(random_file(lengths, 9, layers, top_k, seed, first_layer=2), SELECTIONS, path)
    with pytest.raises(UsageError, match="it has several phases"):
        assert_read_again(random_file([3], 1, layers, top_k, seed), SELECTIONS, path)


@pytest.mark.parametrize(
    ("content", "options", "reason"),
    [
        (document(layers=3), {}, "layers = 3, but a token has 2"),
        (document(layers=[1]), {}, "layers does not list 2 different numbers"),
        (document(layers=[1, 1]), {}, "layers does not list 2 different numbers"),
        (document(topK=3), {}, "a token has 2 choices, not 3 as stated"),
        (document(expertsPerLayer=2), {}, "but there are 2 experts"),
        (document(expertsPerLayer="8"), {}, 'expertsPerLayer = "8" is no whole number from 0'),
        (document(selections=[]), {}, "selections has 1 dimensions in place of 3"),
        (document(selections=[[[1, 2], [3]]]), {}, "not every token has the same layers"),
        (document(selections=[[[1, 2.5], [3, 4]]]), {}, "not whole numbers"),
        (document(promptBoundaries=[1, 4]), {}, "promptBoundaries does not divide 6 tokens into prompts"),
        (
            document(promptBoundaries=[0, 4], promptLengths=[3, 3]),
            {},
            "promptBoundaries and promptLengths divide the tokens into different prompts",
        ),
        (document(promptBoundaries=[0, 9]), {}, "promptBoundaries is not a list of numbers from 0 to 6"),
        (document(promptLengths=[4, 1]), {}, "promptLengths does not divide 6 tokens"),
        (document(), {"experts": 9}, "it states 8 experts, but the options or the model's configuration 9"),
        (document(), {"layers": LayerMap((1, 2, 3), 4)}, "it has 2 layers, but the model has 3 MoE layers of 4"),
        (document(selections=(CHOSEN * 0).tolist()), {}, "every choice is expert 0 or -1, so nothing was recorded"),
    ],
)
def test_what_does_not_fit_is_two_lines(tmp_path: Path, content: object, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        read_trace_file(saved(tmp_path, content), options=ImportOptions(**options))
    assert len(str(caught.value).splitlines()) == 2
