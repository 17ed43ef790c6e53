"""JSON lines of a logger in vLLM become a trace: layers are joined row by row, and rows of warm-up are left out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moeprof.records.errors import UsageError
from moeprof.records.traces.formats import read_recording
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.layer_map import LayerMap
from moeprof.records.traces.trace_format import TraceFile
from tests.records.traces.logged import random_experts

CHOSEN = random_experts(6, 2, 2)
META = {"type": "meta", "model_id": "m", "layers_logged": [1, 4], "top_k": 2}


def routes(experts_NK: np.ndarray, layer: int, request: object = "a", **others: Any) -> list[dict[str, Any]]:
    return [
        {"type": "route", "req_id": request, "token_idx": place, "layer": layer, "topk_ids": ids, "topk_weights": [0.75, 0.25]}
        | others
        for place, ids in enumerate(experts_NK.tolist())
    ]


def log(path: Path, *lines: object) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def experts_of(file: TraceFile) -> list[list[list[int]]]:
    """The choices by token, layer and slot."""
    (trace,) = file.traces
    return trace.column("expert").reshape(-1, len(trace.header.layers), trace.header.top_k).tolist()


def test_layers_of_one_file_are_joined(tmp_path: Path) -> None:
    """The first three tokens in both layers, and then the others."""
    one, other = routes(CHOSEN[:, 0], 1), routes(CHOSEN[:, 1], 4)
    file = read_recording([log(tmp_path / "log", META, *one[:3], *other[:3], *one[3:], *other[3:])])
    assert experts_of(file) == CHOSEN.tolist()
    (trace,) = file.traces
    assert (trace.header.phase, trace.header.layers, trace.header.top_k) == ("decode", ["1", "4"], 2)
    assert trace.column("step")[::4].tolist() == [0, 1, 2, 3, 4, 5]
    assert trace.column("position")[::4].tolist() == [0, 1, 2, 3, 4, 5]
    assert set(trace.column("weight")) == {0.75, 0.25}
    assert file.experts_guessed
    assert "the log does not state which tokens were decoded" in next(iter(trace.header.imported.lines))  # type: ignore[union-attr]


def test_files_of_one_layer_are_joined_and_requests_are_sequences(tmp_path: Path) -> None:
    paths = [
        log(
            tmp_path / str(layer),
            META | {"layers_logged": [layer]},
            *routes(CHOSEN[:4, at], layer, 17),
            *routes(CHOSEN[4:, at], layer, 5),
        )
        for at, layer in enumerate((1, 4))
    ]
    file = read_recording(paths)
    assert experts_of(file) == CHOSEN.tolist()
    assert file.traces[0].column("sequence")[::4].tolist() == [0, 0, 0, 0, 1, 1]
    assert file.traces[0].column("position")[::4].tolist() == [0, 1, 2, 3, 0, 1]


def test_rows_that_do_not_agree_between_files_are_left_out_and_counted(tmp_path: Path) -> None:
    paths = [
        log(tmp_path / "1", *routes(CHOSEN[:4, 0], 1), *routes(CHOSEN[4:, 0], 1, "b")),
        log(tmp_path / "4", *routes(CHOSEN[:4, 1], 4), *routes(CHOSEN[4:5, 1], 4, "c")),
    ]
    file = read_recording(paths)
    assert experts_of(file) == CHOSEN[:4].tolist()
    assert file.report is not None
    assert file.report.notes[0].endswith("at the same place: 3, left out")


def test_warmup_comes_first_and_is_left_out(tmp_path: Path) -> None:
    warm = routes(np.repeat([[0, 1]], 40, axis=0), 1, "profile", topk_weights=[0.5, 0.5])
    path = log(tmp_path / "log", META, *warm, *routes(CHOSEN[:, 0], 1))
    file = read_recording([path])
    assert file.report is not None
    assert (file.report.warmup, file.report.kept) == (40, 6)
    assert experts_of(file) == CHOSEN[:, :1].tolist()
    assert len(read_recording([path], options=ImportOptions(keep_warmup=True)).traces[0]) == 46 * 2


ROUTES = routes(CHOSEN[:, 0], 1)


@pytest.mark.parametrize(
    ("lines", "options", "reason"),
    [
        ([META], {}, "no line of type route in it"),
        ([META, *ROUTES], {"top_k": 3}, "it states 2 choices of a token, but the options or the model's configuration 3"),
        ([META | {"top_k": 3}, *ROUTES], {}, "a token has 2 choices, not 3 as stated"),
        ([META, *ROUTES], {"experts": 4}, "but there are 4 experts"),
        ([META, *ROUTES], {"layers": LayerMap((0, 2))}, "layer 1 has choices, but no experts by the stated layers"),
        ([META, *ROUTES, ROUTES[0] | {"topk_ids": [1]}], {}, "row 6 has 1 values in topk_ids, but the first has 2"),
        ([META, *ROUTES, ROUTES[0] | {"topk_ids": None}], {}, "row 6 has 0 values in topk_ids"),
        ([META, *ROUTES, ROUTES[0] | {"topk_ids": [1, None]}], {}, "topk_ids has an empty value"),
        (
            [META, *ROUTES, ROUTES[0] | {"topk_ids": [1.5, 2]}],
            {},
            r"line 8: topk_ids is \[1.5, 2\], not a list of whole numbers",
        ),
        ([META, *ROUTES, ROUTES[0] | {"topk_ids": [1, 2**40]}], {}, r"line 8: topk_ids is \[1, 1099511627776\], not a list"),
        (
            [META, *ROUTES, ROUTES[0] | {"topk_ids": [1, -1]}],
            {},
            r"the experts at position 0 of sequence 0, layer 1 are \[1, -1\]",
        ),
        ([META, *ROUTES, ROUTES[0] | {"topk_ids": [1, 1]}], {}, "expert 1 occurs twice among a token's choices"),
        ([META, *ROUTES, ROUTES[0] | {"layer": -1}], {}, "layer -1 is not between 0 and"),
        ([META, *ROUTES, ROUTES[0] | {"token_idx": None}], {}, "row 6 lacks token_idx"),
        ([META, *ROUTES, json.dumps(ROUTES[0])[:-9]], {}, "truncated JSON: it ends at line 8, column"),
        ([META, *[line | {"topk_weights": [1.0]} for line in ROUTES]], {}, "a row has 2 experts, but 1 values in topk_weights"),
    ],
)
def test_what_does_not_fit_is_two_lines(tmp_path: Path, lines: list[object], options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        read_recording([log(tmp_path / "log", *lines)], options=ImportOptions(**options))
    assert len(str(caught.value).splitlines()) == 2


def test_a_layer_is_in_one_file(tmp_path: Path) -> None:
    paths = [log(tmp_path / name, META, *ROUTES) for name in ("a", "b")]
    with pytest.raises(UsageError, match="layer 1 is in another of the files too"):
        read_recording(paths)
    paths[1].write_text("".join(json.dumps(line) + "\n" for line in routes(CHOSEN[:, 1], 4, "b")))
    with pytest.raises(UsageError, match="no row of all layers agrees in req_id and token_idx"):
        read_recording(paths)


def test_a_layer_that_is_named_and_has_no_rows_is_reported(tmp_path: Path) -> None:
    file = read_recording([log(tmp_path / "log", META | {"layers_logged": [1, 4, 7]}, *routes(CHOSEN[:, 0], 1))])
    (trace,) = file.traces
    assert "layers that the log names and has no rows of: 4, 7" in list(trace.header.imported.lines)  # type: ignore[union-attr]
    whole = read_recording(
        [
            log(tmp_path / str(layer), META | {"layers_logged": [layer]}, *routes(CHOSEN[:, at], layer))
            for at, layer in enumerate((1, 4))
        ]
    )
    assert not any("no rows" in line for line in whole.traces[0].header.imported.lines)  # type: ignore[union-attr]
