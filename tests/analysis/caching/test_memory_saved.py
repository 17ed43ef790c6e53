"""Memory and times of expert buffering, against the paper's own figures."""

import pytest

from moeprof.analysis.caching.memory_saved import (
    copy_ns,
    resident_bytes,
    saved_by_budget,
    saved_by_slots,
    static_bytes,
    weights_of,
)
from moeprof.analysis.model_size import ffn_parameters
from moeprof.records.recipe.files import load_recipe
from moeprof.records.run.replay import TraceSource

GIB = 2**30


def paper_model(recipe_name: str, layers: list[str]) -> TraceSource:
    """The trace of some layers of a recipe's model."""
    model = load_recipe(recipe_name).model
    size = ffn_parameters(model) * model.bytes_per_element
    return TraceSource(
        name=recipe_name,
        path="",
        workload="mt",
        num_experts=model.experts,
        top_k=2,
        layers=layers,
        decisions={},
        expert_bytes=dict.fromkeys(layers, size),
        **weights_of(model),
    )


@pytest.fixture
def mt() -> TraceSource:
    """The decoder's six MoE layers of the paper's translation model."""
    return paper_model("mt-54b", load_recipe("mt-54b").model.decoder_moe_layers)


@pytest.mark.parametrize(
    ("slots", "saved_gib", "share", "ratio"),
    [(16, 0, 0, 1), (10, 2.2507, 0.129, 1.148), (5, 4.126, 0.236, 1.309), (1, 5.6267, 0.3217, 1.474)],
)
def test_the_papers_savings_on_eight_gpus(mt: TraceSource, slots: int, saved_gib: float, share: float, ratio: float) -> None:
    saved, whole = sum(saved_by_slots(mt, slots, 8).values()), static_bytes(mt, 8)
    assert whole is not None
    assert whole / GIB == pytest.approx(17.49, abs=0.01)
    assert saved / GIB == pytest.approx(saved_gib, abs=0.001)
    assert saved / whole == pytest.approx(share, abs=0.0005)
    assert whole / (whole - saved) == pytest.approx(ratio, abs=0.0005)


def test_a_budget_saves_what_it_leaves_out(mt: TraceSource) -> None:
    everything = 6 * 16 * mt.expert_bytes["dec.3"]
    assert sum(resident_bytes(mt, 8).values()) == everything
    assert saved_by_budget(mt, everything - 5, 8) == 5
    assert saved_by_budget(mt, everything + 5, 8) == 0


def test_one_miss_takes_what_the_paper_says(mt: TraceSource) -> None:
    lm = paper_model("lm-52b", ["1"])
    assert copy_ns(mt.expert_bytes["dec.3"], 12 * 10**9) / 1e6 == pytest.approx(5.59, abs=0.005)
    assert copy_ns(lm.expert_bytes["1"], 12 * 10**9) / 1e6 == pytest.approx(1.40, abs=0.005)


def test_without_the_models_shape_nobody_knows_its_weights(mt: TraceSource) -> None:
    assert static_bytes(mt.model_copy(update={"weight_bytes": None}), 8) is None
