"""Low precision on one core of a CPU: how far are packed experts from the originals, and what does dequantizing them cost?

The errors are those of all experts of a recipe, weights and outputs (of normal rows). The costs are those of experts of two matrices
with random weights: an expert is read from its file, dequantized into memory that is reused, and computed, round by round in turns with
the original one and with torch's products of packed weights, which need a layout of their own (int8 with one scale per column).
Every round takes the next expert. Computing is timed by the thread's CPU time, reading by the clock.

    python benchmarks/precision.py [--recipe NAME] [--shapes 128x192 ...] [--dtypes float32 ...] [--rows 1 8 64] [--rounds N]
"""

import argparse
import time
from collections.abc import Callable, Mapping
from functools import partial
from statistics import mean, median

import torch
from torch import Tensor

from moeprof.instrument.allocator import keep_freed_memory
from moeprof.instrument.clock import Clock, wall_clock
from moeprof.instrument.timing import PreparedRound, interleaved
from moeprof.models.buffers import contents_of, filling
from moeprof.moe.experts import FFN, make_ffn
from moeprof.moe.reference import run_expert
from moeprof.records.ffn.form import Matrix
from moeprof.records.ffn.mlp import MLP
from moeprof.records.ffn.registry import FFN_FORMS
from moeprof.records.precision import PRECISIONS, Precision
from moeprof.records.recipe.files import load_recipe
from moeprof.store.backing import Contents, LayerContents, backing
from moeprof.store.entry import EntryLayout
from moeprof.store.precision import (
    SCALES,
    dequantized,
    pack,
    packed_contents,
    packing,
    quantization_error,
    relative_error,
    unpack,
)
from moeprof.store.resident import ExpertWeights

GELU = make_ffn(MLP, "gelu")
ROWS_FOR_ERRORS = 256
CYCLE_BYTES = 2**26
"""Experts of this size together take turns, so that none is in the cache of a core when its round begins."""


def main() -> None:
    """Prints a line per precision, and then a block per shape and dtype."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="lm-tiny")
    parser.add_argument("--shapes", nargs="*", default=["128x192", "256x1024", "1024x4096"], metavar="DxF")
    parser.add_argument("--dtypes", nargs="*", default=["float32", "bfloat16", "float16"])
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=60)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    torch.manual_seed(0)
    with torch.inference_mode():
        errors(arguments.recipe)
        for shape in arguments.shapes:
            dim, ffn_dim = map(int, shape.split("x"))
            for dtype in arguments.dtypes:
                costs(EntryLayout(MLP.shapes(dim, ffn_dim, bias=True), getattr(torch, dtype)), arguments.rows, arguments.rounds)


def errors(name: str) -> None:
    """Relative Frobenius errors of weights and of outputs over all experts of a recipe."""
    recipe = load_recipe(name)
    contents = contents_of(recipe, recipe.model.moe_layers_of("all"))
    ffn = make_ffn(FFN_FORMS[recipe.own_model.ffn], recipe.own_model.activation)
    rows_ND = torch.randn(ROWS_FOR_ERRORS, recipe.model.dim, dtype=getattr(torch, recipe.model.dtype))
    originals = []
    with filling(recipe) as fill:
        for layer, layout in contents.layouts.items():
            for expert in range(recipe.model.experts):
                originals.append(empty(layout))
                fill(layer, expert, originals[-1])
    print(f"{name}: {len(originals)} experts")
    for precision in PRECISIONS.values():
        pairs = [(original, pack(original, precision)) for original in originals]
        of_weights = [quantization_error(original, packed, precision) for original, packed in pairs]
        of_outputs = [output_error(original, packed, precision, rows_ND, ffn) for original, packed in pairs]
        print(
            f"  {precision.name} ({precision.bits_per_weight:g} bits per weight): relative error of weights {mean(of_weights):.2%}, "
            f"worst {max(of_weights):.2%}; of outputs {mean(of_outputs):.2%}, worst {max(of_outputs):.2%}"
        )


def output_error(original: ExpertWeights, packed: ExpertWeights, precision: Precision, rows_ND: Tensor, ffn: FFN) -> float:
    """Relative Frobenius error of the outputs of these rows."""
    back = original.map(torch.empty_like)
    unpack(packed, precision, back)
    return relative_error(run_expert(rows_ND, back, ffn), run_expert(rows_ND, original, ffn))


def empty(layout: EntryLayout) -> ExpertWeights:
    """Memory for one expert, as in a cache slot."""
    return layout.entry(layout.slab(1, "cpu")[0])


class Experts:
    """The same experts in every precision; `number` is the one whose turn it is."""

    def __init__(self, layout: EntryLayout) -> None:
        self.layout, self.number = layout, 0
        self.originals = []
        for _ in range(max(CYCLE_BYTES // layout.entry_bytes, 2)):
            self.originals.append(empty(layout))
            for view in self.originals[-1].values():
                view.copy_(torch.randn(view.shape) * 0.02)
        self.packed = {
            name: [pack(original, precision) for original in self.originals] for name, precision in PRECISIONS.items()
        }
        self.scratch = empty(layout)

    def next(self) -> None:
        """It is the next expert's turn."""
        self.number = (self.number + 1) % len(self.originals)

    def unpack(self, precision: Precision) -> ExpertWeights:
        """The expert whose turn it is, dequantized."""
        unpack(self.packed[precision.name][self.number], precision, self.scratch)
        return self.scratch


def costs(layout: EntryLayout, rows: list[int], rounds: int) -> None:
    """The block of one shape and dtype."""
    experts = Experts(layout)
    shape = "x".join(map(str, layout.tensors["w1"]))
    print(f"\n{shape} {layout.dtype}: {layout.expert_bytes:,} bytes")
    for num_rows in rows:
        computing(experts, torch.randn(num_rows, layout.tensors["w1"][0]).to(layout.dtype), rounds)
    dequantizing(experts, rounds)
    reading(experts, rounds)


def computing(experts: Experts, rows_ND: Tensor, rounds: int) -> None:
    """One expert with these rows: original, dequantized before the product, and by torch's product of packed weights."""
    plays: dict[str, Callable[[], object]] = {"original": lambda: run_expert(rows_ND, experts.originals[experts.number], GELU)}
    before = {name: partial(unpack_and_run, experts, precision, rows_ND) for name, precision in PRECISIONS.items()}
    within = {"int8": by_torch(experts, rows_ND, int8_matrix, int8_product)}
    within["int4"] = by_torch(experts, rows_ND, int4_matrix, int4_product)
    print(f"  {len(rows_ND):>2} rows, dequantized before: {ratios(plays | before, rounds, experts, time.thread_time_ns)}")
    print(f"  {len(rows_ND):>2} rows, in torch's product: {ratios(plays | within, rounds, experts, time.thread_time_ns)}")


def unpack_and_run(experts: Experts, precision: Precision, rows_ND: Tensor) -> Tensor:
    """Outputs of the expert whose turn it is, dequantized."""
    return run_expert(rows_ND, experts.unpack(precision), GELU)


def by_torch(
    experts: Experts,
    rows_ND: Tensor,
    matrix_of: Callable[[Tensor], tuple[Tensor, Tensor]],
    product_of: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Callable[[], object]:
    """A round with a product of torch for packed weights."""
    prepared = [{matrix.name: matrix_of(original[matrix.name]) for matrix in MLP.matrices} for original in experts.originals]

    def play() -> Tensor:
        matrices, original = prepared[experts.number], experts.originals[experts.number]

        def product(rows_NM: Tensor, matrix: Matrix) -> Tensor:
            return product_of(rows_NM, *matrices[matrix.name]) + original[matrix.bias]

        return GELU(rows_ND, product)

    return play


def int8_matrix(matrix_RC: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (C, R) and one scale per column."""
    scales_C = matrix_RC.abs().amax(0).float() / 127
    return (matrix_RC.float() / scales_C).round().to(torch.int8).T.contiguous(), scales_C.to(matrix_RC.dtype)


def int8_product(rows_NR: Tensor, codes_CR: Tensor, scales_C: Tensor) -> Tensor:
    return torch._weight_int8pack_mm(rows_NR, codes_CR, scales_C)


def int4_matrix(matrix_RC: Tensor) -> tuple[Tensor, Tensor]:
    """Codes in the order of torch, with a scale and a zero in the dtype of the rows for every group of 32 rows and column."""
    groups_knC = matrix_RC.float().view(-1, 32, matrix_RC.shape[1])
    scales_k1C = groups_knC.abs().amax(1, keepdim=True) / 7
    codes_RC = (groups_knC / scales_k1C).round().add(8).int().flatten(0, 1)
    scales_kC2 = torch.stack([scales_k1C[:, 0], torch.zeros_like(scales_k1C[:, 0])], -1)
    return torch._convert_weight_to_int4pack_for_cpu(codes_RC.T.contiguous(), 1), scales_kC2.to(matrix_RC.dtype)


def int4_product(rows_NR: Tensor, codes: Tensor, scales_kC2: Tensor) -> Tensor:
    return torch._weight_int4pack_mm_for_cpu(rows_NR, codes, 32, scales_kC2)


def dequantizing(experts: Experts, rounds: int) -> None:
    """Against a copy of the original, by the compiled loop and by operations of torch."""

    def copy() -> None:
        for name, view in experts.scratch.items():
            view.copy_(experts.originals[experts.number][name])

    plays: dict[str, Callable[[], object]] = {"copy": copy}
    for precision in PRECISIONS.values():
        plays[f"{precision.name} loop"] = partial(experts.unpack, precision)
        plays[f"{precision.name} torch"] = partial(unpack_by_torch, experts, precision)
    print(f"  dequantizing: {ratios(plays, rounds, experts, time.thread_time_ns)}")


def unpack_by_torch(experts: Experts, precision: Precision) -> None:
    """As on a GPU."""
    packed = experts.packed[precision.name][experts.number]
    for name, view in experts.scratch.items():
        if name + SCALES in packed:
            view.copy_(dequantized(packed[name], packed[name + SCALES], precision, len(view)))


def reading(experts: Experts, rounds: int) -> None:
    """An expert from its file past the page cache: the original, and in low precision with and without dequantizing it."""

    def fill(_: str, expert: int, into: ExpertWeights) -> None:
        for name, view in into.items():
            view.copy_(experts.originals[expert][name])

    layers = {"0": LayerContents.of(experts.layout, len(experts.originals))}
    contents = Contents(weights_hash="benchmarks/precision.py", layers=layers)
    files = {"original": backing(contents, fill)}
    for name, precision in PRECISIONS.items():
        files[name] = backing(packed_contents(contents, precision), packing(fill, contents.layouts, precision))
    entries = {name: file.contents.layouts["0"].slab(1, "cpu")[0] for name, file in files.items()}
    views = {name: files[name].contents.layouts["0"].entry(entry_B) for name, entry_B in entries.items()}

    def read(name: str) -> None:
        files[name].read("0", experts.number, entries[name])

    def read_and_unpack(name: str) -> None:
        read(name)
        unpack(views[name], PRECISIONS[name], experts.scratch)

    plays: dict[str, Callable[[], object]] = {name: partial(read, name) for name in files}
    plays |= {f"{name} and dequantize": partial(read_and_unpack, name) for name in PRECISIONS}
    print(f"  one load: {ratios(plays, rounds, experts, wall_clock)}")
    sizes = [f"{name} {len(entry_B) / len(entries['original']):.3f}" for name, entry_B in entries.items()]
    print(f"  bytes of an entry: {', '.join(sizes)}")
    for file in files.values():
        file.close()
        file.path.unlink()


def ratios(plays: Mapping[str, Callable[[], object]], rounds: int, experts: Experts, clock: Clock) -> str:
    """The median time of the first, and the median ratio of each other one to it over rounds in turns."""
    prepared = {name: PreparedRound(play) for name, play in plays.items()}
    samples = interleaved(prepared, rounds=rounds, warmup=3, clock=clock, between=experts.next)
    first, *others = samples
    text = [f"{first} {median(samples[first]) / 1e3:.1f} us"]
    for name in others:
        turns = [time_ns / first_ns for time_ns, first_ns in zip(samples[name], samples[first], strict=True)]
        text.append(f"{name} {median(turns):.2f}")
    return ", ".join(text)


if __name__ == "__main__":
    main()
