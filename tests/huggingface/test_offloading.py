"""Offloading systems on a Hugging Face model: the same experts, the routers of its later layers asked ahead."""

from pathlib import Path

from moeprof.huggingface.recipe import resolved
from moeprof.optimizations.presets import preset_variants, resident_variant
from moeprof.records.recipe.files import load_recipe
from moeprof.records.run.run import Run
from moeprof.studies.passes.loads import measure_loads
from moeprof.studies.passes.outputs import check_outputs
from moeprof.studies.passes.time import measure_time
from moeprof.studies.study import Study
from tests.studies.runs import values

SETTINGS = {
    "kernel": "loop",
    "slots": "4",
    "fast-memory": None,
    "host-memory": None,
    "eviction": "inactive-first+lifo",
    "buffer": "decoder",
    "sweep-slots": False,
}
SMALL = ("load.sequence_length=48", "load.decode_steps=6", "load.prompt_length=16", "load.batches=2", "measure.rounds=5")


def compared(out: Path, *presets: str) -> Run:
    recipe = resolved(load_recipe("hf-tiny", SMALL))
    variants = [resident_variant(SETTINGS, recipe), *preset_variants(presets, SETTINGS, recipe)]
    passes = (check_outputs, measure_time, measure_loads)
    return Study("optimize", variants, lambda workload: passes, variants[1:2]).run(recipe, out)


def test_systems_with_a_quarter_of_the_experts_in_slots_compute_what_the_resident_model_does(tmp_path: Path) -> None:
    run = compared(tmp_path / "run", "on-demand", "hobbit:t1=1,t2=1", "infmoe", "hobbit")
    assert run.record.valid, run.record.reasons
    differing = values(run, "output_tokens_differing", "variant", phase="decode")
    assert {label: count for (label,), count in differing.items() if label not in run.record.lossy_labels} == dict.fromkeys(
        ("dynamic+loop+on-demand", "dynamic+loop+hobbit:t1=1,t2=1", "dynamic+loop+infmoe"), 0
    )
    prefetched = values(run, "prefetch_bytes", "variant", phase="decode")
    assert prefetched["dynamic+loop+hobbit:t1=1,t2=1",] > 0
    assert prefetched["dynamic+loop+on-demand",] == 0
    assert values(run, "demand_bytes", "variant", phase="decode")["dynamic+loop+hobbit",] > 0
