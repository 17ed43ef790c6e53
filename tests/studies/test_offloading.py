"""Offloading systems end to end on small models: the same fast memory, outputs that are right or lossy on purpose, bytes that add up."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from moeprof.analysis.model_size import entry_bytes
from moeprof.huggingface.recipe import resolved
from moeprof.models.build import make_model
from moeprof.optimizations.presets import preset_variants, resident_variant
from moeprof.records.errors import UsageError
from moeprof.records.recipe.files import load_recipe
from moeprof.records.run.run import Run
from moeprof.records.units import format_bytes
from moeprof.reporters.cells import duration, percent
from moeprof.reporters.documents.document import Table
from moeprof.reporters.documents.report import answer_to, metrics_of
from moeprof.reporters.formats.short import render_all
from moeprof.reporters.sections.offloading import mass, offloading_blocks, on_front, system_name, systems_of
from moeprof.studies.optimize import offloading
from moeprof.studies.passes.loads import measure_loads
from moeprof.studies.passes.time import measure_time
from moeprof.studies.replay.source import read_source

from .runs import Micro, studied, values

SETTINGS = {
    "kernel": "loop",
    "slots": "3",
    "fast-memory": None,
    "host-memory": None,
    "eviction": "inactive-first+lifo",
    "buffer": "decoder",
    "sweep-slots": False,
}
LARGE = ("model.experts=8", "model.dim=64", "model.ffn_dim=64", "load.batches=2", "measure.rounds=5")
"""Experts of more than a page, so that packing them saves bytes."""
PLACEBO = "on-demand:foresight=last-step,shuffled=yes"


def compared(recipe: Path, out: Path, *presets: str, overrides: tuple[str, ...] = LARGE, **settings: str) -> Run:
    """The systems beside the resident model, with the passes that their table reads."""
    resolved, chosen = load_recipe(str(recipe), overrides), SETTINGS | settings
    variants = [resident_variant(chosen, resolved), *preset_variants(presets, chosen, resolved)]
    return studied(recipe, out, *overrides, variants=variants, against=variants[1:2], passes=(measure_time, measure_loads))


@pytest.mark.parametrize("workload", ["lm", "mt"])
def test_systems_that_lose_nothing_compute_what_the_resident_model_computes(
    micro: Micro, tmp_path: Path, workload: str
) -> None:
    run = compared(
        micro(workload),
        tmp_path / "run",
        "on-demand",
        "on-demand:foresight=last-step",
        "hobbit:t1=1,t2=1",
        "infmoe",
        "monde",
        "paper",
    )
    assert run.record.valid, run.record.reasons
    assert run.record.lossy_labels == []
    differing = values(run, "output_tokens_differing", "variant", phase="decode")
    assert len(differing) == 6
    assert set(differing.values()) == {0}


def test_bytes_and_hits_are_those_of_the_uses_and_precisions_add_up(micro: Micro, tmp_path: Path) -> None:
    run = compared(micro("lm"), tmp_path / "run", "on-demand", "hobbit", "m2cache")
    assert run.record.valid, run.record.reasons
    loads = pq.read_table(run.path / "loads.parquet").to_pylist()
    label = "dynamic+loop+on-demand"
    mine = [row for row in loads if (row["variant"], row["phase"]) == (label, "decode")]
    assert values(run, "unit_uses", "variant", phase="decode")[label,] == len(mine)
    missed = [row for row in mine if not row["hit"]]
    assert values(run, "unit_hit_rate", "variant", phase="decode")[label,] == pytest.approx(1 - len(missed) / len(mine))
    size = entry_bytes(run.record.ran.own_model)
    assert values(run, "demand_bytes", "variant", phase="decode")[label,] == len(missed) * size
    for name in ("hobbit", "m2cache"):
        label = f"dynamic+loop+{name}"
        whole = values(run, "demand_bytes", "variant", phase="decode")[label,]
        parts = values(run, "demand_bytes", "variant", "category", phase="decode")
        assert sum(value for (variant, category), value in parts.items() if variant == label and category) == whole
        assert whole == sum(row["bytes"] for row in loads if (row["variant"], row["phase"]) == (label, "decode"))


def test_lossy_systems_are_not_reported_as_wrong_and_state_their_agreement(micro: Micro, tmp_path: Path) -> None:
    run = compared(micro("lm"), tmp_path / "run", "on-demand", "hobbit", "m2cache:low=int8:int2")
    assert run.record.lossy_labels == ["dynamic+loop+hobbit", "dynamic+loop+m2cache:low=int8:int2"]
    assert run.record.valid, run.record.reasons
    same = values(run, "token_agreement", "variant", phase="decode")
    assert 0 < same["dynamic+loop+m2cache:low=int8:int2",] <= 1
    answer = answer_to(run)
    assert answer.light.reasons == [] or not any("differ" in reason for reason in answer.light.reasons)
    assert [number.name for number in answer.numbers] == [
        f"{name}, decoding" for name in ("on-demand", "hobbit", "m2cache:low=int8:int2")
    ]


def test_the_table_names_every_system_and_the_front_has_no_system_that_another_beats(micro: Micro, tmp_path: Path) -> None:
    run = compared(micro("lm"), tmp_path / "run", "on-demand", "hobbit", "paper")
    metrics, systems = metrics_of(run), systems_of(run)
    assert [system_name(run, label) for label in systems] == ["on-demand", "hobbit", "paper"]
    _, table, *_ = offloading_blocks(run, metrics, "decode")
    assert [row[0] for row in table.rows] == ["resident", "on-demand", "hobbit", "paper"]  # type: ignore[union-attr]
    points = {}
    for label in systems:
        here = metrics.at(phase="decode", variant=label)
        points[label] = (here.value("throughput"), here.value("token_agreement"))
    front = on_front(metrics, "decode", systems)
    beaten = {one for one, (x, y) in points.items() for a, b in points.values() if a >= x and b >= y and (a, b) != (x, y)}
    assert set(front) == set(points) - beaten


@pytest.mark.parametrize("batch", [1, 4])
def test_steps_that_share_less_than_half_of_their_experts_do_not_meet_the_premise_of_m2cache(
    micro: Micro, tmp_path: Path, batch: int
) -> None:
    run = compared(micro("lm"), tmp_path / "run", "on-demand", "m2cache", overrides=(*LARGE, f"load.batch_size={batch}"))
    for phase, doing in (("score", "scoring"), ("decode", "decoding")):
        overlap = values(run, "active_overlap", "variant", "layer", phase=phase)["dynamic+loop", ""]
        said = f"premise not met, m2cache, {doing}: {percent(overlap)} of a step's experts"
        assert any(reason.startswith(said) for reason in answer_to(run).light.reasons) == (overlap < 0.5)


def test_one_screen_shows_every_system(micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("on-demand", "hobbit", "m2cache", "monde", "infmoe", "paper")
    run = compared(micro("lm"), tmp_path / "run", *names)
    monkeypatch.setenv("COLUMNS", "80")
    lines = render_all([run]).splitlines()
    assert len(lines) <= 18
    assert [line.split(",")[0] for line in lines if ", decoding " in line and "tok/s" in line] == list(names)


def test_all_systems_take_the_same_static_memory_within_a_slot_of_the_smallest_precision(micro: Micro, tmp_path: Path) -> None:
    run = compared(micro("lm"), tmp_path / "run", "on-demand", "hobbit", "m2cache", "infmoe")
    static = {label: value for (label,), value in values(run, "memory_static", "variant").items()}
    sizes = {value for label, value in static.items() if label != "dynamic+loop"}
    assert len(sizes) == 1
    assert sizes.pop() < static["dynamic+loop"]


def test_host_memory_behind_the_slots_saves_reads_of_the_file_and_changes_no_output(micro: Micro, tmp_path: Path) -> None:
    """Of 2 layers x 8 experts; 3 slots per layer, and memory for 6 experts of all 16."""
    layers = (*LARGE, "model.decoder_layers=4")
    recipe = load_recipe(str(micro("lm")), layers)
    room = str(6 * entry_bytes(recipe.own_model))
    systems = ("on-demand", "on-demand:foresight=last-step", "m2cache:preload=1", "hobbit", "paper")
    alone = compared(micro("lm"), tmp_path / "alone", "on-demand", "paper", overrides=layers)
    run = compared(micro("lm"), tmp_path / "run", *systems, overrides=layers, **{"host-memory": room})
    assert run.record.valid, run.record.reasons
    whole, moved = (values(one, "ledger_bytes", "variant", "category", phase="decode") for one in (alone, run))
    for label in ("dynamic+loop+on-demand", "dynamic+loop+buffered"):
        assert set(whole) >= {(label, ""), (label, "file")}
        assert whole[label, ""] == whole[label, "file"] == moved[label, ""] == moved[label, "host"] + moved[label, "file"]
        assert 0 < moved[label, "file"] < whole[label, "file"]
    demanded = values(run, "demand_bytes", "variant", phase="decode")
    assert demanded["dynamic+loop+on-demand",] == moved["dynamic+loop+on-demand", ""]
    rows = pq.read_table(run.path / "movements.parquet").to_pylist()
    reasons = {name: {row["reason"] for row in rows if row["variant"] == f"dynamic+loop+{name}"} for name in systems}
    assert reasons["on-demand"] == {"demand"}
    assert reasons["m2cache:preload=1"] == {"demand", "preload"}
    table = next(block for block in offloading_blocks(run, metrics_of(run), "decode") if isinstance(block, Table))
    column = table.columns.index("moved from")
    assert [str(row[column]).endswith("host") for row in table.rows] == [False] + [True] * len(systems)


def test_prefetching_that_makes_nothing_faster_is_said_not_to_pay_and_why(micro: Micro, tmp_path: Path) -> None:
    """A placebo cannot be faster than loads on demand, measurably; of another system without foresight nothing is said."""
    run = compared(
        micro("lm"), tmp_path / "run", "on-demand", PLACEBO, "infmoe", overrides=(*LARGE, "model.decoder_layers=4"), slots="6"
    )
    found = [text for text in answer_to(run).would_change if "does not pay" in text]
    stall = values(run, "stall_time", "variant", "layer", phase="decode")["dynamic+loop+on-demand", ""]
    assert {text.partition(",")[0] for text in found} == {PLACEBO.partition(",")[0]}
    assert any("decoding" in text and f"a step waits for {duration(stall)} of it" in text for text in found)


@pytest.mark.parametrize("text", ["1KiB", "1GiB", "much"])
def test_host_memory_for_no_expert_or_for_all_is_refused(micro: Micro, text: str) -> None:
    recipe = load_recipe(str(micro("lm")), LARGE)
    for presets in (["on-demand"], ["paper"]):
        with pytest.raises(UsageError, match=f"--host-memory {text}: ") as refused:
            offloading(recipe, presets, SETTINGS | {"host-memory": text})
        assert refused.value.remedy.startswith("Set a size" if text == "much" else "Give less than that, and at least ")


def test_one_expert_per_token_makes_the_load_rule_useless_which_is_said_or_refused(micro: Micro) -> None:
    recipe = load_recipe(str(micro("lm")), (*LARGE, "gating.top_k=1"))
    notes = offloading(recipe, ["hobbit"], SETTINGS).notes
    assert any("premise not met, hobbit: with one expert per token" in note for note in notes)
    with pytest.raises(UsageError, match="premise not met"):
        offloading(recipe, ["hobbit"], SETTINGS, strict=True)


@pytest.mark.parametrize(
    ("presets", "settings", "overrides", "what"),
    [
        (["on-demand"], {}, ("parallel.ranks=2",), "--presets: an offloading system runs on one rank"),
        (["hobit"], {}, (), "preset hobit: not known"),
        (["on-demand"], {"slots": "9"}, (), "--slots 9: a layer of lm-micro has 8 experts per rank"),
        (["on-demand"], {"buffer": "encoder"}, (), "--buffer encoder: the encoder of lm-micro has no MoE layer"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_is_allocated(
    micro: Micro, presets: list[str], settings: dict[str, str], overrides: tuple[str, ...], what: str
) -> None:
    recipe = load_recipe(str(micro("lm")), (*LARGE, *overrides))
    with pytest.raises(UsageError) as refused:
        offloading(recipe, presets, SETTINGS | settings)
    assert refused.value.what.startswith(what)


def test_low_precision_that_would_save_no_bytes_is_refused(micro: Micro, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="int4: an expert would take"):
        compared(micro("lm"), tmp_path / "run", "hobbit", overrides=("model.experts=8",))


def test_cold_experts_are_computed_on_the_far_side_and_are_not_loaded(micro: Micro, tmp_path: Path) -> None:
    run = compared(micro("lm"), tmp_path / "run", "on-demand", "monde")
    far, uses = (values(run, name, "variant", phase="decode")["dynamic+loop+monde",] for name in ("far_uses", "unit_uses"))
    assert far + uses == values(run, "unit_uses", "variant", phase="decode")["dynamic+loop+on-demand",]
    loads = [row for row in pq.read_table(run.path / "loads.parquet").to_pylist() if row["variant"] == "dynamic+loop+monde"]
    assert len([row for row in loads if row["phase"] == "decode"]) == uses
    size = entry_bytes(run.record.ran.own_model)
    (said,) = [block.text for block in offloading_blocks(run, metrics_of(run), "decode") if "second process" in str(block)]  # type: ignore[union-attr]
    assert said.startswith(f"monde: a second process holds every expert in memory of its own, {format_bytes(8 * size)} beside")


def test_carbon_is_arithmetic_on_the_measured_times(micro: Micro, tmp_path: Path) -> None:
    """26 W for 256 GB of memory, 2 W for the disk, 820 g for a kWh: by hand from the parameters of the model."""
    run = compared(micro("lm"), tmp_path / "run", "on-demand")
    with torch.device("meta"):
        model = make_model(run.record.ran)
    experts = [tensor for name, tensor in model.named_parameters() if ".experts." in name]
    whole, behind = (4 * sum(map(torch.numel, tensors)) for tensors in (model.parameters(), experts))
    held = {"dynamic+loop": whole, "dynamic+loop+on-demand": whole - behind + 3 * entry_bytes(run.record.ran.own_model)}
    grams, speeds = (values(run, name, "variant", phase="decode") for name in ("carbon", "throughput"))
    for label, num_bytes in held.items():
        watts = 26 * num_bytes / 256e9 + (2 if label.endswith("on-demand") else 0)
        assert grams[label,] == pytest.approx(1000 / speeds[label,] * watts / 3.6e6 * 820)
    said = [str(block) for block in offloading_blocks(run, metrics_of(run), "decode") if "modelled" in str(block)]
    assert len(said) == 1
    assert "resident" in said[0]
    assert [mass(grams) for grams in (1.5e-6, 3.84e-3, 2.0, 5e6)] == ["1.5 ug", "3.84 mg", "2 g", "5e+03 kg"]


def test_a_hugging_face_model_has_no_far_side() -> None:
    with pytest.raises(UsageError, match="a second process computes experts of moeprof's own models only"):
        preset_variants(["monde"], SETTINGS, resolved(load_recipe("hf-tiny")))


def test_a_run_of_an_offloading_system_can_be_replayed(micro: Micro, tmp_path: Path) -> None:
    """Its loads are decided by the system, and not by one policy for each layer that a replay could repeat."""
    run = compared(micro("lm"), tmp_path / "run", "on-demand")
    assert read_source(run.path).notes == []
