"""A replay of offloading systems decides what a running model decided, event by event, and refuses what a trace cannot say."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from moeprof.optimizations.presets import preset_variants, resident_variant
from moeprof.records.errors import UsageError
from moeprof.records.recipe.files import load_recipe
from moeprof.records.run.run import Run
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.units import format_bytes
from moeprof.reporters.documents.report import answer_to, document_of
from moeprof.reporters.formats.markdown import render_document
from moeprof.studies.recompute import recompute
from moeprof.studies.replay.offloading import OffloadingOptions, replay_offloading
from moeprof.studies.replay.source import read_source
from tests.studies.runs import Micro, studied

SETTINGS = {"kernel": "loop", "slots": "3", "fast-memory": None, "host-memory": None, "eviction": "lru", "buffer": "all"}
LARGE = (
    "model.experts=8",
    "model.moe_every=1",
    "load.decode_steps=6",
    "model.dim=64",
    "model.ffn_dim=64",
    "load.batch_size=1",
    "load.batches=4",
    "measure.rounds=5",
)
"""Experts of more than a page, so that packing them saves bytes."""
SYSTEMS = (
    "on-demand",
    "on-demand:eviction=fifo,per-layer=no",
    "on-demand:foresight=last-step",
    "on-demand:foresight=most-used",
    "on-demand:foresight=most-used,shuffled=yes",
    "hobbit:foresight=",
    "m2cache",
)
SLOTS = 3
PHASES = {"score": "prefill", "encode": "prefill", "decode": "decode"}

HEADER = "phase,step,layer,slot,expert,weight,sequence,position\n"


def replayed(path: Path, out: Path, *systems: str, slots: int | None = SLOTS, size: int | None = None, **given: str) -> Run:
    source = read_source(path, variant=given.get("variant"), expert_bytes=size, options=ImportOptions())
    return replay_offloading(source, OffloadingOptions(systems, slots), out)


def log(path: Path, *steps: tuple[int, ...], layers: int = 1, weights: bool = True) -> Path:
    """Decoded tokens that choose these experts in every layer, with falling weights."""
    rows = [
        f"1,{step},{layer},{slot},{expert},{0.5**slot if weights else 'nan'},0,{step}\n"
        for step, chosen in enumerate(steps)
        for layer in range(layers)
        for slot, expert in enumerate(chosen)
    ]
    path.write_text(HEADER + "".join(rows))
    return path


@pytest.mark.parametrize("workload", ["lm", "mt"])
def test_every_event_is_that_of_the_run_that_recorded_the_trace(micro: Micro, tmp_path: Path, workload: str) -> None:
    recipe = load_recipe(str(micro(workload)), LARGE)
    variants = [resident_variant(SETTINGS, recipe), *preset_variants(SYSTEMS, SETTINGS, recipe)]
    run = studied(micro(workload), tmp_path / "run", *LARGE, variants=variants, against=variants[1:2])
    assert run.record.valid, run.record.reasons
    for number, variant in enumerate(variants[1:]):
        again = replayed(run.path, tmp_path / str(number), variant.store, variant=variant.label)
        recorded = [row for row in events(run) if row[1] == variant.label]
        expected = sorted((PHASES[phase], variant.store, *rest) for phase, _, *rest in recorded)
        assert events(again) == expected, variant.store
        assert {row[4] for row in expected} >= {"high"}
    assert Counter(row[5] for row in events(run))["prefetch"] > 0


def events(run: Run) -> list[tuple[str | int, ...]]:
    """Phase, variant, domain, layer, precision, event, count, bytes."""
    rows = pq.read_table(run.path / "unit_events.parquet").to_pylist()
    names = ("phase", "variant", "domain", "layer", "precision", "event", "count", "bytes")
    return sorted(tuple(row[name] for name in names) for row in rows)


def test_loads_on_demand_are_the_misses_of_lru(tmp_path: Path) -> None:
    """By a list of experts in the order of their last use; a step uses one expert."""
    chosen = np.random.default_rng(0).integers(0, 8, 200).tolist()
    misses, recent = 0, list[int]()
    for expert in chosen:
        misses += expert not in recent
        recent = [*(one for one in recent if one != expert), expert][-3:]
    run = replayed(log(tmp_path / "log.route.csv", *((one,) for one in chosen)), tmp_path / "run", "on-demand", size=1000)
    found = {row.key.metric: row.value for row in run.rows if row.key.category == ""}
    assert found["unit_uses"] == 200
    assert found["demand_bytes"] == 1000 * misses
    assert found["unit_hit_rate"] == pytest.approx(1 - misses / 200)
    assert found["demand_time"] == pytest.approx(1e9 * 1000 * misses / 12e9 / 200)


def test_the_most_used_expert_is_loaded_ahead_after_another_one_took_its_slot(tmp_path: Path) -> None:
    """Two layers with one slot: each loads expert 0 once and 1 once; on demand 0 once more, otherwise ahead of the last step."""
    trace = log(tmp_path / "log.route.csv", (0,), (0,), (0,), (1,), (0,), layers=2)
    run = replayed(trace, tmp_path / "run", "on-demand", "on-demand:foresight=most-used", slots=1, size=10)
    found = {(row.key.variant, row.key.metric): row.value for row in run.rows if row.key.category == ""}
    assert found["on-demand", "demand_bytes"] == 2 * 3 * 10
    assert found["on-demand:foresight=most-used", "demand_bytes"] == 2 * 2 * 10
    assert found["on-demand:foresight=most-used", "prefetch_bytes"] == 2 * 10
    assert found["on-demand:foresight=most-used", "prefetch_precision"] == 1
    assert found["on-demand:foresight=most-used", "prefetch_recall"] == pytest.approx(2 / 6)


def test_a_rule_that_skips_and_packs_says_what_a_trace_cannot(tmp_path: Path) -> None:
    trace = log(tmp_path / "log.route.csv", *[(step % 8, (step + 3) % 8) for step in range(40)])
    run = replayed(trace, tmp_path / "run", "on-demand", "hobbit", slots=4, size=2**20)
    text = render_document(document_of(run))
    assert "hobbit: replayed without look-ahead, which needs the routers of the model" in text
    assert "a trace cannot say" in text
    answer = answer_to(run)
    assert [number.name for number in answer.numbers] == ["on-demand, decode", "hobbit, decode"]
    assert "without loss: no system loads fewer bytes on demand than on-demand" in answer.sentence
    rows = {(row.key.variant, row.key.metric, row.key.category): row.value for row in run.rows}
    # the second choice has an unimportance of 2/3: more than T1, less than T2; int4 has 4.5 of 16 bits
    assert rows["hobbit", "demand_bytes", "int4"] % int(2**20 * 4.5 / 16) == 0
    assert rows["hobbit", "demand_bytes", "int4"] > 0
    assert rows["hobbit", "skipped_uses", ""] == 0


def test_bits_of_a_weight_are_stated_or_doubted_and_must_exceed_those_of_packed_ones(tmp_path: Path) -> None:
    trace = log(tmp_path / "log.route.csv", *[(step % 8, (step + 3) % 8) for step in range(40)])
    source = read_source(trace, expert_bytes=2**20)
    stated = replay_offloading(source, OffloadingOptions(["hobbit"], 4, weight_bits=8), tmp_path / "stated")
    doubted = replay_offloading(source, OffloadingOptions(["on-demand", "hobbit"], 4), tmp_path / "doubted")
    rows = {(row.key.metric, row.key.category): row.value for row in stated.rows}
    assert rows["demand_bytes", "int4"] % int(2**20 * 4.5 / 8) == 0 < rows["demand_bytes", "int4"]
    assert answer_to(stated).light.reasons == []
    assert (
        answer_to(doubted).light.reasons[0].startswith("The trace does not state how many bits a weight has: bytes of hobbit")
    )
    with pytest.raises(UsageError, match=r"preset hobbit: int4 takes 4\.5 bits per weight, and the model 4"):
        replay_offloading(source, OffloadingOptions(["hobbit"], 4, weight_bits=4), tmp_path / "narrow")


def test_fitted_weights_are_judged_on_the_half_that_they_were_not_fitted_on(tmp_path: Path) -> None:
    """Expert 0 in every second step, others in turn: frequency keeps it, recency does not."""
    steps = [(0, 1) if step % 2 else (2 + step // 2 % 6, 1 + step % 5 + 1) for step in range(60)]
    trace = log(tmp_path / "log.route.csv", *((one, other if one != other else 7) for one, other in steps))
    singles = {name: f"hobbit:weights={name}" for name in ("1:0:0:0", "0:1:0:0", "0:0:1:0", "0:0:0:1")}
    run = replayed(trace, tmp_path / "run", "hobbit:weights=fit", *singles.values(), slots=3, size=2**20)
    note = next(note for note in run.record.notes if "fitted on the first half" in note)
    weights = note.partition("weights=")[2].partition("weights=")[2].partition(",")[0]
    early, late = {}, {}
    for name in {weights, *singles}:
        whole, first = (
            sum(row["bytes"] for row in pq.read_table(one.path / "unit_events.parquet").to_pylist() if row["event"] == "demand")
            for one in (
                replayed(trace, tmp_path / f"{name}-whole", f"hobbit:weights={name}", slots=3, size=2**20),
                replayed(cut(trace, 30), tmp_path / f"{name}-first", f"hobbit:weights={name}", slots=3, size=2**20),
            )
        )
        early[name], late[name] = first, whole - first
    assert format_bytes(late[weights]) in note
    least = min(late[name] for name in singles)
    assert f"{late[weights] / least - 1:+.1%}" in note


def cut(trace: Path, steps: int) -> Path:
    """The first steps of a log."""
    first = trace.with_name(f"first{steps}.route.csv")
    lines = trace.read_text().splitlines(keepends=True)
    first.write_text("".join([lines[0], *(line for line in lines[1:] if int(line.split(",")[1]) < steps)]))
    return first


def test_a_running_model_fits_no_weights(micro: Micro) -> None:
    recipe = load_recipe(str(micro("lm")), LARGE)
    with pytest.raises(UsageError, match="weights are fitted on a recorded trace"):
        preset_variants(["hobbit:weights=fit"], SETTINGS, recipe)
    with pytest.raises(UsageError, match="weights=fit is for the eviction weighted"):
        preset_variants(["on-demand:weights=fit"], SETTINGS, recipe)


def test_the_rows_are_derived_again_from_the_run_alone(tmp_path: Path) -> None:
    trace = log(tmp_path / "log.route.csv", *[(step % 8, (step + 3) % 8) for step in range(40)])
    run = replayed(trace, tmp_path / "run", "on-demand", "paper", size=10)
    before = (run.path / "metrics.csv").read_bytes()
    trace.unlink()
    recompute(run)
    assert (run.path / "metrics.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("system", "what"),
    [
        ("monde", "preset monde: what a second process computes depends on measured times"),
        ("sida", "preset sida: its predictor reads embeddings of tokens"),
        ("nothing", "preset nothing: not known"),
        ("hobbit:t1=0.9,t2=0.1", "t2=0.1 is smaller than t1=0.9"),
    ],
)
def test_what_a_trace_cannot_decide_is_refused(tmp_path: Path, system: str, what: str) -> None:
    trace = log(tmp_path / "log.route.csv", (0, 1), (1, 2))
    with pytest.raises(UsageError, match=what):
        replayed(trace, tmp_path / "run", "on-demand", system, slots=1, size=10)
    assert not (tmp_path / "run").exists()


def test_rules_about_weights_need_weights(tmp_path: Path) -> None:
    trace = log(tmp_path / "log.route.csv", (0, 1), (1, 2), (2, 3), weights=False)
    with pytest.raises(UsageError, match="it decides by the weights of experts"):
        replayed(trace, tmp_path / "run", "hobbit", slots=2, size=10)
    assert replayed(trace, tmp_path / "run", "on-demand", slots=2, size=10).record.valid


def test_bytes_need_the_size_of_an_expert_and_slots_need_experts(tmp_path: Path) -> None:
    trace = log(tmp_path / "log.route.csv", (0, 1), (1, 2))
    with pytest.raises(UsageError, match="expert size unknown"):
        replayed(trace, tmp_path / "run", "on-demand", slots=1)
    with pytest.raises(UsageError, match="--slots 4: a layer has 3 experts"):
        replayed(trace, tmp_path / "run", "on-demand", slots=4, size=10)
