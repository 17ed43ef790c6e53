"""Is static gating a fair baseline? The whole layer against the sum of what it cannot do without.

That is: its bare GEMMs (dispatch, two per expert, combine), and every mask and buffer written once and read once at the
bandwidth measured here (mask, combine weights, expert rows, hidden, outputs). Rounds are interleaved; the ratio of medians is
printed, with every part.

    python benchmarks/static_fairness.py [RECIPE ...] [--rounds N]
"""

import argparse
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from moeprof.instrument.allocator import keep_freed_memory
from moeprof.instrument.clock import wall_clock
from moeprof.instrument.step import Step
from moeprof.instrument.timing import PreparedRound, interleaved
from moeprof.models.initialise import initialise
from moeprof.moe.dispatch import static
from moeprof.moe.layer import MoELayer
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.recipe import Recipe

LIMIT = 1.3


def main() -> None:
    """Prints one block per recipe and phase."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", default=["lm-small", "mt-small", "lm-tiny", "mt-tiny"])
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    keep_freed_memory()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    with torch.inference_mode():
        for name in arguments.recipes:
            recipe = load_recipe(name)
            for phase, num_tokens in sizes(recipe).items():
                report(name, phase, recipe, num_tokens, arguments.rounds)


def sizes(recipe: Recipe) -> dict[str, int]:
    """S of a step in each phase."""
    whole = recipe.load.batch_size * recipe.load.sequence_length
    return {phase: recipe.load.batch_size if phase == "decode" else whole for phase in recipe.phases}


def report(name: str, phase: str, recipe: Recipe, num_tokens: int, rounds: int) -> None:
    """Times the layer and its parts in turns."""
    layer = MoELayer("1", recipe)
    initialise(layer, 0)
    x_TD, step = torch.randn(num_tokens, recipe.own_model.dim), Step(None)
    prepared = {part: PreparedRound(play) for part, play in contenders(layer, x_TD, step).items()}
    times = interleaved(prepared, rounds=rounds, warmup=3, clock=wall_clock)
    ms = {part: median(samples) / 1e6 for part, samples in times.items()}
    bandwidth = 2 * BANDWIDTH_BYTES / (ms.pop("copy") * 1e-3)
    moved = buffer_bytes(layer, x_TD, step)
    whole, gate, *_ = (ms.pop(part) for part in ("layer", "gate"))
    gemms, traffic = sum(ms.values()), 2 * moved / bandwidth * 1e3
    print(f"\n{name} {phase}: S = {num_tokens}")
    for part, value in ms.items():
        print(f"  GEMM {part:<12} {value:9.3f} ms")
    print(f"  mask and buffers {traffic:9.3f} ms  ({moved / 2**20:.1f} MiB written and read at {bandwidth / 2**30:.1f} GiB/s)")
    print(f"  floor            {gemms + traffic:9.3f} ms\n  whole layer      {whole:9.3f} ms  (gate {gate:.3f} ms of it)")
    ratio = whole / (gemms + traffic)
    print(f"  ratio            {ratio:9.3f}     {'fair' if ratio <= LIMIT else 'ABOVE'} (limit {LIMIT})")


BANDWIDTH_BYTES = 2**28


def contenders(layer: MoELayer, x_TD: Tensor, step: Step) -> dict[str, Callable[[], object]]:
    """The layer, the gate in it, each bare GEMM with its output in place, and a copy that measures bandwidth."""
    weights = layer.experts.weights
    dispatched = static.dispatch(x_TD, layer.router(x_TD, step), layer.capacity_fraction)
    mask_TR, rows_RD = dispatched.combine_weights_TR, dispatched.rows.rows_RD
    rows_PCD = rows_RD.view(weights.num_experts, -1, x_TD.shape[1])
    hidden_PCF, outputs_PCD = torch.bmm(rows_PCD, weights["w1"]), torch.empty_like(rows_PCD)
    dispatched_RD, y_TD = torch.empty_like(rows_RD), torch.empty_like(x_TD)
    source, target = torch.ones(BANDWIDTH_BYTES // 4), torch.empty(BANDWIDTH_BYTES // 4)
    return {
        "layer": lambda: layer(x_TD, step),
        "gate": lambda: layer.router(x_TD, step),
        "dispatch": lambda: torch.mm(mask_TR.t(), x_TD, out=dispatched_RD),
        "expert w1": lambda: torch.bmm(rows_PCD, weights["w1"], out=hidden_PCF),
        "expert w2": lambda: torch.bmm(hidden_PCF, weights["w2"], out=outputs_PCD),
        "combine": lambda: torch.mm(mask_TR, rows_RD, out=y_TD),
        "copy": lambda: target.copy_(source),
    }


def buffer_bytes(layer: MoELayer, x_TD: Tensor, step: Step) -> int:
    """Mask, combine weights, expert rows, hidden before and behind the activation, outputs."""
    dispatched = static.dispatch(x_TD, layer.router(x_TD, step), layer.capacity_fraction)
    rows, mask = dispatched.rows.rows_RD, dispatched.combine_weights_TR
    hidden = rows.shape[0] * layer.experts.weights["w1"].shape[2] * rows.element_size()
    return 2 * mask.nbytes + 2 * rows.nbytes + 2 * hidden


if __name__ == "__main__":
    main()
