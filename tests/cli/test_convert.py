"""`moeprof convert` as its user types it."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from moeprof.records.traces.formats import read_routing
from moeprof.records.traces.routing_trace import RoutingTrace
from tests.studies.replay.logs import route_log

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A route log of two phases, with two layers and four experts of which a token uses two."""
    return route_log(tmp_path / "talk.route.csv", [(0, 1), (1, 2)], prefill=[(2, 3), (0, 3), (0, 1)], layers=2)


def rows_of(traces: list[RoutingTrace]) -> list[dict[str, object]]:
    """All rows, phase by phase."""
    return [{"phase": trace.header.phase, **row} for trace in traces for row in trace.table.to_pylist()]


def test_a_folder_of_traces_holds_the_same_rows(moeprof: Call, log: Path, tmp_path: Path) -> None:
    code, stdout, stderr = moeprof("convert", log, tmp_path / "out", "--to", "run")
    assert (code, stderr) == (0, "")
    assert stdout.startswith(f"{tmp_path / 'out'}: choices (")
    assert stdout.splitlines()[1:] == ["Lost, because run has no field for it: bytes of an expert"]
    found, given = ([str(row) for row in rows_of(read_routing(path))] for path in (tmp_path / "out", log))
    assert sorted(found) == sorted(given)


def test_counts_are_those_of_the_rows_and_the_loss_is_named(moeprof: Call, log: Path, tmp_path: Path) -> None:
    code, stdout, _ = moeprof("convert", log, tmp_path / "talk.counts.json")
    rows = Counter((int(str(row["layer"])), row["expert"]) for row in rows_of(read_routing(log)))
    table = json.loads((tmp_path / "talk.counts.json").read_text())
    cells = {
        (layer, expert): count
        for layer, row in zip(table["layers"], table["counts"]["talk"], strict=True)
        for expert, count in enumerate(row)
    }
    assert (code, +Counter(cells)) == (0, rows)
    assert stdout.splitlines()[1] == "Lost, because counts has no field for it: choices of single tokens, bytes of an expert"


def test_the_result_is_one_json_document(moeprof: Call, log: Path, tmp_path: Path) -> None:
    _, stdout, _ = moeprof("convert", log, tmp_path / "talk.counts.json", "--json")
    found = json.loads(stdout)
    assert (found["format"], found["lost"], found["domains"]) == (
        "counts",
        ["choices of single tokens", "bytes of an expert"],
        ["talk"],
    )


def test_what_counts_cannot_say_is_not_made_up(moeprof: Call, log: Path, tmp_path: Path) -> None:
    code, _, stderr = moeprof("convert", log, tmp_path / "a.gguf", "--to", "imatrix")
    assert (code, stderr.count("\n")) == (2, 2)
    assert "--to imatrix: it also has the sums of squared activations (in_sum2)" in stderr
    assert list(tmp_path.glob("a.gguf*")) == []


def test_token_ids_are_left_out_if_asked(moeprof: Call, tmp_path: Path, log: Path) -> None:
    assert moeprof("convert", log, tmp_path / "out", "--to", "run", "--strip-tokens")[0] == 0
    assert {row["token_id"] for row in rows_of(read_routing(tmp_path / "out"))} == {-1}


def test_what_cannot_be_written_is_two_lines_and_nothing_is_left(moeprof: Call, log: Path, tmp_path: Path) -> None:
    counts = tmp_path / "c.json"
    counts.write_text(json.dumps({"layers": [0], "counts": {"a": [[3, 1]]}}))
    (mixed := tmp_path / "mixed").mkdir()
    (mixed / "notes.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    for arguments, what in (
        ([counts, tmp_path / "c.parquet"], f"trace {counts}: it holds counts, and run needs the choices of tokens"),
        ([log, tmp_path / "c.txt"], f"{tmp_path / 'c.txt'}: the name does not say which format is wanted"),
        ([log, tmp_path / "c.txt", "--to", "nonsense"], "--to nonsense: unknown format"),
        ([log, tmp_path / "c.parquet", "--from", "nonsense"], "--from nonsense: unknown format"),
        ([log, counts, "--to", "counts"], f"{counts}: it exists already"),
        ([log, mixed, "--to", "run", "--force"], f"trace {log}: {mixed} holds more than traces, so it is not replaced"),
        ([log, log, tmp_path / "x.parquet"], f"trace {log}: a second file beside {log}"),
        ([log, counts, tmp_path / "x.parquet"], None),
        ([log, tmp_path / "x.parquet", "--layers", "4-2"], "--layers 4-2: 4-2 is not a range of layers below 10,000"),
    ):
        code, stdout, stderr = moeprof("convert", *arguments)
        assert (code, stdout, len(stderr.splitlines())) == (2, "", 2), stderr
        assert what is None or stderr.splitlines()[0] == f"Error: {what}"
    assert sorted(tmp_path.rglob("*")) == before


def arrays(folder: Path) -> Path:
    """The experts of three tokens in three layers, the first of which is dense."""
    np.save(folder / "experts.npy", np.array([[[0, 0], [1, 2], [3, 0]], [[0, 0], [2, 3], [0, 1]], [[0, 0], [3, 1], [2, 1]]]))
    return folder / "experts.npy"


CONFIG = {"num_hidden_layers": 3, "first_k_dense_replace": 1, "n_routed_experts": 4, "num_experts_per_tok": 2}


def test_the_configuration_of_the_model_says_which_layers_and_experts_there_are(moeprof: Call, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    given = ("convert", arrays(tmp_path), tmp_path / "out.route.csv", "--model-config", tmp_path / "config.json")
    code, _, stderr = moeprof(*given)
    assert (code, stderr) == (0, "")
    (trace,) = read_routing(tmp_path / "out.route.csv")
    assert (trace.header.layers, trace.header.num_experts, trace.header.top_k) == (["1", "2"], 4, 2)
    assert trace.column("expert").tolist() == [1, 2, 3, 0, 2, 3, 0, 1, 3, 1, 2, 1]
    code, _, stderr = moeprof(*given, "--force", "--top-k", 3)
    assert (code, stderr.splitlines()[0]) == (2, f"Error: --top-k 3: {tmp_path}/config.json states 2")


def test_layers_that_nothing_states_are_never_guessed(moeprof: Call, tmp_path: Path) -> None:
    code, _, stderr = moeprof("convert", arrays(tmp_path), tmp_path / "out.route.csv")
    assert code == 2
    assert "layer 0 of them is empty, as if it were dense: state them by --model-config CONFIG or --layers MAP" in stderr
    assert moeprof("convert", arrays(tmp_path), tmp_path / "out.route.csv", "--layers", "1-2")[0] == 0


def test_what_is_left_out_is_said_in_the_result_and_in_replays_of_it(moeprof: Call, tmp_path: Path) -> None:
    prompt, written = [[[-1, -1]], [[1, 2]]], [[[3, 0]], [[0, 2]]]
    (tmp_path / "response.json").write_text(
        json.dumps({"prompt_routed_experts": prompt, "choices": [{"routed_experts": written}]})
    )
    layers = ("--layers", "0", "--experts", 4)
    line = "imported from vllm: 3 rows of a token and layer kept; left out: 1 served by the prefix cache"
    assert line in moeprof("convert", tmp_path / "response.json", tmp_path / "out", "--to", "run", *layers)[1]
    assert moeprof("replay", tmp_path / "out", "--cache", "--slots", 2, "--policy", "lru", "--out", tmp_path / "run")[0] == 0
    assert line in (tmp_path / "run" / "report.md").read_text()


def test_the_formats_of_the_remedy_can_hold_the_layers_of_two_stacks(moeprof: Call, tmp_path: Path) -> None:
    stacks = tmp_path / "stacks.route.csv"
    stacks.write_text("# n_expert=4\nphase,step,stack,layer,slot,expert\n2,0,enc,1,0,3\n1,1,dec,1,0,2\n")
    code, _, stderr = moeprof("convert", stacks, tmp_path / "a.counts.json")
    assert (code, stderr.splitlines()[1]) == (2, "Choose another format with --to: run, route-csv, cache-lab.")
