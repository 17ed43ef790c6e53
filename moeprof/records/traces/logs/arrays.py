"""Arrays of ids inside other files: nested lists of JSON, base64, and NumPy's own format, without any pickle.

T tokens, L layers, K choices.
"""

import base64
import binascii
import io
import json
import math
from collections.abc import Sequence
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt

from moeprof.records.system.inputs import check_memory
from moeprof.records.traces.choices import Ids

NPY = b"\x93NUMPY"
MAX_HEADER_BYTES = 2**14


def ids_of_lists(value: object, what: str) -> Ids:
    """Lists of lists of lists of whole numbers as (T, L, K); ValueError if they are none, or differ in length."""
    if not isinstance(value, list):
        raise ValueError(f"{what} is not a list of tokens")
    try:
        found = np.array(value)
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"{what}: not every token has the same layers, or not every layer the same number of choices"
        ) from error
    return checked_ids(found, what)


def checked_ids(found: npt.NDArray[Any], what: str) -> Ids:
    """The array in 32 bits or fewer; ValueError unless it is of whole numbers that fit into them, and (T, L, K)."""
    if found.ndim != 3:
        raise ValueError(f"{what} has {found.ndim} dimensions in place of 3: tokens, layers, choices")
    if not np.issubdtype(found.dtype, np.integer):
        raise ValueError(f"{what} holds values of type {found.dtype}, not whole numbers")
    if not found.size:
        raise ValueError(f"{what} is empty: {found.shape[0]} tokens, {found.shape[1]} layers, {found.shape[2]} choices")
    if np.can_cast(found.dtype, np.int32):
        return found if found.dtype.kind == "i" else found.astype(np.int32)
    for extreme in (found.min(), found.max()):
        if not -(2**31) <= extreme < 2**31:
            raise ValueError(f"{what} holds {extreme}, which is no expert")
    return found.astype(np.int32)


def bytes_of_base64(value: object, what: str) -> bytes:
    """The bytes of a text in base64; ValueError if it is none."""
    if not isinstance(value, str):
        raise ValueError(f"{what} is not a text in base64")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{what} is not base64, or is truncated") from error


def ids_of_npy(content: bytes, what: str) -> Ids:
    """The ids in a .npy file, (T, L, K); ValueError as in `array_of_npy` and `checked_ids`."""
    return checked_ids(array_of_npy(content, what), what)


def array_of_npy(content: bytes, what: str) -> npt.NDArray[Any]:
    """The array in a .npy file; ValueError if the file is damaged or holds objects, which would need a pickle."""
    shape, dtype, fortran, start = npy_header(content, what)
    if dtype.hasobject:
        raise ValueError(f"{what} holds Python objects, which are never unpickled")
    needed = math.prod(shape) * dtype.itemsize
    if needed != len(content) - start:
        raise ValueError(f"{what} has {len(content) - start:,} bytes of data, but its shape {shape} needs {needed:,}")
    check_memory(needed)
    return np.frombuffer(content, dtype, offset=start).reshape(shape, order="F" if fortran else "C")


def npy_header(content: bytes, what: str) -> tuple[tuple[int, ...], np.dtype[np.generic], bool, int]:
    """Shape, type, order and the place of the data of a .npy file; ValueError if its header is damaged."""
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(stream, max_header_size=MAX_HEADER_BYTES)
    except (ValueError, SyntaxError, TypeError, TokenError, MemoryError, RecursionError) as error:
        raise ValueError(f"{what} is not a NumPy array, or its header is damaged") from error
    if any(size < 0 for size in shape):
        raise ValueError(f"{what} has the shape {shape}")
    return shape, dtype, fortran, stream.tell()


def npy_of(experts_TLK: Ids, dtype: type[np.integer]) -> bytes:
    """The array as the bytes of a .npy file."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, experts_TLK.astype(dtype), allow_pickle=False)
    return stream.getvalue()


def whole_numbers(value: object, what: str) -> list[int] | None:
    """A list of token ids, -1 for an unknown one, or None if there is none; ValueError if it holds anything else."""
    if value is None:
        return None
    if not isinstance(value, list) or any(type(one) is not int or not -1 <= one < 2**31 for one in value):
        raise ValueError(f"{what} is not a list of token ids")
    return value


def count_of(document: dict[str, object], key: str) -> int | None:
    """A number under a key, or None if there is none; ValueError if it is no whole number from 0."""
    value = document.get(key)
    if value is not None and (type(value) is not int or not 0 <= value < 2**31):
        raise ValueError(f"{key} = {json.dumps(value)[:40]} is no whole number from 0")
    return value


def shape_of(arrays: Sequence[Ids]) -> tuple[int, int]:
    """The layers and choices that all arrays have, (L, K); ValueError if they differ."""
    first = arrays[0].shape[1:]
    for number, array in enumerate(arrays):
        if array.shape[1:] != first:
            raise ValueError(
                f"sequence {number} has {array.shape[1]} layers of {array.shape[2]} choices, but the first has "
                f"{first[0]} of {first[1]}"
            )
    return int(first[0]), int(first[1])
