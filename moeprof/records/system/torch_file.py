"""Files of `torch.save`, which are read without running code from them; the only module of this package that uses torch."""

import re
import warnings
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moeprof.records.system.files import replacing
from moeprof.records.system.inputs import InputFile, check_memory

PICKLE = b"\x80"
"""How a pickle begins that is in no archive; torch.save wrote some around its tensors before version 1.6."""

CODE = re.compile(r"GLOBAL (\S+)")
"""What a refused pickle would have called, in the message of torch."""


def is_torch_file(file: InputFile) -> bool:
    """Whether the first bytes are those of a file of `torch.save`."""
    return file.head.startswith(b"PK\x03\x04") and b"/data.pkl" in file.head


def load(file: InputFile) -> Any:
    """The document in the file: dicts, lists and plain values with tensors in it, which `array` reads.

    ValueError if the file is damaged, is packed, or would run code.
    """
    content = file.read()
    check_archive(content)
    return unpickled(content)


def check_archive(content: bytes) -> None:
    """ValueError unless the content is a whole zip archive whose members are stored as they are, as `torch.save` stores them."""
    if content.startswith(PICKLE):
        raise ValueError("a bare pickle, which is not run: torch.save has written zip archives since its version 1.6")
    try:
        members = zipfile.ZipFile(BytesIO(content)).infolist()
    except (zipfile.BadZipFile, NotImplementedError, OverflowError, EOFError) as error:
        raise ValueError("a damaged or truncated PyTorch file") from error
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("a PyTorch file with compressed members, which torch.save does not write")
    if sum(member.file_size for member in members) > len(content):
        raise ValueError("a damaged PyTorch file: its members overlap")


def unpickled(content: bytes) -> Any:
    """The document in a file of `torch.save`; ValueError if it is damaged, or would run code."""
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on what a damaged file claims to be
            return torch.load(BytesIO(content), weights_only=True, map_location="cpu")
    except MemoryError:
        raise
    except Exception as error:  # a pickle can fail in every way
        if code := CODE.search(str(error)):
            raise ValueError(
                f"a pickle that calls {code[1]}, which is not run: only tensors are read (weights_only)"
            ) from error
        raise ValueError("a damaged PyTorch file, or one with more than tensors (weights_only refuses it)") from error


def array(value: Any) -> npt.NDArray[Any] | None:
    """A tensor of the document as an array of numbers; None if the value is no tensor.

    ValueError if it has no values of its own, or they do not fit in the free memory.
    """
    import torch

    if not isinstance(value, torch.Tensor):
        return None
    check_memory(value.numel() * 8)  # a tensor can repeat a few bytes any number of times
    try:
        whole = value.detach()
        return np.asarray((whole.float() if whole.dtype == torch.bfloat16 else whole).numpy())
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"a tensor of the kind {value.layout}, {value.dtype}, {value.device}") from error


def save(path: Path, document: Any) -> None:
    """Writes a document as `torch.save` does, with every array as a tensor."""
    import torch

    def tensors(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: tensors(one) for key, one in value.items()}
        if isinstance(value, list):
            return [tensors(one) for one in value]
        return torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value

    with replacing(path) as partial, partial.open("wb") as file:
        torch.save(tensors(document), file)
