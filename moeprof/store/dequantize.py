"""The compiled loop that turns packed codes into weights; imported when it is first used, because importing numba takes time.

It takes one pass over memory, the same in torch five. R rows, C columns, P rows of bytes, G groups.
"""

import numpy as np
import numpy.typing as npt

from moeprof.records.compiled import compiled

Codes = npt.NDArray[np.uint8]
Weights = npt.NDArray[np.float32]


@compiled
def dequantize(codes_PC: Codes, scales_GC: Weights, into_RC: Weights, bits: int, group: int) -> None:
    """Writes (code - top) x scale of every weight."""
    per_byte, largest = 8 // bits, (1 << bits) - 1
    top = np.float32(largest / 2)
    for row in range(len(into_RC)):
        which = row // group
        first = which * group
        packed_rows = -(-min(group, len(into_RC) - first) // per_byte)
        place, packed_row = divmod(row - first, packed_rows)
        packed_row += which * (group // per_byte)
        shift = np.uint8(place * bits)
        for column in range(into_RC.shape[1]):
            code = (codes_PC[packed_row, column] >> shift) & largest
            into_RC[row, column] = (np.float32(code) - top) * scales_GC[which, column]
