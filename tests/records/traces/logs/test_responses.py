"""What SGLang and vLLM return for a request becomes a trace of the same experts, or two lines that say why it does not."""

import base64
import io
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
from moeprof.records.traces.logs.sglang_api import write_responses
from moeprof.records.traces.logs.vllm import write_vllm
from moeprof.records.traces.trace_format import TraceFile
from tests.records.traces.logged import random_experts

MAP = LayerMap((1, 2, 3), 4)
OPTIONS = ImportOptions(layers=MAP, top_k=2, experts=8)
CHOSEN = random_experts(7, 3)
"""Five tokens of a prompt and two of three generated ones, in the layers 1 to 3."""

ALL_LAYERS = np.concatenate([np.zeros((7, 1, 2), int), CHOSEN], axis=1)


def raw(experts: np.ndarray) -> str:
    return base64.b64encode(experts.astype("<i4").tobytes()).decode()


def npy(experts: np.ndarray) -> str:
    np.save(stream := io.BytesIO(), experts)
    return base64.b64encode(stream.getvalue()).decode()


def of_sglang(value: object = None, prompt: int = 5, generated: int = 3) -> dict[str, Any]:
    counts = {"prompt_tokens": prompt, "completion_tokens": generated}
    return {"output_ids": [7, 8, 9], "meta_info": counts | {"routed_experts": raw(ALL_LAYERS) if value is None else value}}


def of_vllm(value: object = None, **others: object) -> dict[str, Any]:
    choice = {"token_ids": [7, 8, 9], "routed_experts": npy(ALL_LAYERS.astype(np.uint8)) if value is None else value}
    return {"choices": [choice], "prompt_token_ids": [1, 2, 3, 4, 5], "usage": {"prompt_tokens": 5}} | others


def of_v021(prompt: object = None, generated: object = None) -> dict[str, Any]:
    return of_vllm(
        CHOSEN[[5, 6, 0]].tolist() if generated is None else generated,
        prompt_routed_experts=CHOSEN[:5].tolist() if prompt is None else prompt,
    )


def saved(folder: Path, content: object, name: str = "dump") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def cubes(file: TraceFile) -> dict[str, list[list[int]]]:
    """The experts of each phase in the order of the rows: layer by layer, token by token."""
    return {trace.header.phase: trace.column("expert").reshape(-1, trace.header.top_k).tolist() for trace in file.traces}


def expected() -> dict[str, list[list[int]]]:
    return {
        "prefill": np.moveaxis(CHOSEN[:5], 0, 1).reshape(-1, 2).tolist(),
        "decode": CHOSEN[5:].reshape(-1, 2).tolist(),
    }


@pytest.mark.parametrize(
    "content",
    [
        of_sglang(),
        [of_sglang()],
        json.dumps(of_sglang(), indent=1),
        of_sglang(raw(CHOSEN)),
        {"choices": [], "usage": of_sglang()["meta_info"], "sglext": {"routed_experts": raw(ALL_LAYERS)}},
        {"choices": [{"sglext": {"routed_experts": raw(ALL_LAYERS)}}], "usage": of_sglang()["meta_info"]},
        of_vllm(),
        of_vllm(npy(CHOSEN.astype(np.uint16))),
        of_vllm(npy(np.asfortranarray(ALL_LAYERS))),
        of_v021(generated=CHOSEN[5:].tolist()),
    ],
)
def test_a_response_has_a_step_for_the_prompt_and_one_per_decoded_token(tmp_path: Path, content: object) -> None:
    file = read_trace_file(saved(tmp_path, content), options=OPTIONS)
    assert cubes(file) == expected()
    prefill, decode = file.traces
    assert prefill.header.layers == ["1", "2", "3"]
    assert (set(prefill.column("step")), decode.column("step")[::6].tolist()) == ({0}, [1, 2])
    assert decode.column("position")[::6].tolist() == [5, 6]
    assert file.report is not None
    assert (file.report.kept, file.report.padding, file.report.cached) == (21, 0, 0)


def test_token_ids_are_those_of_the_rows_unless_they_are_stripped(tmp_path: Path) -> None:
    path = saved(tmp_path, of_vllm())
    prefill, decode = read_trace_file(path, options=OPTIONS).traces
    assert prefill.column("token_id")[:10:2].tolist() == [1, 2, 3, 4, 5]
    assert decode.column("token_id")[::6].tolist() == [7, 8]
    stripped = read_trace_file(path, options=ImportOptions(layers=MAP, strip_tokens=True)).traces
    assert {one for trace in stripped for one in trace.column("token_id")} == {-1}
    prefill, decode = read_trace_file(saved(tmp_path, of_sglang()), options=OPTIONS).traces
    assert (set(prefill.column("token_id")), decode.column("token_id")[::6].tolist()) == ({-1}, [7, 8])


def test_a_response_that_begins_later_has_later_positions(tmp_path: Path) -> None:
    prefill, decode = read_trace_file(saved(tmp_path, of_sglang(raw(ALL_LAYERS[2:]))), options=OPTIONS).traces
    assert prefill.column("position")[:6:2].tolist() == [2, 3, 4]
    assert decode.column("position")[::6].tolist() == [5, 6]
    assert prefill.header.imported is not None
    assert prefill.header.imported.notes == ["sequences whose first positions have no experts: 1 (routed_experts_start_len)"]


def test_positions_that_a_prefix_cache_served_are_counted_and_left_out(tmp_path: Path) -> None:
    prompt = CHOSEN[:5].copy()
    prompt[:2] = -1
    file = read_trace_file(saved(tmp_path, of_v021(prompt.tolist())), options=OPTIONS)
    assert file.report is not None
    assert (file.report.kept, file.report.cached) == (18, 6)
    assert file.traces[0].column("position")[:6:2].tolist() == [2, 3, 4]


def test_every_line_and_choice_is_a_sequence(tmp_path: Path) -> None:
    lines = "".join(json.dumps(of_sglang()) + "\n" for _ in range(3))
    assert set(read_trace_file(saved(tmp_path, lines), options=OPTIONS).traces[0].column("sequence")) == {0, 1, 2}
    content = of_v021()
    content["choices"] *= 2
    prefill, decode = read_trace_file(saved(tmp_path, content), options=OPTIONS).traces
    assert (set(prefill.column("sequence")), set(decode.column("sequence"))) == ({0}, {0, 1})


def test_arrays_without_a_response_are_decoded_token_by_token(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", ALL_LAYERS.astype(np.int32))
    np.savez(tmp_path / "two.npz", a=ALL_LAYERS, b=ALL_LAYERS[:2])
    np.savez_compressed(tmp_path / "packed.npz", a=ALL_LAYERS, b=ALL_LAYERS[:2])
    (one,) = read_trace_file(tmp_path / "one.npy", options=OPTIONS).traces
    assert len(one) == 7 * 3 * 2
    assert one.header.imported is not None
    assert list(one.header.imported.lines) == [
        "the file does not state which tokens were decoded: each is taken as a step of decoding"
    ]
    for name in ("two.npz", "packed.npz"):
        (two,) = read_trace_file(tmp_path / name, options=OPTIONS).traces
        assert [int((two.column("sequence") == number).sum()) for number in (0, 1)] == [42, 12]


HEADERLESS = b"\x93NUMPY\x01\x00\x10\x00{'descr': ('<u1' \n"
"""The header of an array, in which a bracket is not closed."""

MIDDLE = CHOSEN[:5].copy()
MIDDLE[2] = -1


@pytest.mark.parametrize(
    ("content", "options", "reason"),
    [
        (of_sglang(), {}, "routed_experts states neither its layers nor the choices of a token"),
        (of_sglang(), {"layers": MAP}, "routed_experts states neither"),
        (
            of_sglang(),
            {"layers": MAP, "top_k": 3},
            "has 56 numbers, which are no 7 tokens or fewer with 4 or 3 layers of 3 choices",
        ),
        (of_sglang(), {"layers": LayerMap((0, 1), 5), "top_k": 2}, "no 7 tokens or fewer with 5 or 2 layers"),
        (of_sglang(raw(ALL_LAYERS)[:-1]), {"layers": MAP, "top_k": 2}, "is not base64, or is truncated"),
        (of_sglang(raw(ALL_LAYERS)[:-8]), {"layers": MAP, "top_k": 2}, r"has \d+ bytes, which are no int32 numbers"),
        (of_sglang(""), {"layers": MAP, "top_k": 2}, "has 0 bytes"),
        (of_sglang(5), {"layers": MAP, "top_k": 2}, "is not a text in base64"),
        (of_sglang(prompt=-1), {"layers": MAP, "top_k": 2}, "prompt_tokens = -1 is no whole number from 0"),
        (
            of_sglang(raw(ALL_LAYERS * 0)),
            {"layers": MAP, "top_k": 2},
            "every choice is expert 0 or -1, so nothing was recorded",
        ),
        (of_sglang(raw(ALL_LAYERS + 8)), {"layers": MAP, "top_k": 2}, "layer 0 has choices, but no experts"),
        (of_sglang(), {"layers": MAP, "top_k": 2, "experts": 7}, "but there are 7 experts"),
        (of_vllm(), {}, "its 4 layers may be all layers of the model or those with experts; layer 0 of them is empty"),
        (of_vllm(), {"layers": LayerMap((1, 2), 5)}, "it has 4 layers, but the model has 2 MoE layers of 5"),
        (of_vllm(), {"layers": LayerMap((0, 1, 2, 3), 4)}, "layer 0 has only choices of expert 0"),
        (of_vllm(), {"layers": MAP, "top_k": 3}, "a token has 2 choices, not 3 as stated"),
        (of_vllm(npy(ALL_LAYERS * 1.0)), {"layers": MAP}, "values of type float64, not whole numbers"),
        (of_vllm(npy(ALL_LAYERS[0])), {"layers": MAP}, "has 2 dimensions in place of 3"),
        (of_vllm(npy(ALL_LAYERS)[:-4]), {"layers": MAP}, "bytes of data, but its shape"),
        (of_vllm(npy(ALL_LAYERS[:3])), {"layers": MAP}, "has 3 rows, but 5 tokens of prompt and 3 generated ones"),
        (of_vllm(npy(ALL_LAYERS.astype(object))), {"layers": MAP}, "which are never unpickled"),
        (of_vllm("AAAA"), {"layers": MAP}, "not a NumPy array, or its header is damaged"),
        (of_vllm([]), {"layers": MAP}, "has 1 dimensions in place of 3"),
        (of_vllm(usage={"prompt_tokens": 4}), {"layers": MAP}, "5 token ids of a prompt, but prompt_tokens = 4"),
        (of_vllm(choices=[{"routed_experts": None}]), {"layers": MAP}, "no response with routed experts in it"),
        (of_v021(MIDDLE.tolist()), {"layers": MAP}, "position 2 of sequence 0 has expert -1, but a prefix cache serves only"),
        (of_v021(generated=(CHOSEN[:3] * 0 - 1).tolist()), {"layers": MAP}, "position 5 of sequence 0 has expert -1"),
        (of_v021(generated=CHOSEN[:2, :2].tolist()), {"layers": MAP}, "there are 3 generated|rows of shape"),
        (of_v021([[[1, 2], [3]]]), {"layers": MAP}, "not every token has the same layers"),
        (of_v021([[[1.5, 2], [3, 4], [3, 4]]]), {"layers": MAP}, "values of type float64"),
        (of_v021([[["a", "b"], ["a", "b"], ["a", "b"]]]), {"layers": MAP}, "not whole numbers"),
        (json.dumps(of_vllm())[:-9], {"layers": MAP}, "truncated JSON: it ends at line 1, column 368"),
        (f"{json.dumps(of_vllm())}\n\n[5]\n", {"layers": MAP}, "line 3: not a JSON object per response"),
        (
            f"{json.dumps(of_vllm())}\n{json.dumps(of_vllm())[:99]}\n",
            {"layers": MAP},
            "truncated JSON: it ends at line 2, column 99, inside a value",
        ),
        (of_v021(generated=[[[1, 2**40]] * 3]), {"layers": MAP}, f"routed_experts holds {2**40}, which is no expert"),
    ],
)
def test_what_does_not_fit_is_two_lines(tmp_path: Path, content: object, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        read_trace_file(saved(tmp_path, content), options=ImportOptions(**options))
    assert len(str(caught.value).splitlines()) == 2


def test_a_damaged_archive_of_arrays_is_two_lines(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=ALL_LAYERS)
    content = (tmp_path / "two.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[:-30])
    with pytest.raises(UsageError, match=r"a damaged or encrypted \.npz archive"):
        read_trace_file(tmp_path / "cut.npz", options=OPTIONS)
    np.savez_compressed(tmp_path / "packed.npz", a=ALL_LAYERS, b=np.arange(999))
    content = bytearray((tmp_path / "packed.npz").read_bytes())
    content[content.rfind(b"b.npy", 0, -200) + 60] ^= 255
    (tmp_path / "changed.npz").write_bytes(content)
    with pytest.raises(UsageError, match=r"a damaged or encrypted \.npz archive"):
        read_trace_file(tmp_path / "changed.npz", options=OPTIONS)
    with pytest.raises(UsageError, match="is not a NumPy array, or its header is damaged"):
        read_trace_file(saved(tmp_path, of_vllm(base64.b64encode(HEADERLESS).decode())), options=OPTIONS)
    np.save(tmp_path / "empty.npy", ALL_LAYERS[:0])
    with pytest.raises(UsageError, match="the array is empty: 0 tokens, 4 layers, 2 choices"):
        read_trace_file(tmp_path / "empty.npy", options=OPTIONS)


@settings(deadline=None, max_examples=40)
@given(
    tokens=st.integers(1, 6),
    decoded=st.integers(0, 5),
    layers=st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True),
    top_k=st.integers(2, 4),
    experts=st.sampled_from([4, 9, 300]),
    seed=st.integers(0, 99),
)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, tokens: int, decoded: int, layers: list[int], top_k: int, experts: int, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("again")
    chosen = random_experts(tokens + decoded, len(layers), top_k, experts, seed)
    array = np.zeros((len(chosen), max(layers) + 1, top_k), int)
    array[:, sorted(layers)] = chosen
    options = ImportOptions(layers=LayerMap(tuple(sorted(layers))), top_k=top_k, experts=experts)
    response = of_vllm(npy(array)) | {"prompt_token_ids": list(range(tokens)), "usage": {}}
    response["choices"][0]["token_ids"] = list(range(decoded + 1))
    file = read_trace_file(saved(folder, [response, response]), options=options)
    for write in (write_responses, write_vllm):
        write(file, folder / "again.json")
        again = read_trace_file(folder / "again.json", options=options)
        assert [trace.header.phase for trace in again.traces] == [trace.header.phase for trace in file.traces]
        for one, other in zip(again.traces, file.traces, strict=True):
            for name in ("step", "sequence", "position", "slot", "expert"):
                assert one.column(name).tolist() == other.column(name).tolist()
    assert cubes(again) == cubes(file)


def test_samples_have_the_stated_experts(shared_data: Path) -> None:
    """Four layers, of which layer 0 is dense, 8 experts, 2 choices; 5 tokens of prompt and 3 generated ones."""
    folder = shared_data.parent / "traces"
    for name, kept, cached in (("sglang_api/generate", 21, 0), ("vllm/npy_completion", 21, 0), ("vllm/v021_completion", 21, 3)):
        file = read_trace_file(folder / f"{name}.json", options=OPTIONS)
        assert file.report is not None
        assert (file.report.kept, file.report.cached) == (kept, cached)
    response = json.loads((folder / "sglang_api" / "generate.json").read_text())
    truth = np.frombuffer(base64.b64decode(response["meta_info"]["routed_experts"]), "<i4").reshape(7, 4, 2)
    (decode,) = (
        trace
        for trace in read_trace_file(folder / "sglang_api" / "generate.json", options=OPTIONS).traces
        if trace.header.phase == "decode"
    )
    assert decode.column("expert").tolist() == truth[5:, 1:].ravel().tolist()
