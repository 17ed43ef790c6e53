"""Loads happen in order and in one thread; whoever waits for one gets it, or an error, or can be interrupted."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from torch import Tensor

from moeprof.moe.kernels.loop import loop
from moeprof.records.errors import MoeprofError
from moeprof.store.backing import backing
from moeprof.store.ledger import Ledger, Load, failure

from .shelves import (
    CHILDREN,
    LAYERS,
    LAYOUT,
    Failing,
    contents,
    endless,
    entry_of,
    in_memory,
    on_disk,
    own_disk,
    read_from,
    store,
    two_lines,
    weights_of,
)
from .test_buffered import GELU, outputs, rows_of

KEYS = [(layer, expert) for layer in LAYERS for expert in range(4)]


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return own_disk(tmp_path, monkeypatch)


@dataclass
class Held:
    """A tier that lets nobody through until it may."""

    may: threading.Event = field(default_factory=threading.Event)
    read_keys: list[tuple[str, int]] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)

    def read(self, layer: str, expert: int, into_B: Tensor) -> None:
        assert self.may.wait(20)
        self.read_keys.append((layer, expert))
        self.threads.add(threading.get_ident())
        in_memory(4).read(layer, expert, into_B)


def load_of(layer: str, expert: int) -> Load:
    return Load(layer, expert, LAYOUT.slab(1, "cpu")[0])


def content(load: Load) -> bytes:
    return load.into_B.numpy().tobytes()


def test_loads_come_in_the_order_in_which_they_were_asked_for_in_one_thread_that_is_not_ours() -> None:
    tier = Held()
    ledger, loads = Ledger(tier), [load_of(*key) for key in reversed(KEYS)]
    for load in loads:
        ledger.submit(load)
    assert not any(load.done for load in loads)
    tier.may.set()
    ledger.wait(loads[-1])
    assert [load.done for load in loads] == [True] * 8
    assert tier.read_keys == KEYS[::-1]
    assert [content(load) for load in loads] == [entry_of(*key, 4) for key in reversed(KEYS)]
    assert tier.threads == {ledger.thread.ident} if ledger.thread else False
    assert tier.threads != {threading.get_ident()}
    ledger.close()


def test_a_load_knows_when_it_began_and_ended() -> None:
    """By a clock that goes on by 10 whenever it is looked at."""
    ledger = Ledger(in_memory(4), clock=count(100, 10).__next__)
    loads = [load_of("1", expert) for expert in range(3)]
    for load in loads:
        ledger.submit(load)
    ledger.wait(loads[-1])
    assert [(load.start_ns, load.end_ns) for load in loads] == [(100, 110), (120, 130), (140, 150)]
    ledger.close()


LINES = RuntimeError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA\n\nand so on")


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (OSError(5, "Input/output error"), "expert 2 of layer 3 could not be loaded: input/output error"),
        (LINES, "expert 2 of layer 3 could not be loaded: CUDA error: out of memory"),
        (KeyError("no such layer"), "expert 2 of layer 3 could not be loaded: 'no such layer'"),
        (MemoryError(), "expert 2 of layer 3 could not be loaded: MemoryError"),
        (AssertionError(), "expert 2 of layer 3 could not be loaded: AssertionError"),
        (StopIteration(), "expert 2 of layer 3 could not be loaded: StopIteration"),
        (SystemExit(3), "expert 2 of layer 3 could not be loaded: SystemExit"),
        (KeyboardInterrupt(), "expert 2 of layer 3 could not be loaded: KeyboardInterrupt"),
        (MoeprofError("what the tier says", "What to do."), "what the tier says"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_whatever_goes_wrong_reaches_the_one_who_waits_and_the_thread_lives_on(error: BaseException, what: str) -> None:
    ledger = Ledger(Failing(in_memory(4), {1}, error))
    loads = [load_of("3", expert) for expert in (0, 2, 1)]
    for load in loads:
        ledger.submit(load)
    ledger.wait(loads[0])
    with pytest.raises(MoeprofError) as caught:
        waited(ledger, loads[1])
    assert two_lines(caught.value)
    assert caught.value.what == what
    assert caught.value is error or caught.value.__cause__ is error
    ledger.wait(loads[2])
    again = load_of("3", 2)
    ledger.submit(again)
    ledger.wait(again)
    assert [content(load) for load in (loads[0], loads[2], again)] == [entry_of("3", expert, 4) for expert in (0, 1, 2)]
    ledger.close()


@pytest.mark.parametrize("made_in_inference_mode", [True, False])
@pytest.mark.parametrize("waited_for_in_inference_mode", [True, False])
def test_slots_are_written_by_the_loading_thread_whichever_mode_they_were_made_in(
    made_in_inference_mode: bool, waited_for_in_inference_mode: bool
) -> None:
    """Inference mode belongs to a thread: tensors that the main thread makes in it may not be written in place outside of it."""
    tier = in_memory(4)
    with torch.inference_mode(made_in_inference_mode):
        load = load_of("3", 2)
    assert load.into_B.is_inference() == made_in_inference_mode
    ledger = Ledger(tier)
    with torch.inference_mode(waited_for_in_inference_mode):
        ledger.submit(load)
        ledger.wait(load)
    assert content(load) == entry_of("3", 2, 4)
    ledger.close()


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (OSError(5, "Input/output error"), "disk"),
        (LINES, "--slots"),
        (MemoryError(), "--slots"),
        (RuntimeError("Inplace update to inference tensor"), "--debug"),
        (KeyError("no such layer"), "--debug"),
    ],
)
def test_the_remedy_for_a_failed_load_is_that_of_its_cause(error: BaseException, word: str) -> None:
    remedies = [failure(load_of("3", 2), error).remedy]
    assert [word in remedy for remedy in remedies] == [True]
    assert ("disk" in remedies[0]) == (word == "disk")


def waited(ledger: Ledger, load: Load) -> None:
    """Fails where nobody would ever come."""
    assert load.finished.wait(10)
    ledger.wait(load)


def test_close_ends_the_thread_behind_what_was_asked_for() -> None:
    ledger, loads = Ledger(in_memory(4)), [load_of("1", expert) for expert in range(4)]
    for load in loads:
        ledger.submit(load)
    thread = ledger.thread
    assert thread is not None
    assert thread.is_alive()
    ledger.close()
    assert not thread.is_alive()
    assert [content(load) for load in loads] == [entry_of("1", expert, 4) for expert in range(4)]


def test_close_can_be_called_twice_and_before_any_load_and_a_ledger_can_go_on_after_it() -> None:
    ledger = Ledger(in_memory(4))
    ledger.close()
    for _ in range(2):
        load = load_of("1", 3)
        ledger.submit(load)
        waited(ledger, load)
        assert content(load) == entry_of("1", 3, 4)
        ledger.close()
        ledger.close()
        assert ledger.thread is None


def test_a_thread_that_cannot_start_has_nobody_wait_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    ledger, load = Ledger(in_memory(4)), load_of("1", 0)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                ledger.submit(load)
    ledger.submit(load)
    waited(ledger, load)
    assert content(load) == entry_of("1", 0, 4)
    ledger.close()


# In a step


@pytest.mark.parametrize("slots", [1, 2, 4])
@pytest.mark.parametrize("breakdown", [0, 1, 2, 3])
def test_a_step_whose_tier_fails_breaks_off_and_the_next_one_is_right(slots: int, breakdown: int) -> None:
    buffered = store(Failing(in_memory(4), {breakdown}), 4, slots)
    inputs = rows_of([2, 1, 3, 2])
    with pytest.raises(MoeprofError) as caught:
        outputs(buffered, inputs)
    assert caught.value.what == f"expert {breakdown} of layer 1 could not be loaded: input/output error"
    for loads in ([2, 1, 3, 2], [0, 2, 2, 0], [5, 0, 0, 1]):
        inputs = rows_of(loads)
        torch.testing.assert_close(outputs(buffered, inputs), loop(inputs, weights_of("1", 4), GELU))
    buffered.ledger.close()


def test_a_step_whose_file_is_changed_breaks_off(disk: Path) -> None:
    buffered, inputs = store(on_disk(4), 4, 2), rows_of([1, 1, 1, 1])
    torch.testing.assert_close(outputs(buffered, inputs), loop(inputs, weights_of("1", 4), GELU))
    time.sleep(0.01)
    os.truncate(contents(4).path, 4096)
    for _ in range(2):
        with pytest.raises(MoeprofError, match="it was changed while in use"):
            outputs(buffered, inputs)
    buffered.ledger.close()


def test_slots_that_could_not_be_given_back_what_they_held_are_not_believed_in() -> None:
    """Two slots hold experts 0 and 1; a block uses 2 and 3, and then 0 cannot be read again."""
    tier = Failing(in_memory(4), {4})
    buffered = store(tier, 4, 2)
    outputs(buffered, rows_of([1, 1, 0, 0]))
    with pytest.raises(MoeprofError, match="could not be loaded"), buffered.kept():
        outputs(buffered, rows_of([0, 0, 1, 1]))
    inputs = rows_of([1, 1, 0, 0])
    torch.testing.assert_close(outputs(buffered, inputs), loop(inputs, weights_of("1", 4), GELU))
    buffered.ledger.close()


# To the end of the process

SCRIPT = """
import time
from store.shelves import Large, Ledger, Watched, endless, in_memory, on_disk, store
for tier in (on_disk(4), Large()):
    endless(Ledger(tier))
buffered = store(Watched(in_memory(4), dawdle=lambda: time.sleep(600)), 4, 2)
buffered.expect([0, 1, 2, 3, 4])
print("waiting", flush=True)
list(buffered.waves())
"""


@pytest.fixture(scope="module", autouse=True)
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator["subprocess.Popen[str]"]:
    """A real process, which imports what it needs while other tests run."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        env=os.environ
        | {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")), "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    yield process
    process.kill()
    process.communicate()


def test_waiting_can_be_interrupted_whatever_is_under_way_and_the_process_ends(started: "subprocess.Popen[str]") -> None:
    """One ledger is stuck, and two others have thousands of loads to come: a thread in torch when Python ends would abort it."""
    assert started.stdout is not None
    assert started.stdout.readline() == "waiting\n"
    time.sleep(0.3)  # now it does wait
    begun = time.monotonic()
    started.send_signal(signal.SIGINT)
    _, errors = started.communicate(timeout=10)
    assert time.monotonic() - begun < 5
    assert errors.splitlines()[-1] == "KeyboardInterrupt"
    assert started.returncode == -signal.SIGINT


def loading(sender: Connection, cache: Path) -> None:
    """Loads from a file for minutes."""
    os.environ["XDG_CACHE_HOME"] = str(cache)
    os.setpgid(0, 0)
    ledger = Ledger(on_disk(4))
    endless(ledger)
    sender.send("loading")
    time.sleep(60)


def test_a_process_that_is_killed_while_it_loads_leaves_nothing_but_a_whole_file(disk: Path) -> None:
    receiver, sender = CHILDREN.Pipe(duplex=False)
    child = CHILDREN.Process(target=loading, args=(sender, disk))
    child.start()
    assert receiver.recv() == "loading"
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join(10)
    assert child.exitcode == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.killpg(child.pid, 0)

    def unasked(*_: object) -> None:
        raise AssertionError("the file is there")

    file = backing(contents(4), unasked)
    assert [read_from(file, *key) for key in KEYS] == [entry_of(*key, 4) for key in KEYS]
