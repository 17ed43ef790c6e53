"""Between every pair of formats that moeprof writes, counts stay equal, and so do the choices where both formats hold them."""

from collections import Counter
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

LAYERS, NUM_EXPERTS, TOP_K = (1, 2, 4), 6, 2
OPTIONS = ImportOptions(layers=LayerMap(LAYERS, 5), top_k=TOP_K, experts=NUM_EXPERTS)
CHOICES = [name for name in writable() if not FORMATS[name].loads_only and name != "selections"]
"""Formats of choices that hold a prompt and the tokens decoded after it; selections are those of one encoder."""

COUNTS = [name for name in writable() if FORMATS[name].loads_only]


@st.composite
def chats(draw: st.DrawFn) -> TraceFile:
    """A prompt of several tokens and some decoded ones, each with two choices of six experts in three layers."""
    prompt, decoded = draw(st.integers(2, 5)), draw(st.integers(2, 5))
    tokens = prompt + decoded
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    experts_TLK = np.argsort(random.random((tokens, len(LAYERS), NUM_EXPERTS)), axis=2)[..., :TOP_K]
    position_T = np.arange(tokens)
    choices = LoggedChoices(
        experts_TLK,
        LAYERS,
        step_T=np.maximum(position_T - prompt + 1, 0),
        sequence_T=np.zeros(tokens, int),
        position_T=position_T,
        decode_T=position_T >= prompt,
    )
    return TraceFile("chat", traces_of(choices, "chat", NUM_EXPERTS))


def counts_of(file: TraceFile) -> dict[int, list[int]]:
    """Choices by layer and expert over all domains; layers without any are left out."""
    found = file.counts or counted(file.traces)
    total_LE = np.sum([found.totals(domain) for domain in found.counts], axis=0)
    return {layer: row.tolist() for layer, row in zip(found.layers, total_LE, strict=True) if row.any()}


def choices_of(file: TraceFile) -> Counter[tuple[str, int, int, int]]:
    """Layer, position, slot and expert of every choice, with their number."""
    rows = [row for trace in file.traces for row in trace.table.to_pylist()]
    return Counter((row["layer"], row["position"], row["slot"], row["expert"]) for row in rows)


def read(path: Path, name: str) -> TraceFile:
    """The content of a file of a format."""
    return read_recording(files_in(path), loads_only=True, options=OPTIONS.model_copy(update={"format": name}))


@pytest.mark.parametrize(("first", "second"), [*product(CHOICES, [*CHOICES, *COUNTS]), *product(COUNTS, COUNTS)])
@settings(max_examples=2, deadline=None)
@given(chat=chats())
def test_what_is_converted_twice_has_the_same_counts_and_choices(first: str, second: str, chat: TraceFile) -> None:
    with TemporaryDirectory() as folder:
        start, one, two = (Path(folder) / name for name in ("start", "one", "two"))
        write = FORMATS["run"].write
        assert write is not None
        write(chat, start)
        convert(files_in(start), one, target=first, options=OPTIONS)
        convert(files_in(one), two, target=second, options=OPTIONS.model_copy(update={"format": first}))
        found = read(two, second)
    assert counts_of(found) == counts_of(chat)
    if found.traces:
        assert choices_of(found) == choices_of(chat)
