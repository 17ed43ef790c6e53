"""Logged choices become traces with a report, and contradictions of what is stated are refused."""

from typing import Any

import numpy as np
import pytest

from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.importing import Stated, imported
from tests.records.traces.logged import logged, random_experts

PLAIN = Stated("made-up", "talk")


def test_what_is_left_out_is_counted_in_the_header_of_each_phase() -> None:
    experts = np.concatenate([np.repeat(random_experts(1, layers=8), 20, axis=0), random_experts(9, layers=8)])
    experts[-2] = -1
    wide = np.concatenate([experts, np.full((29, 8, 3), -1)], axis=2)
    sequence_T = np.repeat([0, 1], [20, 9])
    choices = logged(wide, sequence_T=sequence_T, decode_T=np.arange(29) > 22)
    file = imported(choices, PLAIN, ImportOptions())
    assert [trace.header.phase for trace in file.traces] == ["prefill", "decode"]
    for trace in file.traces:
        assert trace.header.imported == file.report
    assert file.report is not None
    counts = file.report.model_dump(exclude={"notes", "order_doubt", "format"})
    assert counts == {"kept": 64, "padding": 8, "warmup": 160, "cached": 0, "sentinels": 192, "repeated": 0}
    assert list(file.report.lines) == [
        "imported from made-up: 64 rows of a token and layer kept; left out: 8 padding, 160 warm-up, 192 choices of no expert"
    ]
    assert sum(len(trace) for trace in file.traces) == 64 * 2


def test_all_that_is_known_of_a_token_is_in_its_rows() -> None:
    experts = random_experts(2, layers=1)
    file = imported(
        logged(
            experts,
            layers=[5],
            sequence_T=np.array([3, 4]),
            position_T=np.array([7, 0]),
            token_id_T=np.array([11, 12]),
            weights_TLK=np.array([[[0.75, 0.25]], [[0.5, 0.5]]]),
            domain_T=np.array([1, 0]),
            domains=["code", "prose"],
            dropped_TLK=np.array([[[False, True]], [[False, False]]]),
        ),
        PLAIN,
        ImportOptions(),
    )
    first = file.traces[0].table.to_pylist()[1]
    assert first == {
        "step": 0, "sequence": 3, "position": 7, "token_id": 11, "layer": "5", "slot": 1, "expert": experts[0, 0, 1],
        "weight": 0.25, "domain": "prose", "dropped": True, "residency": None,
    }  # fmt: skip
    stripped = imported(logged(experts, token_id_T=np.array([11, 12])), PLAIN, ImportOptions(strip_tokens=True))
    assert set(stripped.traces[0].column("token_id")) == {-1}


@pytest.mark.parametrize(("in_file", "given", "guessed", "known"), [(9, None, False, 9), (None, 9, False, 9), (9, 9, False, 9)])
def test_the_number_of_experts_is_that_of_the_file_or_the_options(
    in_file: int | None, given: int | None, guessed: bool, known: int
) -> None:
    file = imported(logged(random_experts(3)), Stated("made-up", "talk", experts=in_file), ImportOptions(experts=given))
    assert (file.traces[0].header.num_experts, file.experts_guessed) == (known, guessed)
    assert imported(logged(random_experts(30)), PLAIN, ImportOptions()).experts_guessed


PARTLY = random_experts(3)
PARTLY[1, 0, 0] = -1


@pytest.mark.parametrize(
    ("experts", "stated", "options", "reason"),
    [
        (
            random_experts(3),
            {"experts": 9},
            {"experts": 8},
            "it states 9 experts, but the options or the model's configuration 8",
        ),
        (
            random_experts(30),
            {"experts": 7},
            {},
            r"the experts at position \d+ of sequence 0, layer \d are .*, but there are 7 experts",
        ),
        (random_experts(3), {"top_k": 3}, {}, "a token has 2 choices, not 3 as stated"),
        (random_experts(3), {}, {"top_k": 1}, "a token has 2 choices, not 1 as stated"),
        (random_experts(0), {}, {}, "no choices in it"),
        (random_experts(3) * 0 - 1, {}, {}, "only rows of padding or warm-up in it"),
        (np.repeat(random_experts(1), 400, axis=0), {}, {}, "only rows of padding or warm-up in it"),
        (PARTLY, {}, {}, r"the experts at position 1 of sequence 0, layer 0 are \[-1, \d\]"),
        (random_experts(3) - 9, {}, {}, "the experts at position 0 of sequence 0, layer 0 are"),
        (random_experts(3) + 2**17, {}, {}, "is not below 65,536"),
        (random_experts(1, 1, 128, 128), {}, {}, "a token has 128 choices, more than 127"),
    ],
)
def test_what_contradicts_itself_is_refused(
    experts: np.ndarray, stated: dict[str, Any], options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        imported(logged(experts), Stated("made-up", "talk", **stated), ImportOptions(**options))


def test_warmup_is_kept_if_the_user_wants_it() -> None:
    experts = np.repeat(random_experts(1), 400, axis=0)
    (trace,) = imported(logged(experts), PLAIN, ImportOptions(keep_warmup=True)).traces
    assert len(trace) == 400 * 2 * 2
