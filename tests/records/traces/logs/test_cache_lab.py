"""JSON lines of a study of caches become traces of decoders and encoders, and are written."""

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
from moeprof.records.traces.logs.cache_lab import CACHE_LAB
from tests.records.traces.logged import random_experts
from tests.records.traces.logs.again import assert_read_again, random_file

CHOSEN = random_experts(4, 2)
META = {"type": "metadata", "num_experts": 8, "top_k": 2}


def line(token: int, layer: int, phase: str = "decode", **others: Any) -> dict[str, Any]:
    return {
        "type": "routing_selection",
        "phase": phase,
        "token_position": token,
        "layer": layer + 3,
        "selected_experts": CHOSEN[token, layer].tolist(),
        "selected_probabilities": [0.5, 0.25],
        "token_id": token + 10,
    } | others


def of_tokens(tokens: list[int], **others: Any) -> list[dict[str, Any]]:
    """The first two positions are the prompt."""
    return [line(token, layer, "prefill" if token < 2 else "decode", **others) for token in tokens for layer in (0, 1)]


def log(folder: Path, *lines: object) -> Path:
    path = folder / "talk.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return path


def test_a_line_is_a_token_of_a_layer(tmp_path: Path) -> None:
    prefill, decode = read_trace_file(log(tmp_path, META, *of_tokens([0, 1, 2, 3]))).traces
    assert prefill.column("expert").tolist() == np.moveaxis(CHOSEN[:2], 0, 1).ravel().tolist()
    assert decode.column("expert").tolist() == CHOSEN[2:].ravel().tolist()
    assert (prefill.header.layers, prefill.header.num_experts, prefill.header.top_k) == (["3", "4"], 8, 2)
    assert (set(prefill.column("step")), decode.column("step")[::4].tolist()) == ({0}, [1, 2])
    assert decode.table.to_pylist()[1] | {"domain": None} == {
        "step": 1, "sequence": 0, "position": 2, "token_id": 12, "layer": "3", "slot": 1, "expert": CHOSEN[2, 0, 1], "weight": 0.25,
        "domain": None, "dropped": False, "residency": None,
    }  # fmt: skip


def test_positions_that_come_again_begin_a_sequence(tmp_path: Path) -> None:
    prefill, decode = read_trace_file(log(tmp_path, META, *of_tokens([0, 1, 2]), *of_tokens([0, 1, 2, 3]))).traces
    assert prefill.column("sequence")[::2].tolist() == [0] * 4 + [1] * 4
    assert decode.column("sequence")[::4].tolist() == [0, 1, 1]
    assert decode.column("step")[::4].tolist() == [1, 3, 4]


def test_an_encoder_and_a_decoder_have_layers_of_their_own_and_capacity_drops_choices(tmp_path: Path) -> None:
    encoder = [one | {"phase": "prefill"} for one in of_tokens([0, 1, 2, 3], stage="encoder")]
    encoder[0] |= {"dropped": [False, True]}
    decoder = [one | {"phase": "decode"} for one in of_tokens([0, 1], stage="decoder")]
    encode, decode = read_trace_file(log(tmp_path, META, *encoder, *decoder)).traces
    assert (encode.header.phase, encode.header.layers, encode.header.workload) == ("encode", ["enc.3", "enc.4"], "mt")
    assert (decode.header.phase, decode.header.layers, decode.header.workload) == ("decode", ["dec.3", "dec.4"], "mt")
    assert encode.column("dropped").tolist() == [False, True] + [False] * 14
    assert (set(encode.column("step")), decode.column("step")[::4].tolist()) == ({0}, [0, 1])


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    prompt=st.integers(0, 3),
    layers=st.integers(1, 3),
    top_k=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], prompt: int, layers: int, top_k: int, seed: int
) -> None:
    path = tmp_path_factory.mktemp("again") / "talk.cachelab.jsonl"
    assert_read_again(random_file(lengths, prompt, layers, top_k, seed, first_layer=2), CACHE_LAB, path)


def test_an_encoder_that_is_written_is_read_again(tmp_path: Path) -> None:
    lines = [
        one | {"stage": "encoder", "dropped": [False, token % 2 == 1]} for token, one in enumerate(of_tokens([0, 1, 2, 3]))
    ]
    file = read_trace_file(log(tmp_path, META, *lines))
    assert_read_again(file, CACHE_LAB, tmp_path / "talk.cachelab.jsonl")


LINES = of_tokens([0, 1, 2, 3])


@pytest.mark.parametrize(
    ("lines", "options", "reason"),
    [
        ([META, LINES[0] | {"type": "other"}], {}, "no line of type routing_selection in it"),
        ([META, *LINES], {"top_k": 3}, "it states 2 choices of a token, but the options or the model's configuration 3"),
        ([META, *LINES], {"experts": 9}, "it states 8 experts"),
        ([META | {"num_experts": 2}, *LINES], {}, "but there are 2 experts"),
        ([META, *LINES], {"layers": LayerMap((4, 5))}, "layer 3 has choices, but no experts by the stated layers"),
        ([META, *LINES, LINES[0] | {"phase": "dream"}], {}, "phase 'dream' is not known"),
        ([META, *LINES, LINES[0] | {"phase": None}], {}, "phase 'None' is not known"),
        ([META, *LINES, LINES[0] | {"stage": "middle"}], {}, "stage '(None|middle)' is neither encoder nor decoder"),
        (
            [META, *LINES, LINES[0] | {"selected_experts": [1]}],
            {},
            "row 8 has 1 values in selected_experts, but the first has 2",
        ),
        ([META, *LINES, LINES[0] | {"selected_experts": []}], {}, "row 8 has 0 values"),
        ([META, *LINES, LINES[0] | {"selected_experts": ["a"]}], {}, r"line 10: selected_experts is \['a'\], not a list"),
        ([META, *LINES, LINES[0] | {"token_position": None}], {}, "row 8 lacks token_position"),
        ([META, *LINES, LINES[0] | {"token_position": 2**40}], {}, "token_position 1099511627776 is not between 0 and"),
        ([META, *LINES, LINES[0] | {"dropped": [True]}], {}, "a row has 2 experts, but 1 values in dropped"),
        ([META, *[one | {"sequence": 0} for one in [*LINES, LINES[0]]]], {}, "position 0 has two rows in layer 3"),
    ],
)
def test_what_does_not_fit_is_two_lines(tmp_path: Path, lines: list[object], options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        read_trace_file(log(tmp_path, *lines), options=ImportOptions(**options))
    assert len(str(caught.value).splitlines()) == 2


def test_token_ids_that_only_some_lines_have_are_kept(tmp_path: Path) -> None:
    lines = of_tokens([0, 1, 2, 3])
    for one in lines[:2]:
        del one["token_id"]
    prefill, decode = read_trace_file(log(tmp_path, META, *lines)).traces
    assert (sorted(set(prefill.column("token_id"))), sorted(set(decode.column("token_id")))) == ([-1, 11], [12, 13])
