"""Packed experts are what numpy makes of the published format, as near to the originals as the levels allow, and take fewer bytes."""

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from moeprof.records.errors import UsageError
from moeprof.records.ffn.registry import FFN_FORMS
from moeprof.records.precision import PRECISIONS, Precision
from moeprof.store import precision as module
from moeprof.store.entry import EntryLayout
from moeprof.store.precision import (
    SCALES,
    dequantized,
    pack,
    packed_layout,
    packing,
    quantization_error,
    relative_error,
    unpack,
)
from moeprof.store.resident import ExpertWeights

from .shelves import two_lines

INT8, INT4, INT2 = PRECISIONS.values()
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
FLOAT32 = 1 + 1e-4
"""Codes are sums of up to 255 in float32, which are 2^-17 apart there: 3e-5 of half a scale."""

Matrix64 = npt.NDArray[np.float64]


def one(matrix: Tensor) -> ExpertWeights:
    """An expert that is one matrix."""
    return ExpertWeights(w=matrix)


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normal numbers of the size of weights."""
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.02).to(dtype)


def unpacked(packed: ExpertWeights, precision: Precision, original: ExpertWeights) -> ExpertWeights:
    """The weights that come back, over numbers that must all be replaced."""
    into = original.map(lambda tensor: torch.full_like(tensor, math.nan))
    unpack(packed, precision, into)
    return into


def decoded(packed: ExpertWeights, precision: Precision, rows: int) -> Matrix64:
    """Weight by weight, as the format is described: within a group the first rows are in the lowest bits of its bytes."""
    codes, scales = packed["w"].numpy(), packed["w" + SCALES].double().numpy()
    per_byte, found, first_byte = 8 // precision.bits, np.empty((rows, codes.shape[1])), 0
    for group, first in enumerate(range(0, rows, precision.group)):
        length = min(precision.group, rows - first)
        num_bytes = math.ceil(length / per_byte)
        for row, column in np.ndindex(length, codes.shape[1]):
            byte = int(codes[first_byte + row % num_bytes, column])
            code = byte // 2 ** (precision.bits * (row // num_bytes)) % 2**precision.bits
            found[first + row, column] = (code - (2**precision.bits - 1) / 2) * scales[group, column]
        first_byte += num_bytes
    return found


def scales_by_row(packed: ExpertWeights, precision: Precision, rows: int) -> Matrix64:
    """The scale of every weight."""
    return np.repeat(packed["w" + SCALES].double().numpy(), precision.group, axis=0)[:rows]


matrices = st.tuples(st.integers(1, 70), st.integers(1, 9), st.integers(0, 2**20))
precisions = st.builds(
    lambda precision, group: replace(precision, group=4 * group), st.sampled_from([INT8, INT4, INT2]), st.integers(1, 20)
)


# The format


@given(shape=matrices, precision=precisions, dtype=st.sampled_from(DTYPES))
@example(shape=(64, 1, 0), precision=INT4, dtype=torch.bfloat16)
@example(shape=(65, 3, 0), precision=INT2, dtype=torch.float16)
@settings(max_examples=60)
def test_weights_come_back_as_the_format_says(shape: tuple[int, int, int], precision: Precision, dtype: torch.dtype) -> None:
    rows, columns, seed = shape
    original = one(drawn(rows, columns, seed=seed, dtype=dtype))
    packed = pack(original, precision)
    expected = torch.from_numpy(decoded(packed, precision, rows)).float().to(dtype)  # products of 8 and 11 bits are exact
    assert torch.equal(unpacked(packed, precision, original)["w"], expected)
    assert torch.equal(dequantized(packed["w"], packed["w" + SCALES], precision, rows).to(dtype), expected)


def test_four_weights_of_two_bits_by_hand() -> None:
    """The largest is 1.5 scales: codes 3, 0, 2 and 1 for 1.5, -1.5, 0.5 and -0.5, from the lowest bits on."""
    packed = pack(one(torch.tensor([[0.75], [-0.75], [0.25], [-0.25]])), Precision("int2", 2, 4))
    assert packed["w" + SCALES].tolist() == [[0.5]]
    assert packed["w"].tolist() == [[0b01_10_00_11]]


def test_five_rows_of_four_bits_by_hand() -> None:
    """A group of four rows in two bytes per column, and one of one row; 7.5 is the largest level."""
    matrix = torch.tensor([[7.5, -15.0], [-7.5, 1.0], [0.5, 3.0], [-0.5, 13.0], [2.0, 0.0]])
    packed = pack(one(matrix), Precision("int4", 4, 4))
    assert packed["w" + SCALES].tolist() == [[1.0, 2.0], [pytest.approx(2 / 7.5, rel=1e-3), 0.0]]
    assert packed["w"][:2].tolist() == [[15 + 16 * 8, 0 + 16 * 9], [0 + 16 * 7, 8 + 16 * 14]]
    assert packed["w"][2, 0] == 15


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [1, 50, 300])
def test_matrices_that_are_converted_in_pieces_are_whole(
    dtype: torch.dtype, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In pieces of four groups, of two, and of one that is larger than the scratch memory."""
    monkeypatch.setattr(module, "SCRATCH", 128 if columns == 1 else 3500)
    original = one(drawn(150, columns, dtype=dtype))
    packed = pack(original, INT4)
    expected = dequantized(packed["w"], packed["w" + SCALES], INT4, 150).to(dtype)
    assert torch.equal(unpacked(packed, INT4, original)["w"], expected)


# The error


@given(shape=matrices, precision=precisions)
@settings(max_examples=60)
def test_every_code_is_that_of_the_nearest_level(shape: tuple[int, int, int], precision: Precision) -> None:
    """Within half a scale, and beyond the largest level no farther than from that one."""
    rows, columns, seed = shape
    original = one(drawn(rows, columns, seed=seed))
    packed = pack(original, precision)
    scales = scales_by_row(packed, precision, rows)
    weights, found = original["w"].double().numpy(), decoded(packed, precision, rows)
    bound = np.maximum(scales / 2, np.abs(weights) - precision.top * scales)
    assert (np.abs(found - weights) <= bound * FLOAT32).all()


@given(shape=matrices, bits=st.sampled_from([8, 4, 2]), magnitude=st.integers(-30, 15))
@settings(max_examples=60)
def test_a_scale_that_reaches_the_largest_weight_errs_by_half_of_it(
    shape: tuple[int, int, int], bits: int, magnitude: int
) -> None:
    """Also where float16 is coarse: a scale is never less than the largest weight needs, and less than 1/1024 or 2^-24 more."""
    rows, columns, seed = shape
    precision = Precision("full range", bits, 16)
    original = one(drawn(rows, columns, seed=seed) * 2.0**magnitude)
    packed = pack(original, precision)
    scales = scales_by_row(packed, precision, rows)
    weights = original["w"].double().numpy()
    assert (np.abs(decoded(packed, precision, rows) - weights) <= scales / 2 * FLOAT32).all()
    for first in range(0, rows, 16):
        needed = np.abs(weights[first : first + 16]).max(0) / precision.top
        assert (scales[first] >= needed / FLOAT32).all()
        assert (scales[first] <= needed * (1 + 2**-10) * FLOAT32 + 2**-24).all()


@given(shape=matrices, precision=st.sampled_from([INT4, INT2]))
@settings(max_examples=30)
def test_of_all_candidates_the_scale_with_the_least_squared_error_is_used(
    shape: tuple[int, int, int], precision: Precision
) -> None:
    """Each candidate alone, rounded up to float16 by numpy: none has less error in any group and column."""
    rows, columns, seed = shape
    original = one(drawn(rows, columns, seed=seed))
    weights = original["w"].double().numpy()

    def errors(found: Matrix64) -> Matrix64:
        return np.add.reduceat((found - weights) ** 2, range(0, rows, precision.group), axis=0)

    best = errors(decoded(pack(original, precision), precision, rows))
    single = original["w"].numpy()
    largest = np.stack([np.abs(single[first : first + precision.group]).max(0) for first in range(0, rows, precision.group)])
    for fraction in precision.fractions:
        exact = largest / np.float32(precision.top) * np.float32(fraction)
        nearest = exact.astype(np.float16)
        rounded_up = np.where(nearest < exact, np.nextafter(nearest, np.float16(np.inf)), nearest).astype(np.float64)
        scales = np.repeat(rounded_up, precision.group, axis=0)[:rows]
        codes = np.clip(np.round(weights / scales + precision.top), 0, precision.largest_code)
        assert (best <= errors((codes - precision.top) * scales) * 1.001).all()


def test_errors_of_normal_weights_are_those_of_their_levels() -> None:
    """Relative: a code of 8 bits errs uniformly within half a scale; for 2 bits no 4 even levels reach less than 0.345 (Max 1960)."""
    original = one(drawn(1024, 16, seed=1))
    for precision, least, most in [(INT8, 0.005, 0.007), (INT4, 0.08, 0.10), (INT2, 0.32, 0.36)]:
        packed = pack(original, precision)
        weights, found = original["w"].double().numpy(), decoded(packed, precision, 1024)
        expected = np.linalg.norm(found - weights) / np.linalg.norm(weights)
        assert quantization_error(original, packed, precision) == pytest.approx(expected, rel=1e-5)
        assert least < expected < most


def test_the_error_of_an_expert_is_that_of_its_matrices_together() -> None:
    """Biases are kept as they are and do not count."""
    original = ExpertWeights(w1=drawn(40, 8, seed=1), b1=drawn(8, seed=2) * 1000, w2=drawn(8, 40, seed=3) * 5)
    packed = pack(original, INT4)
    back = unpacked(packed, INT4, original)
    assert torch.equal(back["b1"], original["b1"])
    whole, found = (torch.cat([weights[name].flatten().double() for name in ("w1", "w2")]) for weights in (original, back))
    expected = np.linalg.norm(found.numpy() - whole.numpy()) / np.linalg.norm(whole.numpy())
    assert quantization_error(original, packed, INT4) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("precision", [INT8, INT4, INT2])
def test_matrices_of_zeros_and_constants_come_back(precision: Precision) -> None:
    for value, tolerance in ((0.0, 0.0), (0.3, 2**-9), (-7.0, 2**-9)):
        original = one(torch.full((70, 5), value))
        packed = pack(original, precision)
        assert unpacked(packed, precision, original)["w"].numpy() == pytest.approx(original["w"].numpy(), rel=tolerance)
        assert quantization_error(original, packed, precision) <= tolerance


def test_the_error_of_nothing_is_nothing_and_of_something_instead_of_nothing_is_infinite() -> None:
    zeros, ones = torch.zeros(3), torch.ones(3)
    assert relative_error(zeros, zeros) == 0
    assert relative_error(ones, zeros) == math.inf
    assert relative_error(zeros, ones) == 1


def test_an_outlier_costs_its_own_group_and_column_only() -> None:
    plain, spoilt = drawn(128, 4), drawn(128, 4)
    spoilt[40, 2] = 5.0
    errors = [unpacked(pack(one(matrix), INT4), INT4, one(matrix))["w"] - matrix for matrix in (plain, spoilt)]
    rest = torch.ones(128, 4, dtype=torch.bool)
    rest[32:64, 2] = False
    assert torch.equal(errors[0][rest], errors[1][rest])
    beside = [row for row in range(32, 64) if row != 40]
    assert errors[1][beside, 2].abs().max() <= 5 / 7.5 / 2 * (1 + 2**-10)
    assert abs(errors[1][40, 2]) <= (1 - min(INT4.fractions)) * 5


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e7])
@pytest.mark.parametrize("precision", [INT8, INT4, INT2])
def test_weights_that_scales_cannot_express_are_refused(value: float, precision: Precision) -> None:
    original = ExpertWeights(b=torch.zeros(3), w=drawn(40, 3))
    original["w"][35, 1] = value * precision.top
    with pytest.raises(UsageError) as caught:
        pack(original, precision)
    assert two_lines(caught.value)
    assert caught.value.what == f"{precision.name}: w has weights that are not finite, or too large for scales of float16"


def test_the_largest_number_of_float16_is_refused_if_its_level_would_be_infinite() -> None:
    """65,504 / 127.5 is 513.8, which rounds up to 514: 65,535 is infinity in float16, and a number in float32."""
    largest = one(torch.full((4, 1), 65504.0))
    assert unpacked(pack(largest, INT8), INT8, largest)["w"].tolist() == [[65535.0]] * 4
    with pytest.raises(UsageError, match="too large"):
        pack(one(largest["w"].half()), INT8)


def test_a_refusal_names_the_expert() -> None:
    layout = EntryLayout({"w": (64, 64)}, torch.float32)
    fill = packing(lambda layer, expert, into: into["w"].fill_(math.nan if expert == 3 else 1.0), {"1": layout}, INT4)
    small = packed_layout(layout, INT4)
    fill("1", 2, small.entry(small.slab(1, "cpu")[0]))
    with pytest.raises(UsageError, match="expert 3 of layer 1: int4: w has weights that are not finite"):
        fill("1", 3, small.entry(small.slab(1, "cpu")[0]))


# Layouts


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("form", list(FFN_FORMS))
@pytest.mark.parametrize("precision", [INT8, INT4, INT2])
def test_experts_of_every_form_are_packed_into_the_layout(
    form: str, bias: bool, dtype: torch.dtype, precision: Precision
) -> None:
    layout = EntryLayout(FFN_FORMS[form].shapes(68, 130, bias=bias), dtype)
    original = ExpertWeights((name, drawn(*shape, dtype=dtype)) for name, shape in layout.tensors.items())
    packed, small = pack(original, precision), packed_layout(layout, precision)
    assert EntryLayout.of(packed.map(lambda tensor: tensor[None])) == small
    assert precision.packed_bytes(list(layout.tensors.values()), dtype.itemsize) == sum(map(small.bytes_of, small.tensors))

    def fill(_: str, __: int, views: ExpertWeights) -> None:
        for name, view in views.items():
            view.copy_(original[name])

    entry, back = (each.entry(each.slab(1, "cpu")[0]) for each in (small, layout))
    packing(fill, {"1": layout}, precision)("1", 0, entry)
    assert all(torch.equal(entry[name], packed[name]) for name in packed)
    unpack(entry, precision, back)
    for name, tensor in original.items():
        error = relative_error(back[name].double(), tensor.double())
        assert error == 0 if tensor.dim() == 1 else 0 < error < 0.4


def test_the_bytes_of_a_packed_expert_by_hand() -> None:
    """(70, 6): 6 x (32 / 2 + 32 / 2 + 6 / 2) bytes of codes and 6 x 3 scales; biases and vectors keep their dtype."""
    layout = EntryLayout({"b": (700,), "w": (70, 2, 3), "v": (500, 500)}, torch.bfloat16, {"b": torch.float32})
    packed = packed_layout(layout, INT4)
    assert packed.tensors == {"b": (700,), "w": (35, 6), "w.scales": (3, 6), "v": (250, 500), "v.scales": (16, 500)}
    assert [str(packed.dtype_of(name)) for name in packed.tensors] == [
        f"torch.{dtype}" for dtype in ("float32", "uint8", "float16", "uint8", "float16")
    ]
    assert packed.expert_bytes == 2800 + 210 + 36 + 125_000 + 16_000
    assert packed.entry_bytes == 36 * 4096


@pytest.mark.parametrize(
    ("shapes", "what"),
    [
        ({"w": (16, 16)}, "int4: an expert would take 4 KiB instead of 4 KiB"),
        ({"b": (5000,)}, "int4: an expert would take 12 KiB instead of 12 KiB"),
        ({"w": (1, 4096)}, "int4: an expert would take 12 KiB instead of 8 KiB"),
    ],
)
def test_an_expert_that_would_not_take_fewer_bytes_is_refused(shapes: dict[str, tuple[int, ...]], what: str) -> None:
    """Less than a page, without a matrix, and with a scale for every weight."""
    with pytest.raises(UsageError) as caught:
        packed_layout(EntryLayout(shapes, torch.float16), INT4)
    assert (caught.value.what, two_lines(caught.value)) == (what, True)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float8_e4m3fn])
def test_experts_in_low_precision_are_not_packed_again(dtype: torch.dtype) -> None:
    with pytest.raises(UsageError, match="int4: w consists of") as caught:
        packed_layout(EntryLayout({"w": (512, 512)}, torch.bfloat16, {"w": dtype}), INT4)
    assert two_lines(caught.value)


def test_an_expert_without_memory_is_unpacked_as_one_with_memory() -> None:
    layout = EntryLayout({"w": (64, 40), "b": (40,)}, torch.bfloat16)
    small = packed_layout(layout, INT2)
    with FakeTensorMode():
        whole, packed = (each.entry(each.slab(1, "cpu")[0]) for each in (layout, small))
        unpack(packed, INT2, whole)
    assert whole["w"].shape == (64, 40)
