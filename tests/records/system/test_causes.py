"""Whatever is raised is reported with its cause and a remedy; only what has no cause outside the code is a bug."""

import errno
import os

import numpy as np
import pytest
import torch

from moeprof.records.errors import UsageError
from moeprof.records.system.causes import MEMORY, described, known, out_of_memory


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    found = described(ModuleNotFoundError("No module named 'pynvml.smi'", name="pynvml.smi"), "a bug")
    assert found.what == "package nvidia-ml-py cannot be imported: No module named 'pynvml.smi'"
    assert (found.remedy, found.exit_code) == ("Install it: pip install nvidia-ml-py", 1)


def test_a_package_that_lacks_a_name_is_to_be_upgraded() -> None:
    with pytest.raises(ImportError) as caught:
        from numpy import no_such_name  # noqa: F401
    assert described(caught.value, "a bug").remedy == "Install it: pip install --upgrade numpy"


def test_a_package_that_cannot_load_its_library_is_recognised_by_the_module_that_raised() -> None:
    with pytest.raises(ImportError) as caught:
        exec("raise ImportError('libx.so: cannot open shared object file')", {"__name__": "torch_tb_profiler.plugin"})
    assert described(caught.value, "a bug").remedy == "Install it: pip install --upgrade torch-tb-profiler"


def test_any_other_exception_is_a_bug_and_is_reported_in_one_line() -> None:
    for error in (ValueError("one\ntwo"), ModuleNotFoundError("one", name="moeprof.nowhere")):
        found = described(error, "a bug")
        assert (found.what, found.remedy, found.exit_code) == (f"{type(error).__name__}: one", "a bug", 1)


def test_an_error_of_moeprof_is_reported_as_it_is() -> None:
    error = UsageError("what", "remedy")
    assert described(error, "a bug") is error


# Disks and limits


@pytest.mark.parametrize(
    ("number", "reason", "word", "code"),
    [
        (errno.ENOSPC, "no space left on device", "space", 1),
        (errno.EDQUOT, "disk quota exceeded", "quota", 1),
        (errno.EFBIG, "file too large", "ulimit -f", 1),
        (errno.EMFILE, "too many open files", "ulimit -n", 1),
        (errno.EIO, "input/output error", "disk", 1),
        (errno.EROFS, "read-only file system", "folder", 2),
        (errno.EACCES, "permission denied", "permissions", 2),
    ],
)
def test_what_the_machine_refuses_is_no_bug_and_names_the_path(number: int, reason: str, word: str, code: int) -> None:
    found = described(OSError(number, "Error writing bytes to file. Detail: [errno]", "runs/a"), "a bug")
    assert (found.what, found.exit_code) == (f"runs/a: {reason}", code)
    assert word in found.remedy
    assert known(OSError(number, os.strerror(number))) is not None


def test_a_file_that_moeprof_should_have_known_to_be_missing_is_a_bug() -> None:
    assert described(FileNotFoundError(errno.ENOENT, "No such file", "x"), "a bug").remedy == "a bug"


# Memory


def raised_by(call: object) -> BaseException:
    with pytest.raises((MemoryError, RuntimeError)) as caught:
        call()  # type: ignore[operator]
    return caught.value


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (raised_by(lambda: torch.empty(2**50, dtype=torch.uint8)), "out of memory: 1024 TiB could not be allocated"),
        (raised_by(lambda: np.zeros(2**60, np.uint8)), "out of memory: Unable to allocate 1.00 EiB for an array with shape"),
        (MemoryError(), "out of memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out of memory: CUDA out of memory. Tried"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out of memory"),
        (RuntimeError("std::bad_alloc"), "out of memory: std::bad_alloc"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object", name="torch"), "out of memory: libtorch_cpu"),
    ],
)
def test_memory_that_ran_out_is_reported_as_such(error: BaseException, what: str) -> None:
    found = described(error, "a bug")
    assert found.what.startswith(what)
    assert (found.remedy, found.exit_code) == (MEMORY, 1)


@pytest.mark.parametrize(
    "error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory"), OSError(errno.EIO, "x")]
)
def test_no_other_error_is_taken_for_a_lack_of_memory(error: BaseException) -> None:
    assert not out_of_memory(error)
