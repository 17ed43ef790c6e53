"""Which models the variants of a study run on, which of them is the baseline, and how a round selects its own variant."""

from pathlib import Path

import pytest
import torch

from moeprof.instrument.clock import wall_clock
from moeprof.instrument.timing import interleaved
from moeprof.moe.layer import moe_layers
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.variant import DENSE, STATIC, Variant
from moeprof.records.run.raw_tables import MOVES
from moeprof.records.run.run import Run
from moeprof.studies.services import Services, VariantRunner
from moeprof.workloads.registry import make_workload

from .runs import DYNAMIC, TUTEL, Micro, services_of


def runner_of(micro: Micro, tmp_path: Path, *variants: Variant) -> VariantRunner:
    return services_of(load_recipe(str(micro("lm"))), tmp_path / "run", variants).runner


@pytest.mark.usefixtures("device")
def test_all_variants_share_one_model_and_the_twin_has_its_own(micro: Micro, tmp_path: Path) -> None:
    models = runner_of(micro, tmp_path, STATIC, DENSE, TUTEL, DYNAMIC).models
    assert list(models) == [STATIC, DENSE, TUTEL, DYNAMIC]
    assert models[STATIC] is models[TUTEL] is models[DYNAMIC]
    assert models[DENSE] is not models[STATIC]
    assert moe_layers(models[STATIC])
    assert not moe_layers(models[DENSE])


@pytest.mark.usefixtures("device")
def test_selecting_a_variant_switches_the_shared_model(micro: Micro, tmp_path: Path) -> None:
    runner = runner_of(micro, tmp_path, STATIC, DYNAMIC)
    for variant in (DYNAMIC, STATIC, DYNAMIC):
        assert {layer.variant for layer in moe_layers(runner.select(variant))} == {variant}


@pytest.mark.parametrize(
    ("variants", "baseline"),
    [((STATIC, DYNAMIC), STATIC), ((DENSE, STATIC, DYNAMIC), STATIC), ((TUTEL, DYNAMIC, STATIC), TUTEL)],
)
def test_the_baseline_is_the_first_variant_with_experts(
    micro: Micro, tmp_path: Path, variants: tuple[Variant, ...], baseline: Variant
) -> None:
    runner = runner_of(micro, tmp_path, *variants)
    assert runner.baseline == baseline
    assert runner.routed == [variant for variant in variants if not variant.dense]


@pytest.mark.usefixtures("device")
def test_every_interleaved_round_runs_under_its_own_variant(micro: Micro, tmp_path: Path) -> None:
    services = services_of(load_recipe(str(micro("lm"))), tmp_path / "run", (STATIC, TUTEL, DYNAMIC))
    runner, seen = services.runner, list[tuple[str, Variant | None]]()
    episode = make_workload(services.recipe).episodes("score")[0]
    with torch.inference_mode():
        prepared = {}
        for variant in runner.variants:
            layer, play = moe_layers(runner.models[variant])[0], runner.prepare(variant, episode)
            prepared[variant.label] = play._replace(
                play=lambda label=variant.label, layer=layer: seen.append((label, layer.variant))
            )
        interleaved(prepared, rounds=3, warmup=1, clock=wall_clock)
    assert len(seen) == 3 * 4
    assert all(variant is not None and variant.label == label for label, variant in seen)


@pytest.mark.usefixtures("device")
def test_recorded_rows_carry_their_rank_and_accumulate(micro: Micro, tmp_path: Path) -> None:
    services: Services = services_of(load_recipe(str(micro("lm"))), tmp_path / "run", (STATIC,))
    row = {"phase": "score", "variant": "dynamic+greedy", "received_bytes": 7, "time_ns": 9}
    for _ in range(2):
        services.record(MOVES, [row])
    services.record(MOVES, [])
    assert Run(services.writer.path, services.writer.record).raw(MOVES).to_pylist() == [{**row, "rank": 0}] * 2


@pytest.mark.parametrize("rounds", [1, 5, 10, 11])
def test_a_pass_that_runs_each_round_twice_has_half_as_many(micro: Micro, tmp_path: Path, rounds: int) -> None:
    recipe = load_recipe(str(micro("lm")), [f"measure.rounds={rounds}"])
    assert services_of(recipe, tmp_path / "run", (STATIC,)).half_the_rounds == -(-rounds // 2)
