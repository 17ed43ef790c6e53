"""Whether speeds may be compared, and the rows that say what was held against what."""

from pathlib import Path

import pytest

from moeprof.analysis.comparison.output_agreement import (
    Agreement,
    Compared,
    agreement_rows,
    agreements_of,
    disagreements,
    output_rows,
    variants_without_speedup,
)
from moeprof.records.metrics.registry import METRICS
from moeprof.records.recipe.variant import STATIC, Variant
from moeprof.records.run.raw_tables import AGREEMENT
from moeprof.records.run.run import Run
from moeprof.studies.passes.outputs import agreement_rows as raw_rows
from tests.records.run.runs import labelled, raw_run


def rows_of(found: Agreement, *, forced: bool = False) -> dict[tuple[str, str], float]:
    """Values by metric and layer."""
    rows = list(agreement_rows("lm", "score", "dynamic", found, forced=forced))
    assert {row.metric for row in rows} <= set(METRICS)
    assert len({row.address for row in rows}) == len(rows)
    assert {row.kind for row in rows} == {"forced" if forced else "routed"}
    return {(row.metric, row.layer): row.value for row in rows}


def test_what_was_compared_adds_up_and_the_largest_difference_stays() -> None:
    compared = Compared()
    for part in ((10, 0, 1e-7), (5, 2, 0.5), (7, 0, 0.25)):
        compared.add(*part)
    assert compared == Compared(tokens=22, differing=2, max_abs_diff=0.5)


def test_nothing_differs_until_something_does() -> None:
    assert Agreement(layers={"1": Compared(9)}, whole=Compared(9, 0, 1e-6), tokens=9).equal
    assert Agreement(layers={"1": Compared(9)}, tokens=9).equal  # end to end every token sees a loss, in the layer not


def test_flips_are_no_difference() -> None:
    assert Agreement(whole=Compared(9), flips=3).equal


def test_what_was_never_compared_is_not_equal() -> None:
    found = Agreement(layers={"1": Compared()}, tokens=9)
    assert not found.equal
    assert "no token" in found.complaint("dynamic", "static")


@pytest.mark.parametrize(
    "different",
    [
        Agreement(whole=Compared(9), jumps=1),
        Agreement(whole=Compared(9, 1, 0.5)),
        Agreement(layers={"1": Compared(9), "3": Compared(9, 1, 0.5)}),
    ],
    ids=["another routing", "end to end", "one layer"],
)
def test_a_single_token_is_enough_to_differ(different: Agreement) -> None:
    assert not different.equal


def test_the_complaint_names_who_differs_from_whom_where_and_how_often() -> None:
    found = Agreement({"1": Compared(9), "3": Compared(2000, 1500, 0.5)}, Compared(9, 4, 1.0), 9, jumps=2)
    assert found.complaint("dynamic", "static") == (
        "outputs of dynamic differ from those of static on tokens without a drop: "
        "1,500 in layer 3, 4 end to end, 2 by other routing"
    )


def test_rows_tell_tokens_compared_left_out_and_differing_end_to_end_and_by_layer() -> None:
    found = Agreement({"1": Compared(50, 0, 1e-6), "3": Compared(60, 1, 2e-3)}, Compared(40, 2, 0.125), 64, flips=3, jumps=5)
    assert rows_of(found) == {
        ("output_tokens_compared", ""): 40,
        ("output_tokens_lost", ""): 24,
        ("output_tokens_differing", ""): 7,
        ("routing_flips", ""): 3,
        ("output_max_abs_diff", ""): 0.125,
        ("output_tokens_compared", "1"): 50,
        ("output_tokens_differing", "1"): 0,
        ("output_max_abs_diff", "1"): 1e-6,
        ("output_tokens_compared", "3"): 60,
        ("output_tokens_differing", "3"): 1,
        ("output_max_abs_diff", "3"): 2e-3,
    }


def test_where_nothing_could_be_compared_no_difference_is_claimed_to_be_small() -> None:
    found = rows_of(Agreement({"1": Compared()}, tokens=12))
    assert not any(metric == "output_max_abs_diff" for metric, _ in found)
    assert found["output_tokens_compared", ""] == found["output_tokens_compared", "1"] == 0
    assert found["output_tokens_lost", ""] == 12


def test_agreement_on_the_next_token_is_a_share_of_all_tokens_and_absent_where_nothing_is_predicted() -> None:
    assert rows_of(Agreement(tokens=8, agreeing=6))["token_agreement", ""] == 0.75
    assert ("token_agreement", "") not in rows_of(Agreement(tokens=8))


def test_what_forced_decisions_led_to_is_labelled_forced() -> None:
    rows_of(Agreement({"1": Compared(1)}, Compared(1, 0, 0.1), 1, agreeing=1), forced=True)


def recorded(path: Path, *ranks: Agreement, phase: str = "score", variant: str = "dynamic") -> Run:
    """A run of which every rank recorded its own comparison."""
    rows = [{**row, "rank": rank} for rank, found in enumerate(ranks) for row in raw_rows(phase, variant, found)]
    return raw_run(path, {AGREEMENT: rows}, variants=labelled(STATIC, Variant(dispatch="dynamic")))


def test_ranks_add_up_what_each_of_them_compared(tmp_path: Path) -> None:
    one = Agreement({"1": Compared(9, 1, 0.5), "3": Compared(9)}, Compared(4, 0, 0.25), 9, flips=1, jumps=2, agreeing=7)
    other = Agreement({"1": Compared(5), "3": Compared(5, 0, 0.75)}, Compared(5, 0, 0.125), 5, flips=3, jumps=0, agreeing=5)
    both = Agreement(
        {"1": Compared(14, 1, 0.5), "3": Compared(14, 0, 0.75)}, Compared(9, 0, 0.25), 14, flips=4, jumps=2, agreeing=12
    )
    assert agreements_of(recorded(tmp_path / "both", one, other)) == {("score", "dynamic"): both}
    assert agreements_of(recorded(tmp_path / "one", one)) == {("score", "dynamic"): one}


def test_a_difference_on_one_rank_is_one_for_all(tmp_path: Path) -> None:
    fine, broken = Agreement(whole=Compared(9), tokens=9), Agreement(whole=Compared(9, 1, 0.5), tokens=9)
    equal, different = recorded(tmp_path / "equal", fine, fine), recorded(tmp_path / "different", fine, broken)
    assert agreements_of(equal)["score", "dynamic"].equal
    assert not agreements_of(different)["score", "dynamic"].equal
    assert agreements_of(equal)["score", "dynamic"].agreeing is None


def test_a_variant_that_computes_something_else_has_no_speed_up_in_that_phase_and_the_run_says_why(tmp_path: Path) -> None:
    fine, broken = Agreement(whole=Compared(9), tokens=9), Agreement(whole=Compared(9, 4, 0.5), tokens=9)
    rows = [
        {**row, "rank": 0}
        for phase, found in (("score", fine), ("decode", broken))
        for row in raw_rows(phase, "dynamic", found)
    ]
    run = raw_run(tmp_path / "run", {AGREEMENT: rows}, variants=labelled(STATIC, Variant(dispatch="dynamic")))
    assert [variants_without_speedup(run, phase) for phase in ("score", "decode")] == [[], ["dynamic"]]
    (sentence,) = disagreements(run)
    assert sentence == f"decode: {broken.complaint('dynamic', 'static')}"


def test_the_rows_of_a_run_are_those_of_all_its_comparisons(tmp_path: Path) -> None:
    found = Agreement({"1": Compared(9, 1, 0.5)}, Compared(4, 0, 0.25), 9, flips=1, jumps=2, agreeing=7)
    rows = list(output_rows(recorded(tmp_path / "run", found)))
    assert [row for row, _ in rows] == list(agreement_rows("lm", "score", "dynamic", found, forced=False))
    assert not any(values for _, values in rows)
