"""Makes glibc keep freed memory for the next tensor, as a caching allocator on a GPU does, and return it on request."""

import ctypes
import sys
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Whether glibc now keeps freed memory: no mapping of its own for a large tensor, and nothing returned to the system.

    Otherwise each large tensor costs a page fault per 4 KiB when it is first written. Static gating has the largest ones and
    would look up to 1.5 times slower than its own arithmetic.
    """
    mallopt = from_glibc("mallopt")
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))


def give_freed_memory_back() -> bool:
    """Returns kept memory to the system, for use between pieces of work of different size; whether any was returned."""
    malloc_trim = from_glibc("malloc_trim")
    return malloc_trim is not None and bool(malloc_trim(0))


def give_back(device: str) -> None:
    """Returns memory that was freed on a device, so that what follows finds it for tensors of other sizes."""
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()
    else:
        give_freed_memory_back()


def from_glibc(name: str) -> Any:
    """The C function, or None if the C library does not have it."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
