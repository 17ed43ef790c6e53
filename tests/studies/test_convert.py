"""Between every pair of formats counts stay equal, and so do the choices where both formats hold them."""

from collections import Counter
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.records.traces.choices import LoggedChoices, traces_of
from moeprof.records.traces.counting import counted
from moeprof.records.traces.formats import FORMATS, files_in, read_recording
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.layer_map import LayerMap
from moeprof.records.traces.trace_format import TraceFile
from moeprof.studies.convert import convert, writable
from moeprof.studies.replay.source import read_source
from tests.fuzz.check import examples
from tests.records.traces.by_hand import BY_HAND

CHOICES = [name for name in FORMATS if not FORMATS[name].loads_only]
COUNTS = [name for name in FORMATS if FORMATS[name].loads_only]
PAIRS = [(first, second) for first, second in [*product(CHOICES, FORMATS), *product(COUNTS, COUNTS)] if second in writable()]
"""Every format, and every format that moeprof writes and that can hold what the first one does."""


@dataclass(frozen=True)
class Talk:
    """A trace, and what a user states about it."""

    file: TraceFile
    options: ImportOptions


@st.composite
def talks(draw: st.DrawFn, pair: tuple[str, str]) -> Talk:
    """Sequences of a prompt and decoded tokens; one sequence for SGLang, which names none, and one prompt for selections."""
    layers = sorted(draw(st.sets(st.integers(0, 5), min_size=1, max_size=3)))
    num_experts = draw(st.integers(2, 8))
    top_k, selected = draw(st.integers(1, min(num_experts, 3))), "selections" in pair
    prompts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=1 if selected or "sglang" in pair else 3))
    decoded = [0 if selected else draw(st.integers(0, 4)) for _ in prompts]
    lengths = np.add(prompts, decoded)
    sequence_T = np.repeat(np.arange(len(prompts)), lengths)
    position_T = np.concatenate([np.arange(length) for length in lengths])
    decode_T = position_T >= np.array(prompts)[sequence_T]
    shape = (len(sequence_T), len(layers), num_experts)
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    experts_TLK = np.argsort(random.random(shape), axis=2)[..., :top_k]
    if top_k == 1:
        experts_TLK[0] = 1  # a layer in which every choice is expert 0 counts as dense
    choices = LoggedChoices(
        experts_TLK,
        layers,
        step_T=np.cumsum(decode_T | (position_T == 0)) - 1,
        sequence_T=sequence_T,
        position_T=position_T,
        decode_T=decode_T,
    )
    stated = ImportOptions(layers=LayerMap(tuple(layers), layers[-1] + 1), top_k=top_k, experts=num_experts)
    return Talk(TraceFile("talk", traces_of(choices, "talk", num_experts)), stated)


def written(name: str, talk: Talk, folder: Path) -> Path:
    """The trace in a format."""
    write = FORMATS["run"].write
    assert write is not None
    write(talk.file, start := folder / "start")
    if name in BY_HAND:
        BY_HAND[name](talk.file, folder / "one")
    else:
        convert(files_in(start), folder / "one", target=name, options=talk.options)
    return folder / "one"


def counts_of(file: TraceFile) -> dict[int, list[int]]:
    """Choices by layer and expert over all domains; layers without any are left out."""
    found = file.counts or counted(file.traces)
    total_LE = np.sum([found.totals(domain) for domain in found.counts], axis=0)
    return {layer: row.tolist() for layer, row in zip(found.layers, total_LE, strict=True) if row.any()}


def choices_of(file: TraceFile) -> Counter[tuple[int, ...]]:
    """Layer, sequence, position, slot and expert of every choice, with their number."""
    rows = [row for trace in file.traces for row in trace.table.to_pylist()]
    return Counter((int(row["layer"]), *(row[name] for name in ("sequence", "position", "slot", "expert"))) for row in rows)


@pytest.mark.parametrize("pair", PAIRS, ids="-to-".join)
@settings(**examples(2))
@given(data=st.data())
def test_what_is_converted_twice_has_the_same_counts_and_choices(pair: tuple[str, str], data: st.DataObject) -> None:
    talk = data.draw(talks(pair))
    with TemporaryDirectory() as folder:
        one, two = written(pair[0], talk, Path(folder)), Path(folder) / "two"
        convert(files_in(one), two, target=pair[1], options=talk.options.model_copy(update={"format": pair[0]}))
        stated = talk.options.model_copy(update={"format": pair[1]})
        found = read_recording(files_in(two), loads_only=True, options=stated)
    assert counts_of(found) == counts_of(talk.file)
    if found.traces:
        assert choices_of(found) == choices_of(talk.file)


@pytest.mark.parametrize("name", ["run", "route-csv"])
def test_a_log_stays_a_log(tmp_path: Path, name: str) -> None:
    """Its prompts are tokens with steps of their own, which a replay takes together."""
    (tmp_path / "talk.route.csv").write_text(
        "# n_expert=4\nphase,step,layer,slot,expert\n0,0,0,0,1\n0,1,0,0,2\n1,2,0,0,1\n0,3,0,0,3\n1,4,0,0,1\n"
    )
    convert([tmp_path / "talk.route.csv"], tmp_path / "a", target=name, options=ImportOptions())
    batches = [
        read_source(path).selection.cache_inputs.stream.batch_N.tolist()
        for path in (tmp_path / "talk.route.csv", tmp_path / "a")
    ]
    assert batches == [[0, 0, 1, 2, 3]] * 2


def test_every_format_is_the_first_of_a_pair_and_every_one_that_is_written_the_second() -> None:
    assert {first for first, _ in PAIRS} == {*FORMATS}
    assert {second for _, second in PAIRS} == {*writable()}
    assert {*FORMATS} - {*writable()} == {*BY_HAND}
