"""Experts in low precision: matrices as packed codes with a scale per group (records/precision.py), dequantized before they are used.

On a CPU a compiled loop writes the weights in one pass, several times as fast as the same in torch. Torch's products of packed weights
(`_weight_int8pack_mm`, `_weight_int4pack_mm_for_cpu`) are faster for a few rows of bfloat16 only; in float32 and float16
they take up to 100 times as long as the product of the original weights (`python benchmarks/precision.py`, docs/offloading.md).

R rows and C columns of a matrix, G groups of n rows, P rows of bytes (p of one group), F candidates for a scale.
"""

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import pad

from moeprof.records.errors import UsageError
from moeprof.records.precision import Precision
from moeprof.records.units import format_bytes
from moeprof.store.backing import Contents, LayerContents
from moeprof.store.entry import EntryLayout
from moeprof.store.resident import ExpertWeights
from moeprof.store.tier import Fill

SCALES = ".scales"
"""Ends the name of a matrix's scales; its codes have the name of the matrix."""

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
SCRATCH = 2**18
"""Weights that are dequantized at once in float32 if the model has another dtype: 1 MiB, which fits into the cache of a core."""


def packed_layout(layout: EntryLayout, precision: Precision) -> EntryLayout:
    """The layout of the same expert in low precision; UsageError if it would not take fewer bytes."""
    shapes: dict[str, tuple[int, ...]] = {}
    others = {}
    for name, shape in layout.tensors.items():
        if len(shape) < 2:
            shapes[name], others[name] = shape, layout.dtype_of(name)
            continue
        if layout.dtype_of(name) not in FLOATS:
            what = f"{precision.name}: {name} consists of {layout.dtype_of(name)}, which is not packed"
            raise UsageError(what, "Use a model whose experts are float32, bfloat16 or float16.")
        columns = prod(shape[1:])
        shapes[name] = precision.packed_rows(shape[0]), columns
        shapes[name + SCALES], others[name + SCALES] = (precision.num_groups(shape[0]), columns), torch.float16
    packed = EntryLayout(shapes, torch.uint8, others)
    if packed.entry_bytes >= layout.entry_bytes:
        sizes = f"{format_bytes(packed.entry_bytes)} instead of {format_bytes(layout.entry_bytes)}"
        raise UsageError(
            f"{precision.name}: an expert would take {sizes}", "Use a model with larger experts, or its own precision."
        )
    return packed


def packed_contents(contents: Contents, precision: Precision) -> Contents:
    """The header of a file of the same experts in low precision."""
    layers = {
        name: LayerContents.of(packed_layout(layer.layout, precision), layer.num_experts)
        for name, layer in contents.layers.items()
    }
    return Contents(weights_hash=contents.weights_hash, layers=layers, precision=str(precision))


def packing(fill: Fill, layouts: Mapping[str, EntryLayout], precision: Precision) -> Fill:
    """Writes packed experts, from a function that writes the originals, whose layouts these are."""

    def fill_packed(layer: str, expert: int, into: ExpertWeights) -> None:
        layout = layouts[layer]
        original = layout.entry(layout.slab(1, "cpu")[0])
        fill(layer, expert, original)
        try:
            packed = pack(original, precision)
        except UsageError as error:
            raise UsageError(f"expert {expert} of layer {layer}: {error.what}", error.remedy) from error
        for name, view in into.items():
            view.copy_(packed[name])

    return fill_packed


def pack(original: ExpertWeights, precision: Precision) -> ExpertWeights:
    """One expert in low precision, in the order of `packed_layout`; UsageError for weights that scales of fp16 cannot express."""
    packed = ExpertWeights()
    for name, tensor in original.map(Tensor.detach).items():
        if tensor.dim() < 2:
            packed[name] = tensor.clone()
            continue
        groups = [quantized(group_nC, precision) for group_nC in torch.split(tensor.flatten(1).float(), precision.group)]
        packed[name] = torch.cat([codes_pC for codes_pC, _ in groups])
        packed[name + SCALES] = torch.stack([scales_C for _, scales_C in groups])
        largest_GC = packed[name + SCALES].float() * precision.top
        if not bool((largest_GC <= torch.finfo(tensor.dtype).max).all()):  # also if it is not a number
            what = f"{precision.name}: {name} has weights that are not finite, or too large for scales of float16"
            raise UsageError(what, "Check the checkpoint; if it is right, keep the precision of the model.")
    return packed


def quantized(group_nC: Tensor, precision: Precision) -> tuple[Tensor, Tensor]:
    """Packed codes (p, C) and scales (C,), float16, of one group."""
    scales_C = best_scales(group_nC, precision)
    codes_nC = codes_of(group_nC, scales_C, precision).to(torch.uint8)
    per_byte = precision.codes_per_byte
    parts_kpC = pad(codes_nC, (0, 0, 0, -len(codes_nC) % per_byte)).view(per_byte, -1, codes_nC.shape[1])
    shifted = [part_pC << place * precision.bits for place, part_pC in enumerate(parts_kpC)]
    return torch.stack(shifted).sum(0, dtype=torch.uint8), scales_C.half()


def best_scales(group_nC: Tensor, precision: Precision) -> Tensor:
    """The candidate with the least squared error for every column of a group, (C,), float32."""
    full_C = group_nC.abs().amax(0) / precision.top
    candidates_FC = torch.stack([rounded_up(full_C * fraction) for fraction in precision.fractions])
    errors = [levels_of(codes_of(group_nC, scales_C, precision), scales_C, precision) - group_nC for scales_C in candidates_FC]
    best_1C = torch.stack([error_nC.square().sum(0) for error_nC in errors]).argmin(0, keepdim=True)
    return candidates_FC.gather(0, best_1C)[0]


def rounded_up(scales: Tensor) -> Tensor:
    """The next number of float16, as float32, so that the largest weight is within half a scale of a level."""
    nearest = scales.half()
    return (nearest.view(torch.int16) + (nearest.float() < scales)).view(torch.float16).float()


def codes_of(weights_nC: Tensor, scales_C: Tensor, precision: Precision) -> Tensor:
    """The code of the level next to every weight, float32; any code does if the scale is 0."""
    divisors_C = torch.where(scales_C > 0, scales_C, 1.0)
    return (weights_nC / divisors_C).add_(precision.top).round_().clamp_(0, precision.largest_code)


def levels_of(codes_nC: Tensor, scales: Tensor, precision: Precision) -> Tensor:
    """The weights that codes stand for, float32."""
    return (codes_nC - precision.top) * scales


def unpack(packed: ExpertWeights, precision: Precision, into: ExpertWeights) -> None:
    """Writes the weights of a packed expert into views with the shapes and the dtypes of the original."""
    for name, view in into.items():
        if name + SCALES in packed:
            dequantize_into(packed[name], packed[name + SCALES], precision, view.view(len(view), -1))
        else:
            view.copy_(packed[name])


def dequantize_into(codes_PC: Tensor, scales_GC: Tensor, precision: Precision, into_RC: Tensor) -> None:
    """Writes one matrix; on a CPU by the loop, in pieces if the weights have to be converted from float32."""
    if into_RC.device.type != "cpu" or type(into_RC) is not Tensor:  # fake tensors have no memory for the loop
        into_RC.copy_(dequantized(codes_PC, scales_GC, precision, len(into_RC)))
    elif into_RC.dtype == torch.float32:
        run_loop(codes_PC, scales_GC, precision, into_RC)
    else:
        rows, columns = into_RC.shape
        step = max(SCRATCH // (precision.group * columns), 1) * precision.group
        scratch_SC = torch.empty(min(step, rows), columns)
        for first in range(0, rows, step):
            last = min(first + step, rows)
            codes = codes_PC[precision.packed_rows(first) : precision.packed_rows(last)]
            scales = scales_GC[precision.num_groups(first) : precision.num_groups(last)]
            run_loop(codes, scales, precision, scratch_SC[: last - first])
            into_RC[first:last].copy_(scratch_SC[: last - first])


def run_loop(codes_PC: Tensor, scales_GC: Tensor, precision: Precision, into_RC: Tensor) -> None:
    """Writes float32 weights on a CPU."""
    from moeprof.store.dequantize import dequantize

    dequantize(codes_PC.numpy(), scales_GC.float().numpy(), into_RC.numpy(), precision.bits, precision.group)


def dequantized(codes_PC: Tensor, scales_GC: Tensor, precision: Precision, rows: int) -> Tensor:
    """One matrix (R, C), float32, on any device: the same bits as from the loop."""
    row_R = torch.arange(rows, device=codes_PC.device)
    group_R = row_R // precision.group
    first_R = group_R * precision.group
    packed_R = ((rows - first_R).clamp(max=precision.group) + precision.codes_per_byte - 1) // precision.codes_per_byte
    place_R = (row_R - first_R) // packed_R
    bytes_RC = codes_PC[group_R * precision.packed_rows(precision.group) + (row_R - first_R) % packed_R]
    codes_RC = (bytes_RC >> (place_R * precision.bits).to(torch.uint8)[:, None]) & precision.largest_code
    return levels_of(codes_RC, scales_GC[group_R].float(), precision)


def quantization_error(original: ExpertWeights, packed: ExpertWeights, precision: Precision) -> float:
    """Relative Frobenius error of all matrices of an expert together; 0 if they are 0."""
    found = original.map(torch.empty_like)
    unpack(packed, precision, found)
    matrices = [name for name in original if name + SCALES in packed]
    whole, those = (torch.cat([weights[name].flatten().double() for name in matrices]) for weights in (original, found))
    return relative_error(those, whole)


def relative_error(found: Tensor, expected: Tensor) -> float:
    """The norm of the difference by that of what is expected; 0 if both are the same."""
    difference = torch.linalg.vector_norm(found - expected)
    return float(difference / torch.linalg.vector_norm(expected)) if difference else 0.0
