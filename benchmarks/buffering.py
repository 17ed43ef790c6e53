"""Expert buffering on the decoder of mt-small: do measured hits equal replayed ones, does the kernel read what the ledger says,
how much of the load time is hidden, and what do slots cost where every expert has one?

    python benchmarks/buffering.py [--recipe NAME] [--ranks 1 2] [--rounds N]
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median

import torch

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.analysis.timing.intervals import median_interval
from moeprof.instrument.allocator import keep_freed_memory
from moeprof.instrument.clock import wall_clock
from moeprof.instrument.timing import PreparedRound, interleaved
from moeprof.instrument.visits import ExpertLoadRecorder
from moeprof.models.buffers import RecipeBuffers
from moeprof.moe.layer import use_variant
from moeprof.parallel.group import joined, started_as
from moeprof.policies.eviction.registry import DEFAULT
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import Variant
from moeprof.records.run.run import Run
from moeprof.studies.passes.loads import measure_loads
from moeprof.studies.passes.outputs import check_outputs
from moeprof.studies.passes.routing import record_routing
from moeprof.studies.passes.time import measure_time
from moeprof.studies.progress import Silent
from moeprof.studies.replay.source import read_source
from moeprof.studies.services import calibrate, load_models
from moeprof.studies.study import Study
from moeprof.workloads.registry import make_workload

LITTLE = (
    "load.phases=['decode']",
    "load.batches=1",
    "load.decode_steps=16",
    "data.domains=['imbari']",
    "measure.rounds=6",
    "measure.warmup=1",
)
DYNAMIC = Variant("dynamic", "loop")
FEWEST_ROUNDS = 200
MOST_COST, LEAST_HIDDEN, MOST_APART = 1.02, 0.6, 0.05


def main() -> None:
    """Prints a line per question, and whether it was reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="mt-small")
    parser.add_argument("--ranks", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=FEWEST_ROUNDS)
    parser.add_argument("--routing", nargs="*", default=["model", "uniform:sticky=0.9"], help="as [routing] source")
    parser.add_argument("--as-rank", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.as_rank:
        as_rank(arguments.recipe, arguments.routing[0], arguments.as_rank)
        return
    with tempfile.TemporaryDirectory() as folder:
        for index, (routing, ranks) in enumerate(product(arguments.routing, arguments.ranks)):
            told(once(arguments.recipe, routing, ranks, Path(folder) / str(index)), f"{routing}, {ranks} ranks")
    recipe = load_recipe(arguments.recipe, [*LITTLE, f"routing.source={arguments.routing[-1]}"])
    keep_freed_memory()
    with torch.inference_mode():
        kernel_bytes(recipe)
        cost_of_slots_for_all(recipe, arguments.rounds)


def once(recipe: str, routing: str, ranks: int, out: Path) -> Run:
    """A run with half of the slots beside the same without, this script once more on every rank."""
    command = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--master-port", "29531", __file__]
    threads = str(max((os.cpu_count() or 1) // ranks, 1))
    environment = {"OMP_NUM_THREADS": threads, "GLOO_SOCKET_IFNAME": "lo"} | os.environ
    subprocess.run(
        [sys.executable, *command, "--recipe", recipe, "--routing", routing, "--as-rank", str(out)], check=True, env=environment
    )
    return Run.open(out)


def as_rank(name: str, routing: str, out: Path) -> None:
    """One rank's part: routing from cold slots, outputs, times, loads."""
    group = started_as()
    recipe = load_recipe(name, [*LITTLE, f"parallel.ranks={group.size}", f"routing.source={routing}"])
    variant = buffered(recipe.model.experts // group.size // 2)
    passes = (record_routing, check_outputs, measure_time, measure_loads)
    with joined(group, recipe.measure.device, recipe.parallel.timeout_s):
        Study("optimize", (DYNAMIC, variant), lambda _: passes, (DYNAMIC,)).run(recipe, out, group=group)


def buffered(slots: int) -> Variant:
    """The paper's policy over so many slots."""
    return replace(DYNAMIC, store="buffered", slots=slots, eviction=DEFAULT, buffered="decoder")


def told(run: Run, where: str) -> None:
    """Replay against reality, and what hid the loads."""
    (label,) = (str(one["label"]) for one in run.record.variants if one["store"] == "buffered")
    print(f"{where}: {read_source(run.path).notes[0]}")

    def value(metric: str) -> float:
        return RunMetrics.of(run).or_none(metric, phase="decode", variant=label) or 0.0

    hidden, loading, stall, hideable = map(value, ("hidden_fraction", "load_time", "stall_time", "hideable_time"))
    reached = "nothing to hide" if not hideable else "reached" if hidden >= LEAST_HIDDEN else "NOT REACHED"
    print(
        f"{where}: {value('miss_rate'):.1%} miss; of a step of {value('step_latency') / 1e6:.1f} ms: loading {loading / 1e6:.1f} ms "
        f"at {value('load_bandwidth') / 1e6:.0f} MB/s, could hide {hideable / 1e6:.1f} ms, stands still {stall / 1e6:.1f} ms; "
        f"hidden {hidden:.1%} of what could: {reached}"
    )
    equal = RunMetrics.of(run).value("output_tokens_differing", phase="decode", variant=label)
    print(f"{where}: outputs that differ from the resident run's: {equal:.0f}; valid {run.record.valid}")


def fitted(recipe: Recipe, slots: int) -> tuple[torch.nn.Module, Variant, RecipeBuffers, Callable[[], object]]:
    """The model under dynamic gating, its buffered variant, and a round of a few decode steps."""
    variant = buffered(slots)
    models = load_models(recipe, [DYNAMIC, variant], Silent())
    model = models[variant]
    buffers = RecipeBuffers(model, recipe, [variant])
    buffers.fit(variant)
    calibrate(models)
    episode = make_workload(recipe).episodes("decode")[0]
    use_variant(model, DYNAMIC)
    episode.settle(model)
    return model, variant, buffers, episode.ready(model)


def kernel_bytes(recipe: Recipe) -> None:
    """What /proc says that this process read from disks, beside what the ledger says."""
    model, variant, buffers, play = fitted(recipe, recipe.model.experts // 2)
    use_variant(model, variant)
    recorder = ExpertLoadRecorder()
    before = read_bytes()
    for _ in range(3):
        recorder.observing(play)()
    kernel = read_bytes() - before
    ledger = sum(use.num_bytes for visits in recorder.rounds for one in visits for use in one.visit.uses)
    apart = abs(kernel / ledger - 1)
    print(
        f"bytes: ledger {ledger:,}, /proc/self/io {kernel:,}, apart {apart:.2%}: {'reached' if apart < MOST_APART else 'NOT REACHED'}"
    )
    buffers.close()


def read_bytes() -> int:
    """From storage, by this process, so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes:"))


def cost_of_slots_for_all(recipe: Recipe, rounds: int) -> None:
    """Rounds in turns of the resident experts and of slots for all of them."""
    steps = recipe.model_copy(update={"load": recipe.load.model_copy(update={"decode_steps": 4})})
    model, variant, buffers, play = fitted(steps, recipe.model.experts)
    variants = {"resident": DYNAMIC, "slots": variant}
    prepared = {name: PreparedRound(play, partial(use_variant, model, one)) for name, one in variants.items()}
    samples = interleaved(prepared, rounds=rounds, warmup=5, clock=wall_clock)
    ratios = [slots / resident for slots, resident in zip(samples["slots"], samples["resident"], strict=True)]
    report("with slots for all a step takes", ratios)
    buffers.close()


def report(what: str, ratios: Sequence[float]) -> None:
    """The median ratio with its interval."""
    low, high = median_interval(ratios) or (0.0, float("inf"))
    print(
        f"{what} {median(ratios):.4f} of a step without, 95% [{low:.4f}, {high:.4f}] over {len(ratios)} rounds in turns: "
        f"{'reached' if high <= MOST_COST else 'NOT REACHED'} (at most {MOST_COST})"
    )


if __name__ == "__main__":
    main()
