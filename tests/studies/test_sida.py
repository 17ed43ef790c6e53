"""SiDA end to end: a fitted predictor prefetches without changing an output, or replaces the routers at a quality that is reported."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from moeprof.optimizations.presets import preset_variants, resident_variant
from moeprof.parallel.group import ALONE
from moeprof.records.errors import UsageError
from moeprof.records.predictor import FitSettings
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import Variant
from moeprof.records.recipe.weights import file_hash
from moeprof.records.run.run import Run
from moeprof.reporters.documents.report import metrics_of
from moeprof.reporters.sections.offloading import offloading_blocks
from moeprof.reporters.sections.provenance import of_model
from moeprof.studies.fit_predictor.study import fit_predictor
from moeprof.studies.passes.loads import measure_loads
from moeprof.studies.passes.memory import measure_memory
from moeprof.studies.passes.outputs import check_outputs
from moeprof.studies.passes.quality import measure_quality
from moeprof.studies.passes.time import measure_time
from moeprof.studies.progress import Silent
from moeprof.studies.services import VariantRunner, buffers_for, load_models
from moeprof.studies.study import Pass, Study
from moeprof.workloads.registry import make_workload
from tests.predictors.made import made, written

from .runs import Micro, values
from .test_offloading import SETTINGS

LARGE = ("model.experts=16", "model.dim=32", "load.batches=2", "load.decode_steps=8", "measure.rounds=5")
SIZES = {"lm": ("model.decoder_layers=4",), "mt": ("model.encoder_layers=4", "model.decoder_layers=4")}
SIDA, SHUFFLED, BYPASS, ON_DEMAND = (
    f"dynamic+loop+{name}" for name in ("sida", "sida:shuffled=yes", "sida:mode=bypass", "on-demand")
)


def recipe_of(micro: Micro, workload: str, *overrides: str) -> Recipe:
    return load_recipe(str(micro(workload)), (*LARGE, *SIZES[workload], *overrides))


def systems(recipe: Recipe, predictor: Path, *presets: str, slots: int = 6) -> list[Variant]:
    """The resident model and the systems."""
    settings = SETTINGS | {"slots": str(slots), "buffer": "all", "predictor": str(predictor)}
    return [resident_variant(settings, recipe), *preset_variants(presets, settings, recipe)]


def compared(recipe: Recipe, out: Path, predictor: Path, *presets: str, passes: Sequence[Pass] = (), slots: int = 6) -> Run:
    variants = systems(recipe, predictor, *presets, slots=slots)
    return Study("optimize", variants, lambda workload: (check_outputs, *passes), variants[1:2]).run(recipe, out)


@pytest.mark.parametrize("workload", ["lm", "mt"])
def test_a_predictor_that_prefetches_changes_no_output(micro: Micro, tmp_path: Path, workload: str) -> None:
    """Up to rounding, because the kernel pairs the experts that are computed together."""
    recipe = recipe_of(micro, workload)
    file = written(recipe, tmp_path / "p.safetensors")
    variants = systems(recipe, file, "on-demand", "sida", "sida:shuffled=yes,predicted=9", "sida:per-layer=no,depth=1")[1:]
    models = load_models(recipe, variants, Silent())
    with torch.inference_mode(), buffers_for(recipe, models, ALONE) as buffers:
        runner = VariantRunner(models, buffers=buffers)
        for phase in recipe.phases:
            for episode in make_workload(recipe).episodes(phase):
                episode.settle(runner.select(variants[0]))
                expected, *others = ([*episode.outputs(runner.select(variant))] for variant in variants)
                for found in others:
                    for one, other in zip(expected, found, strict=True):
                        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)
                        assert torch.equal(other.argmax(-1), one.argmax(-1))


def test_more_experts_are_there_than_with_simpler_foresight_and_a_placebo_foresees_less(tmp_path: Path) -> None:
    """One sequence of held-out text on a trained model, a quarter of its experts in slots."""
    one = ("load.batch_size=1", "load.sequence_length=64", "load.prompt_length=16", "load.decode_steps=16", "load.batches=2")
    recipe, file = load_recipe("lm-tiny", (*one, "measure.rounds=5")), tmp_path / "sida.safetensors"
    fit_predictor(recipe, file, FitSettings(tokens=4000, epochs=4, width=64))
    others = ("on-demand", *(f"on-demand:foresight={name},depth=4" for name in ("last-step", "most-used")))
    run = compared(recipe, tmp_path / "run", file, "sida", "sida:shuffled=yes", *others, slots=8)
    assert run.record.valid, run.record.reasons
    assert run.record.lossy_labels == []
    hits = values(run, "unit_hit_rate", "variant", phase="decode")
    assert all(hits[SIDA,] > hits[f"dynamic+loop+{name}",] for name in others)
    for metric in ("prefetch_recall", "prefetch_precision"):
        found = values(run, metric, "variant", phase="decode")
        assert found[SIDA,] > 2 * found[SHUFFLED,]
    assert run.record.predictor_hash == file_hash(file)
    assert f"Predictor {file}: sha256 {run.record.predictor_hash[:12]}" in of_model(run)


def test_a_predictor_in_place_of_the_routers_is_lossy_and_its_quality_stands_in_the_table(tmp_path: Path) -> None:
    short = ("load.batch_size=2", "load.sequence_length=32", "load.decode_steps=3", "load.prompt_length=8", "load.batches=1")
    recipe = load_recipe("lm-tiny", (*short, "measure.rounds=5", "measure.warmup=1", 'data.domains=["prose"]'))
    file = written(recipe, tmp_path / "p.safetensors")
    passes = (measure_quality, measure_time)
    run = compared(recipe, tmp_path / "run", file, "on-demand", "sida:mode=bypass", passes=passes)
    assert run.record.valid, run.record.reasons
    assert run.record.lossy_labels == [BYPASS]
    perplexity = values(run, "perplexity", "variant", phase="score")
    assert perplexity[BYPASS,] > perplexity[ON_DEMAND,]  # its weights are random
    assert values(run, "token_agreement", "variant", phase="score")[BYPASS,] < 1
    _, table, *_ = offloading_blocks(run, metrics_of(run), "score")
    cells = {row[0]: row for row in table.rows}  # type: ignore[union-attr]
    assert cells["sida:mode=bypass"][8] == f"{perplexity[BYPASS,]:.4f}"


def test_decisions_of_a_bypass_are_the_predictors(micro: Micro, tmp_path: Path) -> None:
    """A predictor that says the same of every token sends all of them to the same experts, which are loaded before they are needed."""
    recipe = recipe_of(micro, "lm")
    predictor = made(recipe)
    with torch.no_grad():
        for network in predictor.networks.values():
            for head in network.heads:
                assert isinstance(head, torch.nn.Linear)
                head.weight.zero_()
                head.bias.copy_(torch.arange(16.0))
    predictor.write(tmp_path / "p.safetensors")
    run = compared(recipe, tmp_path / "run", tmp_path / "p.safetensors", "sida:mode=bypass", passes=(measure_loads,))
    assert {row["expert"] for row in loads_of(run, BYPASS)} == {14, 15}
    assert set(values(run, "unit_hit_rate", "variant", phase="decode").values()) == {1}
    assert set(values(run, "prefetch_precision", "variant", phase="decode").values()) == {1}


def loads_of(run: Run, label: str) -> list[dict[str, object]]:
    return [row for row in pq.read_table(run.path / "loads.parquet").to_pylist() if row["variant"] == label]


def test_the_memory_of_a_system_includes_its_predictor_and_stays_below_that_of_the_whole_model(
    micro: Micro, tmp_path: Path
) -> None:
    recipe = recipe_of(micro, "lm")
    file = written(recipe, tmp_path / "p.safetensors")
    run = compared(recipe, tmp_path / "run", file, "on-demand", "sida", passes=(measure_memory,))
    size = sum(parameter.nbytes for parameter in made(recipe).modules.parameters())
    resident, on_demand, sida = values(run, "memory_static", "variant").values()
    assert on_demand + size == sida < resident
    whole = [table for table in pq.read_table(run.path / "memory.parquet").to_pylist() if table["category"] == "weights"]
    weights = {row["variant"]: row["bytes"] for row in whole if row["phase"] == "decode"}
    assert weights[SIDA] - weights[ON_DEMAND] == size


def test_text_that_the_predictor_was_fitted_on_is_refused(micro: Micro, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"Line {number} of {number * 37 % 101} about {number * 53 % 89}." for number in range(400)))
    recipe = recipe_of(micro, "lm", f"data.files.own={text}", "load.sequence_length=48")
    file = tmp_path / "sida.safetensors"
    fit_predictor(recipe, file, FitSettings(tokens=4000, epochs=1, width=4))
    with pytest.raises(UsageError) as refused:
        compared(recipe, tmp_path / "run", file, "sida")
    assert "of the sequences of the text 'own'" in refused.value.what
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda file: file.unlink(), "no such file"),
        (lambda file: file.write_bytes(file.read_bytes()[:-9]), "damaged, or no predictor"),
        (lambda file: file.write_text("{}"), "damaged, or no predictor"),
    ],
)
def test_a_file_that_is_absent_or_damaged_is_refused_before_anything_is_written(
    micro: Micro, tmp_path: Path, change: object, what: str
) -> None:
    recipe = recipe_of(micro, "lm")
    file = written(recipe, tmp_path / "p.safetensors")
    change(file)  # type: ignore[operator]
    with pytest.raises(UsageError, match=what) as refused:
        compared(recipe, tmp_path / "run", file, "sida")
    assert "moeprof fit-predictor" in refused.value.remedy
    assert not (tmp_path / "run").exists()


def test_a_predictor_of_another_model_is_refused(micro: Micro, tmp_path: Path) -> None:
    file = written(recipe_of(micro, "lm", "measure.seed=1"), tmp_path / "p.safetensors")
    with pytest.raises(UsageError, match="fitted to a model with other weights"):
        compared(recipe_of(micro, "lm"), tmp_path / "run", file, "sida")


def test_a_preset_without_its_predictor_and_a_predictor_without_its_preset_are_refused(micro: Micro) -> None:
    recipe = recipe_of(micro, "lm")
    with pytest.raises(UsageError) as refused:
        preset_variants(["sida"], SETTINGS, recipe)
    assert refused.value.what == "preset sida: it asks a predictor, and --predictor names none"
    assert "moeprof fit-predictor lm-micro --out sida.safetensors" in refused.value.remedy
    with pytest.raises(UsageError, match=r"--predictor p\.safetensors: no preset asks a predictor"):
        preset_variants(["on-demand"], SETTINGS | {"predictor": "p.safetensors"}, recipe)
