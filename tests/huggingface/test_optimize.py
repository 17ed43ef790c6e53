"""Optimizations of small Hugging Face models from the command line."""

from pathlib import Path

import pytest

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.cli.group import run as moeprof
from moeprof.records.run.run import Run
from tests.huggingface.small_models import SEVEN, saved, small_model
from tests.huggingface.test_model import SHORT, TEXT

QUICK = ["qwen3_moe", "gpt_oss"]


def optimized(model: Path, out: Path, *options: str) -> int:
    """The exit code of `optimize` on a model and its own text."""
    text = out.with_suffix(".txt")
    text.write_text(TEXT * 4)
    arguments = [word for key in SHORT for word in ("--set", key)]
    data = ["--data", f"fox={text}", "--out", str(out), "--no-sweep"]
    return moeprof(["--quiet", "optimize", "--model", str(model), *data, *arguments, *options])


@pytest.mark.parametrize(
    "architecture",
    [*QUICK, *(pytest.param(one, marks=pytest.mark.slow) for one in SEVEN if one not in (*QUICK, "switch_transformers"))],
)
def test_experts_in_slots_and_our_kernels_give_the_outputs_of_the_models_own_backend(architecture: str, tmp_path: Path) -> None:
    assert optimized(saved(tmp_path / "model", small_model(architecture)), tmp_path / "run", "--slots", "3") == 0
    run = Run.open(tmp_path / "run")
    assert run.record.valid, run.record.reasons
    assert list(run.record.variants_by_label) == ["own", "static", "dynamic", "own+buffered"]
    metrics = RunMetrics.of(run)
    for variant in ("dynamic", "own+buffered"):
        for phase in ("score", "decode"):
            here = metrics.at(phase=phase, variant=variant)
            assert here.value("output_tokens_differing") == 0
            assert here.value("token_agreement") == 1
            assert here.value("speedup_equal_batch", category="own") > 0
    assert metrics.or_none("speedup_equal_batch", phase="score", variant="own", category="static") is None


def test_hits_and_misses_of_slots_are_those_of_a_replay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = saved(tmp_path / "model", small_model("qwen3_moe"))
    assert optimized(folder, tmp_path / "run", "--expert-buffering", "--slots", "3") == 0
    live = RunMetrics.of(Run.open(tmp_path / "run")).at(phase="decode", variant="own+buffered")
    arguments = ["--cache", "--policy", "inactive-first+lifo", "--slots", "3", "--phase", "decode"]
    assert moeprof(["--quiet", "replay", str(tmp_path / "run"), *arguments, "--out", str(tmp_path / "replay")]) == 0
    assert "reproduces every hit and miss" in capsys.readouterr().out
    assert live.value("misses") > 0


def test_what_slots_need_is_read_from_the_shards_if_all_experts_stay_behind_them(tmp_path: Path) -> None:
    from moeprof.huggingface.build import buffers_of, build_model
    from moeprof.huggingface.recipe import document_of, resolved
    from moeprof.moe.layer import use_variant
    from moeprof.records.recipe.files import validated
    from moeprof.records.recipe.model import HuggingFaceSection
    from moeprof.records.recipe.variant import Variant
    from tests.huggingface.forward import forward

    whole = small_model("mixtral")
    recipe = resolved(validated(document_of(str(saved(tmp_path / "model", whole)), {}), "test"))
    assert isinstance(recipe.model, HuggingFaceSection)
    variant = Variant("own", store="buffered", slots=4, eviction="lru", buffered="decoder")
    model = build_model(recipe, recipe.model, [variant])
    assert all(parameter.is_meta for site in model.sites for parameter in site.experts.parameters())
    buffers = buffers_of(model, recipe)
    buffers.fit(variant)
    use_variant(model, variant)
    assert (forward(model.whole) - forward(whole)).abs().max() < 1e-5
    buffers.close()


def test_a_model_that_cannot_be_optimized_is_refused_in_two_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert optimized(saved(tmp_path / "model", small_model("switch_transformers")), tmp_path / "run") == 2
    first, second = capsys.readouterr().err.splitlines()[-2:]
    assert "is not called with hidden states, ids and weights" in first
    assert second == "Leave out the optimizations; the model can be characterized."


def test_speed_is_compared_with_the_models_own_backend_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = saved(tmp_path / "model", small_model("mixtral"))
    assert optimized(folder, tmp_path / "run", "--against", "tutel") == 2
    assert "compared with its own backend" in capsys.readouterr().err


def test_a_device_map_cannot_be_optimized(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = saved(tmp_path / "model", small_model("mixtral"))
    assert optimized(folder, tmp_path / "run", "--expert-buffering", "--device-map", "auto") == 2
    first, second = capsys.readouterr().err.splitlines()[-2:]
    assert "a device map may place layers on several devices, and optimizations use one" in first
    assert "Leave out --device-map" in second
    assert not (tmp_path / "run").exists()
