"""Greedy against contiguous placement with 2 and 4 real ranks and skewed routing, and what placements promise on 8 virtual devices.

Runs `moeprof optimize --load-balancing` with `routing.source=zipf:1.2,sorted`: rounds of all variants in turns, the ratio of their
throughputs with its 95% interval, and whether the tokens that each rank was sent are those that a replay of the trace predicts.
Times need a machine that does nothing else, and as many cores as ranks.

python benchmarks/balancing.py [--recipe NAME] [--ranks N,...] [--rounds N] [--set KEY=VALUE] [--virtual]
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from moeprof.analysis.placement.device_load import device_counts
from moeprof.analysis.routing.load_matrix import layer_matrices, pooled, rank_of_rows
from moeprof.analysis.run_metrics import RunMetrics, of_replay
from moeprof.records.placement import Placement
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.variant import Variant
from moeprof.records.run.run import Run
from moeprof.records.traces.routing_trace import joined
from moeprof.studies.passes.routing import record_routing
from moeprof.studies.replay.loads import read_loads
from moeprof.studies.replay.placements import PlacementOptions, replay_placements
from moeprof.studies.study import Study

BEFORE, AFTER = "dynamic", "dynamic+greedy"
SKEWED = "zipf:1.2,sorted"
SOURCES = ("model", "zipf:1.2,seed=1", SKEWED)
DEVICES = 8


def main() -> None:
    """A block of lines per number of ranks, then what is virtual."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="lm-small")
    parser.add_argument("--ranks", default="2,4")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="an override of the recipe; repeatable")
    parser.add_argument("--virtual", action="store_true", help="lm-tiny and mt-tiny on 8 virtual devices, and no real ranks")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.virtual:
            for recipe in ("lm-tiny", "mt-tiny"):
                for source in SOURCES:
                    print("\n".join(virtual(recipe, source, Path(folder) / recipe / source.replace(":", "-"))), flush=True)
            return
        for ranks in map(int, arguments.ranks.split(",")):
            found = real(
                arguments.recipe, ranks, [*arguments.set, f"measure.rounds={arguments.rounds}"], Path(folder) / str(ranks)
            )
            print("\n".join(told(found, ranks)), flush=True)


def moeprof(*arguments: str) -> None:
    """One command."""
    subprocess.run([sys.executable, "-m", "moeprof", *arguments], check=True, stdout=subprocess.DEVNULL)


def real(recipe: str, ranks: int, overrides: list[str], out: Path) -> Run:
    """Static gating does not matter here and is slow: Tutel stands in its place. Both placements are rounds of one run, in turns."""
    sets = [f"routing.source={SKEWED}", "load.phases=['score']", "data.domains=['prose']", *overrides]
    words = [word for one in sets for word in ("--set", one)]
    options = ["--load-balancing", "--no-sweep", "--against", "tutel", "--ranks", str(ranks), "--out", str(out)]
    moeprof("optimize", recipe, *options, *words)
    return Run.open(out)


def told(found: Run, ranks: int) -> Iterator[str]:
    """Speed, load, waiting, move, prediction."""
    metrics = RunMetrics.of(found).at(phase="score")
    ratio, low, high = (
        metrics.or_none(f"speedup_equal_batch{end}", variant=AFTER, category=BEFORE) for end in ("", "_low", "_high")
    )
    yield f"{found.record.name} on {ranks} ranks, valid {found.record.valid}"
    yield f"  greedy over contiguous, ratio of throughputs and its interval: {shown([ratio, low, high])}"
    for metric in ("avg_max_load", "max_load"):
        values = [metrics.value(metric, variant=one) for one in (BEFORE, AFTER)]
        yield f"  {metric}: {values[0]:.3f} -> {values[1]:.3f} (ideal {1 / ranks:.3f})"
    for metric in ("rank_tokens", "comm_wait_time", "memory_total_peak"):
        before, after = (
            shown([metrics.or_none(metric, variant=one, rank=str(n)) for n in range(ranks)]) for one in (BEFORE, AFTER)
        )
        yield f"  {metric} by rank: {before} -> {after}"
    move, took, paid = (metrics.or_none(metric, variant=AFTER) for metric in ("moved_bytes", "move_time", "payoff_steps"))
    yield f"  move: bytes, ns, steps until it is paid for: {shown([move, took, paid])}"
    yield f"  every rank was sent the tokens that the trace predicts: {predicted(found)}"


def shown(values: Sequence[float | None]) -> str:
    """With three digits behind the point, a dash for what is not known."""
    return " ".join("-" if value is None else f"{value:,.3f}".removesuffix(".000") for value in values)


def predicted(found: Run) -> bool:
    """Whether every collective of the pass `traffic` carried, to every rank, what the trace under contiguous placement says."""
    traces = [trace for trace in found.traces if trace.header.variant == BEFORE]
    layers = layer_matrices(joined(traces[0].header, [trace.table for trace in traces]), rank_R=rank_of_rows(traces))
    matrices = {each[0].layer: pooled(each) for each in layers}
    placement = Placement.read(found.path / "placements" / f"score-{AFTER}.json")
    served = {layer: device_counts(matrix, np.array(placement.layers[layer])) for layer, matrix in matrices.items()}
    row_bytes = found.record.ran.model.dim * found.record.ran.model.bytes_per_element
    rows = found.traffic.table.to_pandas()
    rows = rows[(rows["variant"] == AFTER) & (rows["region"] == "a2a_dispatch")]
    sent = rows.groupby(["round", "layer", "step", "destination"], observed=True)["bytes"].sum() // row_bytes
    return len(sent) > 0 and all(
        count == served[layer][rank, np.searchsorted(matrices[layer].steps_B, step)]
        for (_, layer, step, rank), count in sent.items()
    )


def virtual(recipe: str, source: str, out: Path) -> Iterator[str]:
    """Loads of 8 devices on the later half of the trace, whatever comes out."""
    study = Study("characterize", (Variant(dispatch=BEFORE),), lambda _: (record_routing,))
    run = study.run(load_recipe(recipe, [f"routing.source={source}"]), out / "run")
    asked = PlacementOptions(balancers=["greedy", "anti-correlation", "eplb-distinct"], devices=[DEVICES])
    replayed = of_replay(replay_placements(read_loads(run.path), asked, out / "replay"))
    for phase in ("prefill", "decode"):
        results = replayed.at(phase=phase)
        parts = []
        for name in ("contiguous", *asked.balancers):
            values = [
                results.value(metric, point=f"balancer={name};devices={DEVICES}") for metric in ("max_load", "avg_max_load")
            ]
            parts.append(f"{name} {values[0]:.3f}/{values[1]:.3f}")
        floors = [results.value(f"{metric}_floor", point=f"devices={DEVICES}") for metric in ("max_load", "avg_max_load")]
        yield f"{recipe} {source} {phase}, max/avg max load: {', '.join(parts)}, floor {floors[0]:.3f}/{floors[1]:.3f}"


if __name__ == "__main__":
    main()
