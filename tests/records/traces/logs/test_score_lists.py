"""Parquet with lists of experts per token and layer becomes a trace."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moeprof.records.errors import UsageError
from moeprof.records.traces.formats import read_recording
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.layer_map import LayerMap
from tests.records.traces.logged import random_experts

CHOSEN = random_experts(3, 2)
INT16, HALF = pa.list_(pa.int16()), pa.list_(pa.float16())


def columns(**others: Any) -> dict[str, Any]:
    """Rows in the order of the tokens, and of the layers 1 and 5."""
    scores = np.full((6, 2), 0.25, np.float16)
    return {
        "token": [0, 0, 1, 1, 2, 2],
        "layer": [1, 5] * 3,
        "scores": pa.array(list(scores), HALF),
        "indices": pa.array(CHOSEN.reshape(6, 2).tolist(), INT16),
    } | others


def saved(path: Path, content: dict[str, Any]) -> Path:
    pq.write_table(pa.table(content), path)
    return path


def test_a_row_is_a_token_of_a_layer(tmp_path: Path) -> None:
    (trace,) = read_recording([saved(tmp_path / "a", columns())]).traces
    assert (trace.header.phase, trace.header.layers, trace.header.top_k) == ("decode", ["1", "5"], 2)
    assert trace.column("expert").tolist() == CHOSEN.ravel().tolist()
    assert set(trace.column("weight")) == {0.25}


def test_files_without_a_column_of_layers_have_their_numbers_in_their_names(tmp_path: Path) -> None:
    paths = [
        saved(
            tmp_path / f"model.layer{layer}.parquet".replace(".layer", "-layer"),
            {"indices": pa.array(list(CHOSEN[:, at]), INT16)},
        )
        for at, layer in enumerate((1, 5))
    ]
    (trace,) = read_recording(paths).traces
    assert trace.header.layers == ["1", "5"]
    assert trace.column("expert").tolist() == CHOSEN.ravel().tolist()
    assert np.isnan(trace.column("weight")).all()


@pytest.mark.parametrize(
    ("content", "options", "reason"),
    [
        (columns(indices=[1] * 6), {}, "indices is of type int64, not a list"),
        (columns(indices=pa.array([[1.0, 2.0]] * 6)), {}, "indices holds values of type double, not whole numbers"),
        (columns(indices=pa.array([[1, 2]] * 5 + [[1]])), {}, "row 5 has 1 values in indices, but the first has 2"),
        (columns(indices=pa.array([[1, 2]] * 5 + [None])), {}, "row 5 has 0 values in indices"),
        (columns(scores=pa.array([[0.5]] * 6)), {}, "a row has 2 experts, but 1 values in scores"),
        (columns(scores=[-1] * 6), {}, "scores is of type int64, not a list per token and layer"),
        (columns(scores=pa.array([["a", "b"]] * 6)), {}, "scores holds values of type string, not fractions"),
        (columns(token=[0] * 6), {}, "position 0 has two rows in layer 1"),
        (columns(layer=[-1] * 6), {}, "layer -1 is not between 0 and"),
        ({name: values for name, values in columns().items() if name != "token"}, {}, "no column of tokens: position"),
        (
            {name: values for name, values in columns().items() if name != "layer"},
            {},
            "nor a number in the file's name says its layer",
        ),
        ({name: pa.array([], INT16) if name == "indices" else [] for name in columns()}, {}, "no choices in it"),
        (columns(), {"layers": LayerMap((1, 2))}, "layer 5 has choices, but no experts"),
        (columns(), {"top_k": 3}, "a token has 2 choices, not 3 as stated"),
        (columns(), {"experts": 2}, "but there are 2 experts"),
    ],
)
def test_what_does_not_fit_is_two_lines(tmp_path: Path, content: dict[str, Any], options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        read_recording([saved(tmp_path / "a.parquet", content)], options=ImportOptions(**options))
    assert len(str(caught.value).splitlines()) == 2
