"""Optimizations of small Hugging Face models from the command line."""

from collections import Counter
from pathlib import Path

import pytest

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.cli.group import run as moeprof
from moeprof.records.run.run import Run
from moeprof.reporters.formats.registry import render
from tests.huggingface.small_models import SEVEN, saved, small_model
from tests.huggingface.test_model import SHORT, TEXT
from tests.studies.runs import spoil

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
    [*QUICK, *(pytest.param(one, marks=pytest.mark.slow) for one in SEVEN if one not in QUICK)],
)
def test_experts_in_slots_and_our_kernels_give_the_outputs_of_the_models_own_backend(architecture: str, tmp_path: Path) -> None:
    assert optimized(saved(tmp_path / "model", small_model(architecture)), tmp_path / "run", "--slots", "3") == 0
    run = Run.open(tmp_path / "run")
    assert run.record.valid, run.record.reasons
    assert list(run.record.variants_by_label) == ["own", "static", "dynamic", "own+buffered"]
    metrics = RunMetrics.of(run)
    for variant in ("dynamic", "own+buffered"):
        for phase in run.record.recipe.phases:
            here = metrics.at(phase=phase, variant=variant)
            tokens = here.value("output_tokens_compared") + here.value("output_tokens_lost")
            assert here.value("output_tokens_differing") == 0
            assert here.or_none("token_agreement") == (None if phase == "encode" else 1)
            assert here.value("speedup_equal_batch", category="own") > 0
            for layer in run.record.recipe.moe_layers(phase):
                assert here.value("output_tokens_compared", layer=layer) == tokens
                assert here.value("output_tokens_differing", layer=layer) == 0
                assert here.value("output_max_abs_diff", layer=layer) < 1e-4
    assert metrics.or_none("speedup_equal_batch", phase="decode", variant="own", category="static") is None
    assert_choices_add_up(run, 1 if architecture == "switch_transformers" else 2)


def assert_choices_add_up(run: Run, top_k: int) -> None:
    """Of every variant and layer: two batches of one sequence, each of 24 tokens or 3 steps, with k choices."""
    tokens = {"score": 2 * 24, "encode": 2 * 24, "decode": 2 * 3}
    for phase in run.record.ran.phases:
        for variant in run.record.variants_by_label:
            trace = run.trace(phase, variant)
            assert trace is not None
            counts = Counter(trace.table["layer"].to_pylist())
            assert counts == dict.fromkeys(run.record.ran.moe_layers(phase), tokens[phase] * top_k)


def test_tokens_that_the_model_itself_drops_are_dropped_by_every_variant_and_compared(tmp_path: Path) -> None:
    """Two tokens of a sequence for each of eight experts: the encoder drops at least 8 of 24 in each layer."""
    model = saved(tmp_path / "model", small_model("switch_transformers", expert_capacity=2))
    assert optimized(model, tmp_path / "run", "--slots", "3", "--set", "load.phases=['encode']") == 0
    run = Run.open(tmp_path / "run")
    own, *others = [lost_choices(run, variant) for variant in ("own", "dynamic", "own+buffered")]
    assert len(own) >= 8 * 2 * len(run.record.ran.moe_layers("encode"))
    assert others == [own, own]
    for variant in ("dynamic", "own+buffered"):
        here = RunMetrics.of(run).at(phase="encode", variant=variant)
        assert here.value("output_tokens_lost") == here.value("output_tokens_differing") == 0
        assert here.value("dropped_tokens") > 0
        assert here.value("speedup_equal_batch", category="own") > 0


def lost_choices(run: Run, variant: str) -> set[tuple[object, ...]]:
    """Layer, sequence, position and expert of every choice that was dropped."""
    trace = run.trace("encode", variant)
    assert trace is not None
    names = ("layer", "sequence", "position", "expert")
    return {tuple(row[name] for name in names) for row in trace.table.to_pylist() if row["dropped"]}


@pytest.mark.parametrize("architecture", ["mixtral", pytest.param("switch_transformers", marks=pytest.mark.slow)])
def test_a_layer_that_computes_something_else_is_found_and_named(
    architecture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the inputs of the model's own layer, so that what an earlier layer spoilt does not count."""
    spoil(monkeypatch, "dynamic", lambda y_TD: y_TD.flip(0))
    model = saved(tmp_path / "model", small_model(architecture))
    quick = ["--set", "load.phases=['encode']" if architecture == "switch_transformers" else "load.phases=['score']"]
    assert optimized(model, tmp_path / "run", "--dynamic-gating", *quick) == 0
    run = Run.open(tmp_path / "run")
    assert not run.record.valid
    metrics, phase = RunMetrics.of(run), run.record.recipe.phases[0]
    layers = run.record.recipe.moe_layers(phase)
    here = metrics.at(phase=phase, variant="dynamic")
    assert all(here.value("output_tokens_differing", layer=layer) > 0 for layer in layers)
    assert run.record.reasons[0].startswith(f"{phase}: outputs of dynamic differ from those of own")
    assert f"in layer {layers[0]}" in run.record.reasons[0]
    most = max(layers, key=lambda layer: here.value("output_max_abs_diff", layer=layer))
    assert f"Layer {most} differs most, under " in render(run, "markdown")
    assert here.or_none("speedup_equal_batch", category="own") is None


def test_hits_and_misses_of_slots_are_those_of_a_replay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = saved(tmp_path / "model", small_model("qwen3_moe"))
    assert optimized(folder, tmp_path / "run", "--expert-buffering", "--slots", "3") == 0
    live = RunMetrics.of(Run.open(tmp_path / "run")).at(phase="decode", variant="own+buffered")
    arguments = ["--cache", "--policy", "inactive-first+lifo", "--slots", "3", "--phase", "decode"]
    assert moeprof(["--quiet", "replay", str(tmp_path / "run"), *arguments, "--full", "--out", str(tmp_path / "replay")]) == 0
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


@pytest.mark.parametrize(
    ("architecture", "options", "what", "remedy"),
    [
        (
            "llama4_text",
            [],
            "is not called with hidden states, ids and weights",
            "Leave out the optimizations; the model can be",
        ),
        ("longcat_flash", ["--dynamic-gating"], "experts without weights", "Leave out the optimizations; the model can be"),
        (
            "switch_transformers",
            ["--experts-backend", "grouped_mm"],
            "cannot compute its experts with grouped_mm",
            "Use --experts-backend keep.",
        ),
    ],
)
def test_what_cannot_be_optimized_is_refused_in_two_lines_and_leaves_nothing(
    architecture: str, options: list[str], what: str, remedy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert optimized(saved(tmp_path / "model", small_model(architecture)), tmp_path / "run", *options) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert what in first
    assert second.startswith(remedy)
    assert not (tmp_path / "run").exists()


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
