"""Signals that end a command: what they raise, when, and which stay ignored."""

import importlib
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest

from moeprof.records.system import signals as module
from moeprof.records.system.signals import ENDINGS, Ended, delayed, exit_code, raise_if_asked, too_late, why

NAMED = [
    (signal.SIGINT, "interrupted", 130),
    (signal.SIGTERM, "ended by SIGTERM", 143),
    (signal.SIGHUP, "ended by SIGHUP", 129),
]


@pytest.mark.parametrize(("number", "reason", "code"), NAMED)
def test_a_signal_raises_its_reason_and_its_exit_code(signals: None, number: int, reason: str, code: int) -> None:
    with pytest.raises(Ended) as caught:
        signal.raise_signal(number)
    assert (why(caught.value), exit_code(caught.value)) == (reason, code)


def test_a_plain_keyboard_interrupt_is_an_interruption() -> None:
    assert (why(KeyboardInterrupt()), exit_code(KeyboardInterrupt())) == ("interrupted", 130)


def test_a_signal_that_repeats_another_is_the_same_request_for_a_while(signals: None, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([10.0, 14.9, 15.0, 15.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(now))
    with pytest.raises(Ended, match="SIGTERM"):
        signal.raise_signal(signal.SIGTERM)  # at 10.0
    signal.raise_signal(signal.SIGHUP)  # at 14.9
    with pytest.raises(Ended, match="SIGHUP"):
        signal.raise_signal(signal.SIGHUP)  # at 15.0


def test_what_a_destructor_swallowed_is_raised_again(signals: None) -> None:
    raise_if_asked()
    with pytest.raises(Ended, match="SIGTERM"):
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Ended, match="SIGTERM"):
        raise_if_asked()


@pytest.mark.parametrize("number", ENDINGS)
def test_a_block_is_completed_before_a_signal_takes_effect(signals: None, number: int) -> None:
    done = []
    with pytest.raises(Ended), delayed():  # noqa: PT012
        signal.raise_signal(number)
        done.append("the rest of the block")
    assert done == ["the rest of the block"]
    with pytest.raises(Ended, match="interrupted" if number == signal.SIGINT else signal.Signals(number).name):
        raise_if_asked()


IMPORTED = """
import os, signal
done = []
try:
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(1000):
        done.append("the import goes on")
except KeyboardInterrupt:
    done.clear()
"""


def test_a_signal_during_an_import_takes_effect_after_it(
    signals: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "interrupted_import.py").write_text(IMPORTED)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(Ended, match="SIGTERM"):  # noqa: PT012
        module = importlib.import_module("interrupted_import")
        time.sleep(30)
    assert module.done == ["the import goes on"] * 1000


LOST = """
import os, signal, time, weakref
from moeprof.records.system.signals import raise_on_signals
raise_on_signals()
class Thing: pass
thing = Thing()
reference = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGTERM) or [None for _ in range(10**5)])
try:
    del thing
    print("Python ignored the exception")
    time.sleep(30)
except KeyboardInterrupt as error:
    print(error)
"""


def test_a_signal_during_a_callback_takes_effect_after_it_and_shows_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.splitlines() == ["Python ignored the exception", "ended by SIGTERM"]
    assert done.stderr == ""


def test_other_exceptions_that_python_ignores_are_still_shown() -> None:
    body = "from moeprof.records.system.signals import raise_on_signals\nraise_on_signals()\nclass A:\n def __del__(self): 1 / 0\nA()"
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, timeout=20, check=True)
    assert "ZeroDivisionError" in done.stderr


def test_a_block_may_choose_where_a_signal_takes_effect(signals: None) -> None:
    with delayed() as act:
        act()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Ended, match="SIGTERM"):
            act()
        act()


def test_nested_blocks_delay_a_signal_to_the_end_of_the_outer_one(signals: None) -> None:
    done = []
    with pytest.raises(Ended), delayed():  # noqa: PT012
        with delayed():
            signal.raise_signal(signal.SIGTERM)
        done.append("after the inner block")
    assert done == ["after the inner block"]


def test_what_comes_too_late_takes_effect_before_the_next_piece_of_work(signals: None) -> None:
    with too_late():
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Ended, match="SIGTERM"):
        raise_if_asked()


def test_an_interruption_of_the_block_itself_is_not_swallowed() -> None:
    with pytest.raises(KeyboardInterrupt), too_late():
        raise KeyboardInterrupt


def test_a_block_on_another_thread_leaves_the_handlers_alone(signals: None) -> None:
    before = [signal.getsignal(number) for number in ENDINGS]
    seen: list[object] = []

    def work() -> None:
        with delayed():
            seen.extend(signal.getsignal(number) for number in ENDINGS)

    thread = Thread(target=work)
    thread.start()
    thread.join()
    assert seen == before


SENT = """
import os, signal, sys
from moeprof.records.system.signals import delayed, raise_on_signals
raise_on_signals()
try:
    {body}
except KeyboardInterrupt as error:
    print(error)
print("alive", flush=True)
"""


def outcome(body: str, ignored: int | None = None) -> tuple[int, str]:
    """The exit code and output of a process with the signal `ignored` from its start, as `nohup` does it."""
    ignore = (lambda: signal.signal(ignored, signal.SIG_IGN)) if ignored else None
    done = subprocess.run(
        [sys.executable, "-c", SENT.format(body=body)], preexec_fn=ignore, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("number", ENDINGS)
def test_a_signal_that_is_ignored_at_the_start_stays_ignored(number: int) -> None:
    assert outcome(f"os.kill(os.getpid(), {number})", ignored=number) == (0, "alive\n")
    assert outcome(f"with delayed(): os.kill(os.getpid(), {number})", ignored=number) == (0, "alive\n")


def test_without_a_handler_a_delayed_signal_ends_the_process_after_the_block() -> None:
    body = "signal.signal(15, signal.SIG_DFL)\n    with delayed(): os.kill(os.getpid(), 15); print('whole', flush=True)"
    assert outcome(body) == (-signal.SIGTERM, "whole\n")


def test_output_to_a_terminal_that_is_gone_is_dropped_and_not_an_error() -> None:
    ours, theirs = pty.openpty()
    script = (
        "import os, sys, time; from moeprof.records.system.signals import *\n"
        "raise_on_signals()\ntry:\n    os.write(3, b'.'); time.sleep(60)\n"
        "except KeyboardInterrupt as error:\n    print(error, flush=True); os.write(3, str(error).encode())\n"
    )
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: (os.dup2(writing, 3), terminal_of_session()),
        pass_fds=[3],
    )
    os.close(writing)
    os.close(theirs)
    assert os.read(reading, 1) == b"."
    os.close(ours)  # the terminal is closed: the kernel sends SIGHUP
    assert process.wait(30) == 0
    assert os.read(reading, 100) == b"ended by SIGHUP"
    os.close(reading)


def terminal_of_session() -> None:
    """Makes the terminal on stdin that of the session, whose end is not ignored even if the tests run under nohup."""
    import fcntl
    import termios

    signal.signal(signal.SIGHUP, signal.SIG_DFL)

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
