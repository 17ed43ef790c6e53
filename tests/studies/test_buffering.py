"""Expert buffering end to end: a run whose experts do not all fit does what a replay says, and computes what it did before."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from moeprof.analysis.caching.miss_counts import Accesses, misses
from moeprof.analysis.model_size import entry_bytes, expert_bytes, static_bytes, weight_bytes
from moeprof.models.buffers import RecipeBuffers, contents_of
from moeprof.records.errors import UsageError
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.variant import STATIC, Variant
from moeprof.records.run.run import Run
from moeprof.studies.optimize import optimization
from moeprof.studies.passes.loads import measure_loads
from moeprof.studies.passes.memory import measure_memory
from moeprof.studies.passes.slots import sweep_slots
from moeprof.studies.passes.time import measure_time
from moeprof.studies.replay.source import read_source
from moeprof.studies.services import Findings
from tests.records.run.runs import value_of

from .runs import DYNAMIC, Micro, studied, values

LIFO = "inactive-first+lifo"
SETTINGS = {
    "kernel": "loop",
    "slots": None,
    "fast-memory": None,
    "host-memory": None,
    "eviction": LIFO,
    "buffer": "decoder",
    "sweep-slots": False,
}


def buffered(slots: int, eviction: str = LIFO, stack: str = "decoder") -> Variant:
    return Variant("dynamic", "loop", "buffered", slots=slots, eviction=eviction, buffered=stack)


LABEL = buffered(1).label
EIGHT = ("model.experts=8", "load.batches=3", "measure.rounds=5")


def buffered_run(recipe: Path, out: Path, slots: int, *overrides: str, stack: str = "decoder", **options: object) -> Run:
    """Dynamic gating beside the same with slots."""
    variants = (DYNAMIC, buffered(slots, str(options.pop("eviction", LIFO)), stack))
    return studied(recipe, out, *EIGHT, *overrides, variants=variants, against=(DYNAMIC,), **options)  # type: ignore[arg-type]


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("workload", ["lm", "mt"])
@pytest.mark.parametrize(("slots", "eviction"), [(3, LIFO), (8, "fifo")])
def test_outputs_are_those_of_the_resident_run_and_hits_those_of_a_replay(
    micro: Micro, tmp_path: Path, workload: str, slots: int, eviction: str
) -> None:
    run = buffered_run(micro(workload), tmp_path / "run", slots, eviction=eviction)
    assert run.record.valid
    assert set(values(run, "output_tokens_differing", "phase", variant=LABEL).values()) == {0}
    uses = len(run.loads)
    assert uses
    (note,) = read_source(run.path).notes[:1]
    assert note.startswith(f"{LABEL} ({eviction}, {slots} slots): the replay reproduces every hit and miss of the run")
    told = [int(word.replace(",", "")) for word in note.replace("(", " ").split() if word.replace(",", "").isdecimal()]
    assert sum(told[1:]) == uses


@pytest.mark.usefixtures("device")
def test_the_misses_told_are_those_of_the_trace_replayed_from_cold_caches(micro: Micro, tmp_path: Path) -> None:
    """An independent count: the trace's distinct experts of each step, in order, through the engine of `moeprof replay`."""
    run = buffered_run(micro("lm"), tmp_path / "run", 3, 'data.domains=["prose"]')
    trace = run.trace("decode", LABEL)
    assert trace is not None
    steps, experts = trace.column("step").astype(np.int64), trace.column("expert").astype(np.int64)
    keys = np.unique(np.stack([steps, experts]), axis=1)
    accesses = Accesses(keys[1], keys[0], np.zeros(keys.shape[1], np.int64))
    ((expected,),) = misses(accesses, LIFO, [3])
    assert value_of(run, "misses", phase="decode", variant=LABEL) == expected
    assert value_of(run, "expert_accesses", phase="decode", variant=LABEL) == keys.shape[1]
    size = entry_bytes(run.record.ran.model)
    assert value_of(run, "bytes_loaded", phase="decode", variant=LABEL) == expected * size
    assert value_of(run, "worst_miss_rate", phase="decode", variant=LABEL) == pytest.approx(expected / keys.shape[1])


@pytest.mark.usefixtures("device")
def test_a_routing_says_whether_its_expert_was_there(micro: Micro, tmp_path: Path) -> None:
    run = buffered_run(micro("mt"), tmp_path / "run", 3)
    trace = run.trace("decode", LABEL)
    assert trace is not None
    hits = {
        (step, expert): hit
        for step, expert, hit in zip(*(run.loads.column(name) for name in ("step", "expert", "hit")), strict=True)
    }
    rows = zip(*(trace.column(name) for name in ("step", "expert", "residency")), strict=True)
    assert all(residency == hits[step, expert] for step, expert, residency in rows)
    resident = run.trace("decode", DYNAMIC.label)
    assert resident is not None
    assert resident.table["residency"].null_count == len(resident)
    encoded = run.trace("encode", LABEL)
    assert encoded is not None
    assert encoded.table["residency"].null_count == len(encoded), "the encoder keeps all of its experts"


@pytest.mark.usefixtures("device")
def test_prompts_leave_no_trace_in_the_caches_of_decoding(micro: Micro, tmp_path: Path) -> None:
    """They pass through the same layers; hits are those of the recorded steps alone, from a cold start, or no replay could say them."""
    run = buffered_run(micro("lm"), tmp_path / "run", 2, "load.prompt_length=10")
    first = run.loads.of(phase="decode", layer="1").table.slice(0, 1).to_pylist()[0]
    assert not first["hit"]
    assert first["victim"] == -1


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(("stack", "layers"), [("decoder", {"dec.1"}), ("encoder", {"enc.1"}), ("all", {"enc.1", "dec.1"})])
def test_whose_layers_are_buffered_is_the_users_choice(micro: Micro, tmp_path: Path, stack: str, layers: set[str]) -> None:
    run = buffered_run(micro("mt"), tmp_path / "run", 3, stack=stack)
    assert set(run.loads.column("layer").tolist()) == layers


# What it costs, and what it saves


@pytest.mark.usefixtures("device")
def test_loads_are_timed_beside_what_could_hide_them(micro: Micro, tmp_path: Path) -> None:
    run = buffered_run(micro("lm"), tmp_path / "run", 3, passes=(measure_time, measure_loads))
    for phase in ("score", "decode"):
        loading, stall, hideable = (
            value_of(run, metric, phase=phase, variant=LABEL) for metric in ("load_time", "stall_time", "hideable_time")
        )
        assert loading is not None
        assert stall is not None
        assert hideable is not None
        assert 0 < hideable <= loading
        assert stall >= 0
        pace, size = (value_of(run, metric, phase=phase, variant=LABEL) for metric in ("load_bandwidth", "step_bytes_loaded"))
        assert pace == pytest.approx(size * 1e9 / loading, rel=0.5)  # medians of ratios and ratio of medians
        assert values(run, "load_time", "variant", phase=phase).keys() == {(LABEL,)}


def test_slots_count_as_memory_in_the_place_of_experts(micro: Micro, tmp_path: Path) -> None:
    run = buffered_run(micro("lm"), tmp_path / "run", 3, passes=(measure_memory,))
    recipe = run.record.ran
    whole, size = weight_bytes(recipe.model), entry_bytes(recipe.model)
    expected = whole - 8 * expert_bytes(recipe.model) + 3 * size
    assert value_of(run, "memory_static", variant=LABEL) == expected == static_bytes(recipe, buffered(3))
    assert value_of(run, "memory_at_peak", phase="score", variant=LABEL, category="expert_slots") == 3 * size
    at_peak = values(run, "memory_at_peak", "category", phase="score", variant=LABEL)
    assert sum(at_peak.values()) == value_of(run, "memory_total_peak", phase="score", variant=LABEL)
    assert value_of(run, "memory_saved", variant=LABEL) == whole - expected
    assert value_of(run, "memory_reduction", variant=LABEL, point="slots=1") == whole / (expected - 2 * size)


def test_the_papers_two_operating_points_at_the_papers_shape() -> None:
    """Table 5.5 from the run's own rows: 2.25 GiB and 12.9% at ten slots, 1.47x at one, nothing at all sixteen."""
    recipe = load_recipe("mt-54b", ["parallel.ranks=8", "model.dtype=float16"])
    whole = static_bytes(recipe, STATIC)
    saved = {slots: whole - static_bytes(recipe, buffered(slots)) for slots in (16, 10, 5, 1)}
    assert [saved[slots] / 2**30 for slots in (16, 10, 5, 1)] == pytest.approx([0, 2.2507, 4.126, 5.6267], abs=0.01)
    assert saved[10] / whole == pytest.approx(0.129, abs=5e-4)
    assert whole / (whole - saved[1]) == pytest.approx(1.474, abs=1e-3)


def test_a_sweep_measures_other_numbers_of_slots(micro: Micro, tmp_path: Path) -> None:
    run = buffered_run(micro("lm"), tmp_path / "run", 3, passes=(sweep_slots,))
    points = [f"slots={slots}" for slots in (1, 2, 3, 4, 8)]
    for phase in ("score", "decode"):
        rates = [value_of(run, "miss_rate", phase=phase, variant=LABEL, point=point) for point in points]
        assert None not in rates
        assert value_of(run, "misses", phase=phase, variant=LABEL, point="slots=8") == value_of(
            run, "compulsory_misses", phase=phase, variant=LABEL, point="slots=8"
        )
        assert rates[0] == max(rates)  # type: ignore[type-var]
        for metric in ("throughput", "step_latency", "stall_time", "step_bytes_loaded"):
            assert all(value_of(run, metric, phase=phase, variant=LABEL, point=point) is not None for point in points), metric
    assert run.record.valid


# What the user types


def variants(recipe: str, *overrides: str, **settings: object) -> list[Variant]:
    resolved = load_recipe(recipe, overrides)
    return list(optimization(resolved, ["expert-buffering"], SETTINGS | settings).variants)  # type: ignore[arg-type]


def test_buffering_comes_on_top_of_dynamic_gating_with_half_of_the_slots() -> None:
    found = variants("lm-tiny")
    assert [variant.label for variant in found] == ["static", "dynamic+loop", "dynamic+loop+buffered"]
    experts = load_recipe("lm-tiny", []).model.experts
    assert (found[-1].slots, found[-1].eviction, found[-1].buffered) == (experts // 2, LIFO, "decoder")


def test_fast_memory_is_shared_by_the_slots_of_all_buffered_layers() -> None:
    recipe = load_recipe("mt-54b", ["parallel.ranks=8"])
    assert entry_bytes(recipe.model) == 67_129_344
    for gib, slots in ((1, 2), (2, 5), (100, 16)):
        found = variants("mt-54b", "parallel.ranks=8", "measure.device=cpu", **{"fast-memory": f"{gib}GiB"})
        assert found[-1].slots == slots


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"slots": "0"}, "--slots 0: a layer of lm-tiny has"),
        ({"slots": "65"}, "--slots 65: a layer of lm-tiny has"),
        ({"slots": "many"}, "--slots many: a layer of lm-tiny has"),
        ({"slots": "2", "fast-memory": "1GiB"}, "--slots and --fast-memory: both are given"),
        ({"fast-memory": "1KiB"}, "--fast-memory 1KiB: 2 layers need"),
        ({"fast-memory": "much"}, "--fast-memory much: "),
        ({"eviction": "min"}, "--eviction min: this policy needs future accesses"),
        ({"eviction": "lifoo"}, "unknown eviction policy 'lifoo'"),
        ({"buffer": "encoder"}, "--buffer encoder: the encoder of lm-tiny has no MoE layer"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_allocated(settings: dict[str, object], what: str) -> None:
    with pytest.raises(UsageError) as caught:
        variants("lm-tiny", **settings)
    assert caught.value.what.startswith(what)
    assert caught.value.exit_code == 2


def test_a_rank_with_a_single_expert_has_no_use_for_it() -> None:
    with pytest.raises(UsageError, match="each rank holds a single expert per layer"):
        variants("lm-tiny", "model.experts=2", "parallel.ranks=2", "model.checkpoint=", "gating.top_k=2")


# Faults


def test_a_replay_refuses_a_run_that_it_cannot_reproduce(micro: Micro, tmp_path: Path) -> None:
    """Whoever changes what was recorded, or a store that does not do what its policy says, is found out."""
    run = buffered_run(micro("lm"), tmp_path / "run", 3)
    path = run.path / "loads.parquet"
    table = run.loads.table
    hit = np.flatnonzero(run.loads.column("hit"))[0]
    spoiled = table.to_pylist()
    spoiled[hit] |= {"hit": False, "bytes": 4096}
    written = table.from_pylist(spoiled, schema=table.schema)
    pq.write_table(written.replace_schema_metadata({b"moeprof": b'{"schema_version": 1}'}), path)
    with pytest.raises(UsageError, match=r"a replay does not reproduce what .* did in score: layer 1: step"):
        read_source(run.path)
    pq.write_table(table.slice(1).replace_schema_metadata({b"moeprof": b'{"schema_version": 1}'}), path)
    with pytest.raises(UsageError, match="used experts that differ from its trace"):
        read_source(run.path)


def test_a_file_that_changes_during_the_run_ends_it_with_two_lines_and_keeps_what_there_is(
    micro: Micro, tmp_path: Path
) -> None:
    recipe = load_recipe(str(micro("lm")), ["model.experts=8", "measure.seed=7"])
    path = contents_of(recipe, ["1"]).path

    def spoil(*_: object) -> Findings:
        with path.open("r+b") as file:
            file.truncate(8192)
        return Findings()

    from moeprof.records.errors import MoeprofError

    with pytest.raises(MoeprofError, match="changed while in use"):
        buffered_run(micro("lm"), tmp_path / "run", 3, "measure.seed=7", passes=(spoil, measure_loads))
    record = Run.open(tmp_path / "run").record
    assert not record.valid
    assert record.reasons[0].startswith(f"failed: expert file {path}: it was changed while in use")
    path.unlink()


def test_experts_without_memory_of_their_own_are_read_from_the_seed_or_the_checkpoint_alike(tmp_path: Path) -> None:
    """The file holds bit for bit what the whole model holds."""
    from moeprof.models.build import build_model
    from moeprof.moe.layer import moe_layers

    recipe = load_recipe("lm-tiny", [])
    whole = build_model(recipe)
    lean = build_model(recipe, absent=recipe.model.decoder_moe_layers)
    assert all(parameter.is_meta for layer in moe_layers(lean) for parameter in layer.experts.parameters())
    variant = buffered(recipe.model.experts)
    buffers = RecipeBuffers(lean, recipe, [variant])
    buffers.fit(variant)
    for layer, resident in zip(moe_layers(lean), moe_layers(whole), strict=True):
        store = layer.stores[variant]
        store.expect(list(range(recipe.model.experts + 1)))
        for _ in store.waves():
            pass
        for slots, weights in zip(store.weights.values(), resident.experts.weights.values(), strict=True):
            assert slots.equal(weights)
    buffers.close()


WITH_LITTLE_MEMORY = """
import resource, sys
import torch
from moeprof.analysis.model_size import expert_bytes
from moeprof.cli.group import run
from moeprof.records.system.resources import proc_bytes
from moeprof.records.recipe.files import load_recipe
torch.set_num_threads(1)
recipe, out = sys.argv[1:]
command = ["optimize", recipe, "--expert-buffering", "--slots", "8", "--no-sweep", "--quiet", "--out", out]
small = ["--set", "model.dim=16", "--set", "model.ffn_dim=16"]
assert run([*command, *small]) == 0  # what a run imports, and its threads, are there before the model is
experts = 2 * 96 * expert_bytes(load_recipe(recipe, []).model)
limit = proc_bytes("/proc/self/status", "VmData:") + experts // 4
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
sys.exit(run([*command, "--force"]))
"""

LARGE = """
schema = 1
workload = "lm"
[model]
decoder_layers = 2
dim = 256
ffn_dim = 1024
heads = 4
vocab_size = 260
experts = 96
moe_every = 1
activation = "gelu"
positions = "alibi"
tokenizer = "bytes"
[load]
batch_size = 2
sequence_length = 8
batches = 1
decode_steps = 2
prompt_length = 4
phases = ["score"]
[data]
domains = ["prose"]
[measure]
warmup = 0
rounds = 5
"""


def test_a_model_whose_experts_are_four_times_the_memory_that_is_left_runs_to_the_end(tmp_path: Path) -> None:
    """192 experts of 2 MiB, 101 MiB left by RLIMIT_DATA: those who keep all experts are left out, and the report says so."""
    recipe, out = tmp_path / "large.toml", tmp_path / "run"
    recipe.write_text(LARGE)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, "-c", WITH_LITTLE_MEMORY, str(recipe), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    run = Run.open(out)
    assert run.record.valid
    assert [variant["label"] for variant in run.record.variants] == ["dynamic+buffered"]
    assert "static, dynamic: omitted, because all experts at once need" in run.record.notes[0]
    assert value_of(run, "misses", phase="score", variant="dynamic+buffered") is not None
