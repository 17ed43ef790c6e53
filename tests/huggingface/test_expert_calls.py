"""Every call of experts is recorded with what computed it, and with what became of each of its rows x K choices."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.huggingface.layer import experts_layers
from moeprof.huggingface.model import HuggingFaceModel
from moeprof.huggingface.sites import Site, find_sites
from moeprof.instrument.probe import observed_by
from moeprof.instrument.routing import RoutingRecorder
from moeprof.instrument.step import make_step
from moeprof.moe.layer import use_variant
from moeprof.records.recipe.variant import OWN, Variant
from moeprof.records.run.raw_tables import FATES
from tests.huggingface.architectures import build
from tests.huggingface.small_models import NUM_EXPERTS, NUM_LAYERS, TOP_K, saved, small_model

from .test_model import characterized

DYNAMIC, STATIC = Variant(dispatch="dynamic", kernel="loop"), Variant(dispatch="static", kernel="bmm")


def observed(model: PreTrainedModel, real_BL: np.ndarray, variant: Variant = OWN) -> tuple[RoutingRecorder, list[Site]]:
    """What a recorder sees of one forward pass, of the encoder if there is one, on tokens of which some are padding; the sites called."""
    sites, recorder = find_sites(model), RoutingRecorder()
    ours = HuggingFaceModel(model, sites, None if variant == OWN else experts_layers(sites, 0.125))
    tokens_BL = np.arange(5, 5 + real_BL.size).reshape(real_BL.shape)
    step = make_step("score", 0, "text", tokens_BL, real_BL, np.arange(len(real_BL)), 0, "cpu")
    use_variant(ours, variant)
    with torch.inference_mode(), observed_by(recorder):
        (ours.encode if model.config.is_encoder_decoder else ours)(torch.from_numpy(tokens_BL), step)
    use_variant(ours, OWN)
    return recorder, [site for site in sites if not site.layer.startswith("dec.")]


@pytest.mark.parametrize("architecture", ["longcat_flash", "zaya", "switch_transformers", "mixtral", "llama4"])
def test_choices_of_all_kinds_are_the_rows_times_k(architecture: str) -> None:
    real_BL = np.arange(12)[None] >= np.array([[0], [5]])
    recorder, sites = observed(build(architecture), real_BL)
    assert [layer for layer, *_ in recorder.calls] == [site.layer for site in sites]
    for site, (_, _, _, choices) in zip(sites, recorder.calls, strict=True):
        top_k = site.top_k or TOP_K
        assert sum(choices.values()) == 24 * top_k
        assert choices["padding"] == 5 * top_k
        assert set(choices) == set(FATES)


@pytest.fixture(scope="module")
def longcat() -> PreTrainedModel:
    return build("longcat_flash")


@settings(max_examples=25, deadline=None)
@given(lengths=st.lists(st.integers(1, 6), min_size=2, max_size=2))
def test_identity_experts_and_padding_are_counted_as_a_hook_of_the_test_counts_them(
    longcat: PreTrainedModel, lengths: list[int]
) -> None:
    received: list[torch.Tensor] = []
    handles = [
        site.experts.register_forward_pre_hook(lambda module, args: received.append(args[1])) for site in find_sites(longcat)
    ]
    real_BL = np.arange(6)[None] >= 6 - np.array(lengths)[:, None]
    recorder, _ = observed(longcat, real_BL)
    for handle in handles:
        handle.remove()
    real_T = torch.from_numpy(real_BL.reshape(-1))
    for (_, _, _, choices), ids_TK in zip(recorder.calls, received, strict=True):
        zero = int((ids_TK[real_T] >= NUM_EXPERTS).sum())
        tokens = sum(lengths) * TOP_K
        nonzero = {"zero_compute": zero, "padding": 12 * TOP_K - tokens, "routed": tokens - zero}
        assert choices == dict.fromkeys(FATES, 0) | nonzero


@pytest.mark.parametrize(("variant", "backend"), [(OWN, "grouped_mm"), (DYNAMIC, "moeprof loop"), (STATIC, "moeprof bmm")])
def test_what_computed_the_experts_is_recorded(variant: Variant, backend: str) -> None:
    """A capacity of 1/8 leaves three rows for each expert, and what it drops is what its rows lack."""
    recorder, sites = observed(small_model("mixtral"), np.ones((2, 12), bool), variant)
    assert [call[2] for call in recorder.calls] == [backend] * len(sites) == [backend] * NUM_LAYERS
    dropped = [choices["dropped"] for *_, choices in recorder.calls]
    assert dropped == [int(lost_TK.sum()) for *_, lost_TK in recorder.decisions]
    assert bool(sum(dropped)) == (variant == STATIC)
    assert all(sum(choices.values()) == 24 * TOP_K for *_, choices in recorder.calls)


def test_all_experts_of_llama4_compute_every_token() -> None:
    recorder, _ = observed(build("llama4"), np.arange(12)[None] >= np.array([[0], [5]]))
    assert {expert_rows for *_, expert_rows in recorder.steps} == {24 * NUM_EXPERTS}


def test_the_waste_factor_of_llama4_is_that_of_all_experts(tmp_path: Path) -> None:
    run = characterized(saved(tmp_path / "model", build("llama4")), tmp_path / "run", "--set", "load.phases=['score']")
    assert RunMetrics.of(run).value("waste_factor", phase="score", variant=OWN.label) == NUM_EXPERTS / TOP_K


def test_a_run_keeps_the_backend_of_each_phase_and_its_report_shows_it(tmp_path: Path) -> None:
    run = characterized(saved(tmp_path / "model", small_model("qwen3_moe")), tmp_path / "run")
    found = RunMetrics.of(run)
    for phase, calls in (("score", 2), ("decode", 2 * 3)):  # two batches, three steps
        assert found.distinct("category", "expert_calls", phase=phase) == ["grouped_mm"]
        assert found.value("expert_calls", phase=phase, variant=OWN.label, category="grouped_mm") == calls * NUM_LAYERS
    report = (run.path / "report.md").read_text().replace("\\", "")
    assert "grouped_mm (8 calls)" in report
    assert "grouped_mm (24 calls)" in report
