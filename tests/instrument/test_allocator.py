"""Freed memory is kept for the next tensor where glibc allows it, goes back when asked, and the caller learns whether."""

import ctypes
import subprocess
import sys

import pytest

from moeprof.instrument.allocator import give_freed_memory_back, keep_freed_memory

FAULTS = """
import resource, torch
from moeprof.instrument.allocator import keep_freed_memory
print(keep_freed_memory())
for _ in range(21):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensor = torch.ones(2**22)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    del tensor
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="an option of glibc")
def test_large_tensors_soon_cost_no_page_faults() -> None:
    """16 MiB are 4096 pages; in a process of its own, since the choice is for good. Older glibc needs a few rounds."""
    result = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    kept, *faults = result.stdout.split()
    if kept == "False":
        pytest.skip("no glibc")
    assert sorted(map(int, faults[-11:]))[5] < 40


RESIDENT = """
import resource, torch
from moeprof.instrument.allocator import give_freed_memory_back, keep_freed_memory
def resident_mib():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20
print(keep_freed_memory())
before = resident_mib()
tensors = [torch.ones(2**18) for _ in range(64)]
del tensors
print(resident_mib() - before)
print(give_freed_memory_back())
print(resident_mib() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="an option of glibc")
def test_memory_that_was_kept_goes_back_when_asked() -> None:
    """64 MiB, in a process of its own."""
    result = subprocess.run([sys.executable, "-c", RESIDENT], capture_output=True, text=True, check=True)
    kept, while_kept, given_back, afterwards = result.stdout.split()
    if kept == "False":
        pytest.skip("no glibc")
    assert given_back == "True"
    assert float(while_kept) > 60
    assert float(afterwards) < 10


def test_elsewhere_nothing_is_changed_and_the_answer_is_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
    assert give_freed_memory_back() is False


def test_a_c_library_without_the_option_answers_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert keep_freed_memory() is False
    assert give_freed_memory_back() is False


@pytest.mark.parametrize("answer", [0, 1])
def test_whether_anything_went_back_is_told_as_yes_or_no(monkeypatch: pytest.MonkeyPatch, answer: int) -> None:
    padding: list[int] = []

    class Library:
        @staticmethod
        def malloc_trim(pad: int) -> int:
            padding.append(pad)
            return answer

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library)
    assert give_freed_memory_back() is bool(answer)
    assert padding == [0]


@pytest.mark.parametrize("answers", [(1, 1), (0, 1), (1, 0)])
def test_the_answer_is_yes_where_both_options_were_taken(monkeypatch: pytest.MonkeyPatch, answers: tuple[int, int]) -> None:
    left = list(answers)

    class Library:
        @staticmethod
        def mallopt(option: int, value: int) -> int:
            return left.pop(0)

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library)
    assert keep_freed_memory() is all(answers)
