"""Routing logs of BigMoeOnEdge become traces; damaged ones become two lines for the user."""

import gzip
import math
from pathlib import Path
from typing import Any

import pytest

from moeprof.records.errors import UsageError
from moeprof.records.system.inputs import InputFile
from moeprof.records.traces import csv_table, route_csv
from moeprof.records.traces.formats import read_trace_file
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.layer_map import LayerMap
from moeprof.records.traces.route_csv import read_route_files
from moeprof.records.traces.routing_trace import RoutingTrace

PREAMBLE = (
    "# route_trace v1\n# model=m n_layer=2 n_expert=8 n_expert_used=2\n# layer=0 expert_bytes=10\n# layer=1 expert_bytes=20\n"
)
HEADER = "turn,phase,step,layer,slot,expert,weight,residency,expert_bytes\n"
ROWS = """\
0,0,0,0,0,3,0.75,0,10
0,0,0,0,1,5,nan,0,10
0,0,0,1,0,1,0.5,0,20
0,1,1,0,0,3,0.6,1,0
0,1,1,0,1,2,0.2,2,10
"""


def log(folder: Path, content: str | bytes = PREAMBLE + HEADER + ROWS, name: str = "talk.route.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def read_route_csv(path: Path) -> list[RoutingTrace]:
    """The traces, whose tokens may be incomplete."""
    return read_route_files([InputFile(path)], ImportOptions()).traces


def test_every_phase_is_a_trace_of_the_files_domain(tmp_path: Path) -> None:
    prefill, decode = read_route_csv(log(tmp_path))
    assert [(trace.header.phase, len(trace)) for trace in (prefill, decode)] == [("prefill", 3), ("decode", 2)]
    assert prefill.header.layers == ["0", "1"]
    assert decode.header.layers == ["0"]
    assert (decode.header.workload, decode.header.variant, decode.header.top_k) == ("lm", "imported", 2)
    assert decode.names("domain") == ["talk"]
    assert decode.table.to_pylist()[1] | {"weight": None} == {
        "step": 1, "sequence": 0, "position": 1, "token_id": -1, "layer": "0", "slot": 1, "expert": 2, "weight": None,
        "domain": "talk", "dropped": False, "residency": 2,
    }  # fmt: skip


def test_an_unknown_weight_stays_unknown(tmp_path: Path) -> None:
    weights = read_route_csv(log(tmp_path))[0].column("weight")
    assert weights[0] == 0.75
    assert math.isnan(weights[1])


def test_the_number_of_experts_is_that_stated_or_that_seen(tmp_path: Path) -> None:
    assert read_route_csv(log(tmp_path))[0].header.num_experts == 8
    assert read_route_csv(log(tmp_path, HEADER + ROWS))[0].header.num_experts == 6


def test_columns_are_found_by_name_and_the_optional_ones_may_be_absent(tmp_path: Path) -> None:
    (trace,) = read_route_csv(log(tmp_path, "token_id,expert,slot,layer,step,phase\n99,1,0,4,7,1\n"))
    (row,) = trace.table.to_pylist()
    assert (row["token_id"], row["expert"], row["layer"], row["step"], row["residency"]) == (99, 1, "4", 7, None)
    assert math.isnan(row["weight"])


def test_a_turn_that_restarts_the_steps_is_a_new_sequence(tmp_path: Path) -> None:
    """Turn 1 goes on with the chat of turn 0; turns 3 and 4 are chats of their own."""
    rows = [(0, 0, 5), (0, 1, 1), (1, 2, 2), (3, 0, 3), (3, 1, 4), (4, 1, 5)]
    text = "turn,phase,step,layer,slot,expert\n" + "".join(f"{turn},1,{step},0,0,{expert}\n" for turn, step, expert in rows)
    (trace,) = read_trace_file(log(tmp_path, text)).traces
    assert trace.column("step").tolist() == [0, 1, 2, 3, 4, 5]
    assert trace.column("sequence").tolist() == [0, 0, 0, 1, 1, 2]
    assert trace.column("position").tolist() == [0, 1, 2, 0, 1, 1]
    assert trace.column("expert").tolist() == [5, 1, 2, 3, 4, 5]


def test_dropped_choices_are_marked(tmp_path: Path) -> None:
    text = "phase,step,layer,slot,expert,dropped\n1,0,0,0,3,0\n1,0,0,1,2,1\n"
    assert read_route_csv(log(tmp_path, text))[0].column("dropped").tolist() == [False, True]
    with pytest.raises(UsageError, match="dropped 2 is not below 2"):
        read_route_csv(log(tmp_path, text.replace(",1\n", ",2\n")))
    with pytest.raises(UsageError, match="every choice of phase decode was dropped"):
        read_route_csv(log(tmp_path, text.replace("3,0\n", "3,1\n")))
    with pytest.raises(UsageError, match="turn -1 is negative"):
        read_route_csv(log(tmp_path, "turn,phase,step,layer,slot,expert\n-1,1,0,0,0,3\n"))


def test_a_gzipped_log_is_the_same_log(tmp_path: Path) -> None:
    packed = tmp_path / "talk.route.csv.gz"
    packed.write_bytes(gzip.compress((PREAMBLE + HEADER + ROWS).encode()))
    for one, other in zip(read_route_csv(packed), read_route_csv(log(tmp_path)), strict=True):
        assert one.header == other.header
        assert one.table.drop_columns("weight").equals(other.table.drop_columns("weight"))
    assert read_route_files([InputFile(packed)], ImportOptions()).expert_bytes == {"0": 10, "1": 20}


def test_an_imported_trace_survives_parquet(tmp_path: Path) -> None:
    decode = read_route_csv(log(tmp_path))[1]
    decode.write(tmp_path / decode.file_name)
    assert type(decode).read(tmp_path / decode.file_name).table.equals(decode.table.replace_schema_metadata(None))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no header line in it"),
        (PREAMBLE, "no header line in it"),
        (PREAMBLE + HEADER, "no choices"),
        (
            HEADER.replace("expert,", "exprt,") + ROWS,
            "line 1: column 'expert' is not in the header 'turn,phase,step,layer,slot,exprt,",
        ),
        (PREAMBLE + HEADER.replace("weight", "expert") + ROWS, "line 5: column 'expert' is twice in the header"),
        (ROWS, "line 1: column 'phase' is not in the header '0,0,0,0,0,3,0.75,0,10'"),
        (HEADER + ROWS + "0,1,1,1,0,4\n", "line 7: Expected 9 columns, got 6"),
        (HEADER + ROWS + "0,1,1,1,0,four,0.5,0,0\n", "line 7, column 'expert': invalid value 'four'"),
        (HEADER + "\n# a note\n" + ROWS + "\n0,1,1,1,0,,0.5,0,0\n", "line 10, column 'expert': invalid value ''"),
        (HEADER + ROWS + "0,1,1,1,0,99999999999,0.5,0,0\n", "line 7, column 'expert': invalid value '99999999999'"),
        (HEADER + ROWS + "0,1,1,1,0,-1,0.5,0,0\n", "line 7: expert -1 is negative"),
        (PREAMBLE + HEADER + "# a note\n" + ROWS + "\n0,1,1,1,0,8,0.5,0,0\n", "line 13: expert 8 is not below 8"),
        (HEADER + ROWS + "0,2,1,1,0,4,0.5,0,0\n", "line 7: phase 2 is not below 2"),
        (HEADER + "0,1,1,1,0,\xff,0.5,0,0\n", "line 2, column 11: byte 0xff is not UTF-8"),
        (HEADER + "0,1,1,1,0,\0,0.5,0,0\n", "line 2, column 11: a NUL character"),
        (HEADER + ROWS + "0,1,1,1,0,4,0.5,3,0\n", "residency 3"),
        (HEADER + ROWS + "0,0,0,1,1,1,0.5,0,0\n", "expert 1 occurs twice among a token's choices in step 0 of layer 1"),
        (HEADER + ROWS + "0,0,0,1,1,4,0.5,0,20\n0,1,1,0,0,4,0.5,0,0\n", "slot 0 occurs twice in step 1 of layer 0"),
        (PREAMBLE + HEADER + ROWS, "a token has 1 of 2 choices in step 0 of layer 1"),
    ],
)
def test_a_damaged_log_is_two_lines_for_the_user(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_trace_file(log(tmp_path, text.encode("latin-1")))
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert reason in lines[0]
    assert "talk.route.csv" in lines[0]


def test_a_truncated_archive_a_folder_and_a_missing_file_are_two_lines_too(tmp_path: Path) -> None:
    packed = tmp_path / "cut.route.csv.gz"
    packed.write_bytes(gzip.compress((HEADER + ROWS * 50).encode())[:-20])
    damaged = tmp_path / "damaged.route.csv.gz"
    damaged.write_bytes(gzip.compress(b"")[:10] + b"\xff" * 20)
    (empty := tmp_path / "empty").mkdir()
    causes = {
        packed: "truncated gzip file",
        damaged: "damaged gzip file: ",
        empty: "a folder without run.json",
        tmp_path / "absent.route.csv": "no such file",
    }
    for path, cause in causes.items():
        with pytest.raises(UsageError, match=cause) as caught:
            read_trace_file(path)
        assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize("line", ["# n_expert=8\n", " \n#\n", "\t\n"])
def test_a_log_with_too_many_comments_is_refused_before_its_rows_are_read(
    tmp_path: Path, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_table, "MAX_OTHERS", 40)
    lines = line * (40 // line.count("\n"))
    assert [len(trace) for trace in read_route_csv(log(tmp_path, lines + HEADER + ROWS))] == [3, 2]
    monkeypatch.setattr(route_csv, "traces_of", None)
    with pytest.raises(UsageError, match="more than 40 lines with # or of white space"):
        read_route_csv(log(tmp_path, lines + HEADER + "#\n" + ROWS))


def test_the_header_is_found_behind_a_million_blank_lines(tmp_path: Path) -> None:
    blank = "\n" * 10**6
    assert [len(trace) for trace in read_route_csv(log(tmp_path, blank + HEADER + blank + ROWS))] == [3, 2]
    with pytest.raises(UsageError, match=r"line 2000008: expert -1 is negative"):
        read_route_csv(log(tmp_path, blank + HEADER + blank + ROWS + "\n0,1,1,1,0,-1,0.5,0,0\n"))


@pytest.mark.parametrize("character", [",", '"', "a"])
def test_a_header_line_of_any_length_is_two_lines_for_the_user(tmp_path: Path, character: str) -> None:
    with pytest.raises(UsageError, match="the header line has more than 65,536 characters"):
        read_route_csv(log(tmp_path, character * 65_537))
    with pytest.raises(UsageError, match="line 1: column 'phase' is not in the header"):
        read_route_csv(log(tmp_path, character * 65_536 + "\n"))


SPELLINGS = {
    "plain": lambda text: text,
    "byte-order mark": lambda text: "\ufeff" + text,
    "CR LF": lambda text: text.replace("\n", "\r\n"),
    "CR": lambda text: text.replace("\n", "\r"),
    "blank lines": lambda text: "\n \n" + text.replace("turn", "\n\t\nturn") + "\n\n  \n",
    "comments": lambda text: "  # first\n" + text.replace("\n0,1", "\n # decoding, from here\n0,1", 1) + "# end",
    "quoted header": lambda text: text.replace(HEADER, '"' + HEADER.strip().replace(",", '", "') + '"\n'),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("name", ["talk.route.csv", "talk.ROUTE.CSV", "talk.csv", "talk.route.csv.gz", "talk.Gz", "talk"])
def test_a_log_is_the_same_however_it_is_spelled_named_and_packed(tmp_path: Path, spelling: str, name: str) -> None:
    complete = PREAMBLE + HEADER + ROWS + "0,0,0,1,1,2,0.5,0,20\n"
    expected = read_trace_file(log(tmp_path, complete, "expected.route.csv"))
    text = SPELLINGS[spelling](complete)
    for content in (text.encode(), gzip.compress(text.encode()), ("\ufeff" + text.lstrip("\ufeff")).encode("utf-16-le")):
        file = read_trace_file(log(tmp_path, content, name))
        assert (file.name, file.expert_bytes, file.experts_guessed) == ("talk", {"0": 10, "1": 20}, False)
        for found, wanted in zip(file.traces, expected.traces, strict=True):
            assert found.header == wanted.header
            assert found.column("expert").tolist() == wanted.column("expert").tolist()
            assert found.column("step").tolist() == wanted.column("step").tolist()


@pytest.mark.parametrize("number", ["0", str(10**12), "9" * 5000])
def test_a_number_of_experts_out_of_range_is_refused(tmp_path: Path, number: str) -> None:
    with pytest.raises(UsageError, match=r"n_expert=\d+ is not a whole number from 1 to 65536"):
        read_trace_file(log(tmp_path, PREAMBLE.replace("n_expert=8", f"n_expert={number}") + HEADER + ROWS))


@pytest.mark.parametrize("size", ["1e25", str(10**25), "0", "-1"])
def test_an_expert_size_that_is_no_size_is_refused(tmp_path: Path, size: str) -> None:
    with pytest.raises(UsageError, match=r"expert_bytes=\S+ is not a whole number"):
        read_trace_file(log(tmp_path, PREAMBLE.replace("expert_bytes=20", f"expert_bytes={size}") + HEADER + ROWS))


def test_gemmas_log_has_the_stated_shape(shared_data: Path) -> None:
    path = shared_data / "traces" / "gemma.route.csv"
    prefill, decode = read_route_csv(path)
    assert (decode.header.num_experts, decode.header.top_k, len(decode.header.layers)) == (128, 6, 30)
    assert len(decode) == 128 * 30 * 6
    assert len(prefill) == 29 * 30 * 6
    assert read_trace_file(path).expert_bytes["0"] == 4336640


def test_sequences_of_one_step_are_one_batch(tmp_path: Path) -> None:
    """Two sequences decode together: their rows alternate, and the step does not say their positions."""
    text = "phase,step,layer,slot,expert,sequence,position,domain\n" + "".join(
        f"1,{step},{layer},0,{(step + sequence + layer) % 4},{sequence},{10 * sequence + step},{name}\n"
        for step in range(3)
        for layer in range(2)
        for sequence, name in ((0, "code"), (3, "prose"))
    )
    (trace,) = read_trace_file(log(tmp_path, text)).traces
    assert trace.column("step").tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert trace.column("sequence").tolist() == [0, 3] * 6
    assert trace.column("position").tolist() == [0, 30, 0, 30, 1, 31, 1, 31, 2, 32, 2, 32]
    assert trace.names("domain") == ["code", "prose"]


def test_prompts_whose_rows_follow_each_other_ran_one_after_another(tmp_path: Path) -> None:
    rows = [(0, 0, 0), (0, 1, 0), (1, 2, 0), (0, 0, 1), (0, 1, 1), (1, 2, 1)]
    text = "phase,step,layer,slot,expert,sequence\n" + "".join(
        f"{phase},{step},0,0,{step},{one}\n" for phase, step, one in rows
    )
    prefill, decode = read_trace_file(log(tmp_path, text)).traces
    assert (prefill.column("step").tolist(), decode.column("step").tolist()) == ([0, 1, 3, 4], [2, 5])
    assert (prefill.column("sequence").tolist(), decode.column("sequence").tolist()) == ([0, 0, 1, 1], [0, 1])
    assert prefill.column("position").tolist() == [0, 1, 0, 1]


def test_a_sequence_number_that_two_chats_have_stands_for_two_sequences(tmp_path: Path) -> None:
    rows = [(turn, step, sequence) for turn in range(2) for step in range(2) for sequence in (0, 1)]
    text = "turn,phase,step,layer,slot,expert,sequence\n" + "".join(
        f"{turn},1,{step},0,0,1,{one}\n" for turn, step, one in rows
    )
    (trace,) = read_trace_file(log(tmp_path, text)).traces
    assert trace.column("step").tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert trace.column("sequence").tolist() == [0, 1, 0, 1, 2, 3, 2, 3]


def test_an_encoder_has_layers_of_its_stack(tmp_path: Path) -> None:
    text = "phase,step,layer,slot,expert,stack\n2,0,3,0,1,enc\n2,0,11,0,1,enc\n1,1,3,0,2,dec\n1,1,5,0,2,\n"
    decode, encode = read_trace_file(log(tmp_path, text)).traces
    assert (encode.header.phase, encode.header.layers) == ("encode", ["enc.3", "enc.11"])
    assert (decode.header.phase, decode.header.layers) == ("decode", ["5", "dec.3"])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"experts": 9}, "it states 8 experts, but the options or the model's configuration 9"),
        ({"top_k": 3}, "it states 2 choices of a token, but the options or the model's configuration 3"),
        ({"layers": LayerMap((1, 2))}, "layer 0 has choices, but no experts by the stated layers"),
    ],
)
def test_a_log_that_contradicts_what_is_stated_is_refused(tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        read_trace_file(log(tmp_path), options=ImportOptions(**options))


def test_a_log_without_token_ids_says_no_text(tmp_path: Path) -> None:
    text = "token_id,expert,slot,layer,step,phase\n99,1,0,4,7,1\n"
    assert read_trace_file(log(tmp_path, text), options=ImportOptions(strip_tokens=True)).traces[0].column("token_id") == [-1]
