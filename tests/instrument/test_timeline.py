"""The profiler's trace: readable, named as TensorBoard wants it, with a range for every region."""

import gzip
import json
import re
from pathlib import Path

import torch

from moeprof.instrument.probe import active, region
from moeprof.instrument.timeline import ROUNDS, range_name, record_timeline


def play() -> None:
    with region("embed"):
        torch.ones(4)
    for layer in ("1", "3"):
        with region("gate", layer):
            torch.ones(4) @ torch.ones(4)


def test_the_trace_holds_the_regions_of_a_few_rounds_and_nothing_else_of_ours(tmp_path: Path) -> None:
    record_timeline(play, tmp_path / "timeline", "score-static", "cpu")
    (file,) = (tmp_path / "timeline").iterdir()
    assert re.fullmatch(r"score-static\.\d+\.pt\.trace\.json\.gz", file.name)
    names = [event.get("name", "") for event in json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]]
    ours = [name for name in names if name.startswith("moeprof::")]
    assert sorted(ours) == sorted(["moeprof::embed", "moeprof::gate[1]", "moeprof::gate[3]"] * ROUNDS)
    assert sum(name.startswith("ProfilerStep#") for name in names) == ROUNDS
    assert active() is None


def test_a_range_is_named_after_its_region_and_layer() -> None:
    assert range_name("gate", "enc.3") == "moeprof::gate[enc.3]"
    assert range_name("head", "") == "moeprof::head"
