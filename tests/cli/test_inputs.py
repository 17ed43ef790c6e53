"""Files from outside as users give them: through pipes, and larger than they may be."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moeprof.records.run.run import Run
from moeprof.records.system.inputs import MAX_BYTES
from tests.records.run.runs import value_of
from tests.records.system.pipes import fed
from tests.studies.replay.logs import EXPERT_BYTES, route_log

Call = Callable[..., tuple[int, str, str]]

OPTIONS = ("--policy", "lru", "--slots", "2")
AT = {"phase": "decode", "variant": "imported", "point": "policy=lru;slots=2"}


def piped(*arguments: object, **stdin: Any) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own, with something on stdin."""
    return subprocess.run([sys.executable, "-m", "moeprof", *map(str, arguments)], capture_output=True, timeout=60, **stdin)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """One layer; experts 0, 1 | 2, 1 | 0, 3 in two slots: 0, 1, 2, 0 and 3 are loaded."""
    return route_log(tmp_path / "talk.route.csv", [[0, 1], [2, 1], [0, 3]])


def test_a_packed_log_from_stdin_keeps_the_sizes_of_its_experts(log: Path, tmp_path: Path) -> None:
    content = gzip.compress(log.read_bytes())
    ended = piped("replay", "/dev/stdin", "--cache", *OPTIONS, "--out", tmp_path / "run", input=content)
    assert (ended.returncode, ended.stderr) == (0, b"")
    run = Run.open(tmp_path / "run")
    assert value_of(run, "misses", **AT) == 5
    assert value_of(run, "bytes_loaded", **AT) == 5 * EXPERT_BYTES


@pytest.mark.parametrize("kind", ["--cache", "--balance"])
def test_a_named_pipe_is_replayed_as_the_file_is(moeprof: Call, log: Path, tmp_path: Path, kind: str) -> None:
    with fed(tmp_path / "pipe", log.read_bytes()) as pipe:
        for trace, out in ((pipe, "piped"), (log, "file")):
            assert moeprof("replay", trace, kind, "--out", tmp_path / out)[0] == 0
    assert (tmp_path / "piped" / "metrics.csv").read_bytes() == (tmp_path / "file" / "metrics.csv").read_bytes()


def test_counts_and_recipes_are_read_from_pipes_too(moeprof: Call, tmp_path: Path) -> None:
    counts = {"top_k": 1, "layers": [0], "counts": {"a": [[3, 1]], "b": [[0, 4]]}}
    with fed(tmp_path / "counts", json.dumps(counts).encode()) as pipe:
        assert moeprof("replay", pipe, "--balance", "--devices", "2", "--out", tmp_path / "run")[0] == 0
    shown = moeprof("recipes", "show", "lm-tiny")[1]
    with fed(tmp_path / "pipe.toml", b"\xef\xbb\xbf" + shown.replace("\n", "\r\n").encode()) as pipe:
        assert moeprof("recipes", "show", pipe)[1] == shown


def test_a_pipe_that_both_sides_of_a_measurement_would_read_is_refused(moeprof: Call, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    code, _, stderr = moeprof("compare", "--run-both", tmp_path / "pipe.toml", "--out", tmp_path / "out")
    assert code == 2
    assert stderr.splitlines() == [
        f"Error: side A: recipe {tmp_path}/pipe.toml: a pipe, which several processes cannot each read",
        "Give a built-in name or a readable .toml file.",
    ]


@pytest.mark.parametrize("form", [("--max-bytes", "100"), ("--max-bytes=100",)])
@pytest.mark.parametrize("first", [False, True])
def test_the_largest_input_is_an_option_of_every_command(
    moeprof: Call, log: Path, form: tuple[str, ...], first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MAX_BYTES, "")  # restored afterwards
    command = ("replay", log, "--cache", *OPTIONS)
    code, _, stderr = moeprof(*form, *command) if first else moeprof(*command, *form)
    assert code == 2
    assert stderr.splitlines() == [
        f"Error: route log {log}: more than 100 B",
        "Set --max-bytes SIZE to read more, if the memory suffices.",
    ]


def test_an_endless_stream_and_a_device_end_in_two_lines(moeprof: Call) -> None:
    with subprocess.Popen(["yes"], stdout=subprocess.PIPE) as endless:
        ended = piped("replay", "/dev/stdin", "--cache", "--max-bytes", "1MiB", stdin=endless.stdout)
        endless.kill()
    assert ended.returncode == 2
    assert ended.stderr.startswith(b"Error: trace /dev/stdin: more than 1 MiB\nSet --max-bytes")
    code, _, stderr = moeprof("replay", "/dev/zero", "--cache")
    assert code == 2
    assert stderr.startswith("Error: trace /dev/zero: a device, not a file\nGive a routing trace or a table of counts; ")


@pytest.mark.parametrize("size", ["much", "", "-1"])
def test_a_largest_input_that_is_no_size_is_refused(moeprof: Call, size: str) -> None:
    code, _, stderr = moeprof("recipes", "list", "--max-bytes", size)
    assert code == 2
    assert f"--max-bytes {size}: '{size}' is not a size" in stderr
