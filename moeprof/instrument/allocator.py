"""Makes glibc keep freed memory for the next tensor, as a caching allocator on a GPU does."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Whether it could be arranged: no mapping of its own for a large tensor, and nothing given back.

    Otherwise each large tensor costs a page fault per 4 KiB when it is first written. Static gating has the largest ones and
    would look up to 1.5 times slower than its own arithmetic.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))
