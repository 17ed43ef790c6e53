"""What dominates, in words that hold under the variant at hand."""

import pytest

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.analysis.timing.bottleneck import CAUSES, bottleneck, dominant, includes_idle_gaps
from moeprof.records.metrics.row import RecordedRow, row_key
from moeprof.records.recipe.files import load_recipe
from moeprof.records.regions import MODEL_REGIONS, REGIONS
from moeprof.records.run.run import RunRecord


def test_experts_under_static_gating_compute_slots_that_are_not_required() -> None:
    found = dominant({"gate": 0.1, "experts": 0.61, "attention": 0.29}, variant="static", waste=12.8)
    assert found is not None
    assert (found.region, found.share) == ("experts", 0.61)
    assert found.sentence == (
        "experts, 61% of the step. It computes 12.8 slots per slot required; dynamic gating removes the padding, for a speed-up of at "
        "most 2.3x on its own."
    )


def test_where_no_slot_is_wasted_dynamic_gating_is_not_recommended() -> None:
    for variant, waste in (("dynamic", 12.8), ("static", 1.0), ("static", None), ("dynamic+grouped_mm", 12.8)):
        found = dominant({"experts": 1.0}, variant=variant, waste=waste)
        assert found is not None
        assert "dynamic gating" not in found.sentence


@pytest.mark.parametrize("region", ["dispatch", "combine"])
def test_the_mask_belongs_to_static_gating_alone(region: str) -> None:
    found = {variant: dominant({region: 1.0}, variant=variant) for variant in ("static", "tutel", "dynamic")}
    assert [variant for variant, one in found.items() if one and "mask" in one.sentence] == ["static"]


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("variant", ["static", "tutel", "dynamic", "dense"])
def test_every_region_has_a_sentence_under_every_variant(region: str, variant: str) -> None:
    found = dominant({region: 0.5}, variant=variant, waste=64.0)
    assert found is not None
    assert found.sentence.startswith(f"{region}, 50% of the step. ")
    assert set(CAUSES) | set(MODEL_REGIONS) == set(REGIONS)


def test_without_shares_nothing_dominates() -> None:
    assert dominant({}, variant="static") is None


def test_what_dominates_is_read_back_from_a_run() -> None:
    shares = {"gate": 0.2, "experts": 0.7, "other": 0.1}
    at = {"workload": "lm", "phase": "score", "variant": "static"}
    rows = [RecordedRow(row_key("region_share", region=r, **at), "fraction", "timed", share) for r, share in shares.items()]
    rows.append(RecordedRow(row_key("waste_factor", **at), "ratio", "routed", 12.8))
    metrics = RunMetrics.from_rows(RunRecord(command="characterize", recipe=load_recipe("lm-tiny")), rows)
    found = bottleneck(metrics, "score", "static")
    assert found is not None
    assert (found.region, found.share) == ("experts", 0.7)
    assert "12.8 slots per slot required" in found.sentence
    assert bottleneck(metrics, "decode", "static") is None


def test_on_cuda_no_region_is_blamed_because_its_time_includes_idle_gaps() -> None:
    recipe = load_recipe("lm-tiny", ["measure.device=cuda"])
    row = RecordedRow(
        row_key("region_share", workload="lm", phase="score", variant="static", region="experts"), "fraction", "timed", 1.0
    )
    on_cuda, on_cpu = (
        RunMetrics.from_rows(RunRecord(command="characterize", recipe=one), [row]) for one in (recipe, load_recipe("lm-tiny"))
    )
    assert (includes_idle_gaps(on_cuda), includes_idle_gaps(on_cpu)) == (True, False)
    assert bottleneck(on_cuda, "score", "static") is None
    assert bottleneck(on_cpu, "score", "static") is not None
