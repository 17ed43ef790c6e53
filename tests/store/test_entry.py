"""An entry holds the weights of one expert, begins at a page and is a whole number of pages long."""

import resource
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from moeprof.records.errors import MoeprofError
from moeprof.records.ffn.mlp import MLP
from moeprof.store.entry import EntryLayout

from .shelves import CHILDREN, two_lines

DTYPES = [torch.float16, torch.bfloat16, torch.float32]


def layout_of(dim: int, ffn_dim: int, dtype: torch.dtype) -> EntryLayout:
    """Of experts with two matrices and biases."""
    return EntryLayout(MLP.shapes(dim, ffn_dim, bias=True), dtype)


DIMS = [(1, 1), (3, 5), (8, 12), (64, 96), (96, 40)]


@pytest.mark.parametrize(("dim", "ffn_dim"), DIMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_entry_is_its_weights_rounded_up_to_whole_pages(dim: int, ffn_dim: int, dtype: torch.dtype) -> None:
    layout = layout_of(dim, ffn_dim, dtype)
    numbers = 2 * dim * ffn_dim + dim + ffn_dim
    assert layout.expert_bytes == numbers * (4 if dtype == torch.float32 else 2)
    assert layout.entry_bytes % 4096 == 0
    assert 0 <= layout.entry_bytes - layout.expert_bytes < 4096


@pytest.mark.parametrize(
    ("dim", "ffn_dim", "parameters", "mebibytes", "entry_bytes"),
    [(1024, 4096, 8_393_728, 16.01, 4099 * 4096), (2048, 8192, 33_564_672, 64.02, 16389 * 4096)],
)
def test_the_papers_experts_have_the_papers_sizes(
    dim: int, ffn_dim: int, parameters: int, mebibytes: float, entry_bytes: int
) -> None:
    """LM and MT, in fp16: 16.01 MiB are 4,098.5 pages, and 64.02 MiB are 16,389."""
    layout = layout_of(dim, ffn_dim, torch.float16)
    assert layout.expert_bytes == 2 * parameters
    assert round(layout.expert_bytes / 2**20, 2) == mebibytes
    assert layout.entry_bytes == entry_bytes


@pytest.mark.parametrize(("dim", "ffn_dim"), DIMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_entry_begins_at_a_page_and_its_numbers_lie_one_behind_the_other(
    dim: int, ffn_dim: int, dtype: torch.dtype
) -> None:
    layout = layout_of(dim, ffn_dim, dtype)
    slab_SB = layout.slab(3, "cpu")
    assert slab_SB.data_ptr() % 4096 == 0
    assert slab_SB.shape == (3, layout.entry_bytes)
    assert not slab_SB.any()
    whole, size = layout.weights(slab_SB), dtype.itemsize
    matrix, stride = dim * ffn_dim, layout.entry_bytes // size
    begins = [(tensor.data_ptr() - slab_SB.data_ptr()) // size for tensor in whole.values()]
    assert begins == [0, 2 * matrix, matrix, 2 * matrix + ffn_dim]  # w1, b1, w2, b2
    assert [tuple(tensor.shape) for tensor in whole.values()] == [(3, dim, ffn_dim), (3, ffn_dim), (3, ffn_dim, dim), (3, dim)]
    assert [tensor.stride() for tensor in whole.values()] == [(stride, ffn_dim, 1), (stride, 1), (stride, dim, 1), (stride, 1)]
    assert {tensor.dtype for tensor in whole.values()} == {dtype}


@pytest.mark.parametrize(("dtype", "numpys"), [(torch.float16, np.float16), (torch.float32, np.float32)])
def test_views_show_the_numbers_that_lie_in_the_slab(dtype: torch.dtype, numpys: type) -> None:
    """Written byte by byte with numpy; half precision is exact up to 2,048."""
    layout = layout_of(4, 6, dtype)
    numbers = np.arange(2 * 58).reshape(2, 58)
    slab_SB = layout.slab(2, "cpu")
    for entry, row in zip(slab_SB, numbers, strict=True):
        written = np.frombuffer(row.astype(numpys).tobytes(), np.uint8)
        entry[: len(written)] = torch.from_numpy(written.copy())
    w1_SDF, b1_SF, w2_SFD, b2_SD = (tensor.float().numpy() for tensor in layout.weights(slab_SB).values())
    assert np.array_equal(w1_SDF, numbers[:, :24].reshape(2, 4, 6))
    assert np.array_equal(w2_SFD, numbers[:, 24:48].reshape(2, 6, 4))
    assert np.array_equal(b1_SF, numbers[:, 48:54])
    assert np.array_equal(b2_SD, numbers[:, 54:])


def test_what_is_written_through_a_view_lies_in_the_slab() -> None:
    layout = layout_of(4, 6, torch.bfloat16)
    slab_SB = layout.slab(2, "cpu")
    layout.weights(slab_SB)["w2"][1, 0, 0] = 1.0  # bfloat16: 0x3f80
    assert slab_SB.nonzero().tolist() == [[1, 48], [1, 49]]
    assert slab_SB[1, 48:50].tolist() == [0x80, 0x3F]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("dim", "ffn_dim"), [(8, 16), (24, 40), (1024, 4096), (8, 4104)])
def test_matrices_of_all_slots_lie_where_kernels_want_them(dim: int, ffn_dim: int, dtype: torch.dtype) -> None:
    """At whole 16 bytes, and so do their rows, wherever widths are whole 16 bytes, which kernels ask for."""
    layout = layout_of(dim, ffn_dim, dtype)
    whole = layout.weights(layout.slab(3, "cpu"))
    for matrices in (whole["w1"], whole["w2"]):
        assert [matrix.data_ptr() % 16 for matrix in matrices] == [0, 0, 0]
        assert [stride * dtype.itemsize % 16 for stride in matrices.stride()[:2]] == [0, 0]


def test_slots_count_as_memory_of_the_process() -> None:
    """Shared pages would not: RLIMIT_DATA, which stands for a machine with less memory, would not hold them."""

    def data_bytes() -> int:
        return int(Path("/proc/self/status").read_text().split("VmData:")[1].split()[0]) * 1024

    before = data_bytes()
    slab_SB = layout_of(1024, 4096, torch.float16).slab(16, "cpu")  # never touched: no memory behind it
    assert data_bytes() - before >= slab_SB.nbytes == 16 * 4099 * 4096


def too_large(sender: Connection) -> None:
    """A slab beyond what the process may have."""
    resource.setrlimit(resource.RLIMIT_DATA, (2**30, 2**30))
    try:
        layout_of(2048, 8192, torch.float16).slab(16, "cpu")
    except MoeprofError as error:
        sender.send((two_lines(error), str(error)))


def test_slots_that_memory_does_not_hold_are_an_error_that_says_how_large_they_are() -> None:
    receiver, sender = CHILDREN.Pipe(duplex=False)
    child = CHILDREN.Process(target=too_large, args=(sender,))
    child.start()
    sender.close()
    well, message = receiver.recv()
    child.join(10)
    assert well
    assert message.startswith("16 slots of 64.0 MiB: cannot allocate memory\n")


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_slab_on_the_meta_device_has_no_memory(dtype: torch.dtype) -> None:
    layout = layout_of(2048, 8192, dtype)
    slab_SB = layout.slab(10**6, "meta")
    assert slab_SB.is_meta
    assert slab_SB.nbytes == 10**6 * layout.entry_bytes
    assert [tensor.shape[0] for tensor in layout.weights(slab_SB).values()] == [10**6] * 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_slab_of_fake_tensors_has_no_memory(dtype: torch.dtype) -> None:
    """67 TB of experts at most, which no mmap would give."""
    layout = layout_of(2048, 8192, dtype)
    with FakeTensorMode():
        slab_SB = layout.slab(10**6, "cpu")
        whole = layout.weights(slab_SB)
    assert all(isinstance(tensor, FakeTensor) for tensor in (slab_SB, *whole.values()))
    assert slab_SB.device.type == "cpu"
    assert whole["w1"].shape == (10**6, 2048, 8192)
    assert whole["w1"].dtype == dtype


def test_tensors_of_several_dtypes_are_aligned_to_their_elements() -> None:
    """Offsets by hand: 2 x 3 numbers of 4 bytes, then 5 of 2 bytes, then 3 x 3 and 3 of one byte: 46 bytes in all."""
    dtypes = {"scale": torch.float32, "norm": torch.bfloat16}
    layout = EntryLayout({"bias": (3,), "codes": (3, 3), "norm": (5,), "scale": (2, 3)}, torch.uint8, dtypes)
    slab_SB = layout.slab(2, "cpu")
    views = layout.weights(slab_SB)
    assert layout.expert_bytes == 24 + 10 + 9 + 3
    assert list(views) == ["bias", "codes", "norm", "scale"]
    assert [view.dtype for view in views.values()] == [torch.uint8, torch.uint8, torch.bfloat16, torch.float32]
    assert [view[1].data_ptr() - slab_SB.data_ptr() - 4096 for view in views.values()] == [43, 34, 24, 0]
    assert EntryLayout.of(views) == layout
