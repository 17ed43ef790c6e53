"""Offloading systems on the trained models that ship with moeprof: a quarter of their experts in fast memory, the rest in a file."""

from pathlib import Path

import pytest

from moeprof.huggingface.recipe import resolved
from moeprof.optimizations.presets import preset_variants, resident_variant
from moeprof.records.recipe.files import load_recipe
from moeprof.records.run.run import Run
from moeprof.studies.passes.loads import measure_loads
from moeprof.studies.passes.outputs import check_outputs
from moeprof.studies.study import Study

from .runs import values
from .test_offloading import SETTINGS

pytestmark = pytest.mark.slow

QUARTER = {"lm-tiny": "8", "mt-tiny": "4", "hf-tiny": "4"}
"""Slots of a layer for a quarter of its experts."""
SHORT = ("load.batch_size=1", "load.batches=2", "load.decode_steps=24", "measure.rounds=5", "measure.warmup=1")


def compared(name: str, out: Path, *presets: str) -> Run:
    recipe = resolved(load_recipe(name, SHORT))
    settings = SETTINGS | {"slots": QUARTER[name], "buffer": "all"}
    variants = [resident_variant(settings, recipe), *preset_variants(presets, settings, recipe)]
    return Study("optimize", variants, lambda workload: (check_outputs, measure_loads), variants[1:2]).run(recipe, out)


@pytest.mark.parametrize("name", QUARTER)
def test_hobbits_rule_and_pools_load_fewer_bytes_than_lru_in_as_much_fast_memory_while_decoding(
    name: str, tmp_path: Path
) -> None:
    """Without prefetching, whose wrong loads cost more than that on hf-tiny. All pools of a system have the bytes of as many slots."""
    run = compared(name, tmp_path / "run", "on-demand", "hobbit:foresight=")
    assert run.record.valid, run.record.reasons
    moved = values(run, "ledger_bytes", "variant", "category", phase="decode")
    assert moved["dynamic+loop+hobbit:foresight=", ""] < moved["dynamic+loop+on-demand", ""]
    same = values(run, "token_agreement", "variant", phase="decode")
    assert same["dynamic+loop+on-demand",] == 1
    assert 0.9 < same["dynamic+loop+hobbit:foresight=",] <= 1


@pytest.mark.parametrize("name", QUARTER)
def test_the_routers_of_later_layers_foresee_more_than_their_placebo(name: str, tmp_path: Path) -> None:
    foresight = "on-demand:foresight=lookahead"
    run = compared(name, tmp_path / "run", foresight, f"{foresight},shuffled=yes")
    assert run.record.valid, run.record.reasons
    assert run.record.lossy_labels == []
    for metric in ("prefetch_precision", "prefetch_recall"):
        real, placebo = values(run, metric, "variant", phase="decode").values()
        assert real > 2 * placebo


def test_low_precision_for_the_best_choices_loses_more_than_for_the_worst(tmp_path: Path) -> None:
    """The placebo asks for the precisions of the others; each step loads as many experts in each of them if all are absent."""
    run = compared("lm-tiny", tmp_path / "run", "on-demand", "hobbit:foresight=", "hobbit:foresight=,reversed=yes")
    assert run.record.valid, run.record.reasons
    same = values(run, "token_agreement", "variant", phase="decode")
    moved = values(run, "demand_bytes", "variant", "category", phase="decode")
    system, placebo = "dynamic+loop+hobbit:foresight=", "dynamic+loop+hobbit:foresight=,reversed=yes"
    assert same[placebo,] < same[system,] < 1
    assert moved[placebo, "int4"] > 0 < moved[system, "int4"]
