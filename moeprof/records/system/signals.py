"""Signals that end a command: the exception that each raises, and blocks that a signal does not divide."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any] | int | None
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = "interrupted"
ENDED = "ended by"

AGAIN_S = 5.0
"""A signal that follows another one sooner is the same request: a closed terminal sends several, and so does the launcher of ranks."""

SOON_S = 0.02
"""Time after which a signal that came during an import, or whose exception was lost, is sent again."""

asked: list["Ended"] = []
"""What the signals of this process have raised so far."""

settled = threading.Event()
"""Set when a command has completed all that it was asked for: a signal that comes later ends its output, and no longer decides."""


class Ended(KeyboardInterrupt):
    """A signal asks this process to end; whatever it writes is left whole, and an unfinished run is marked invalid."""

    def __init__(self, number: int) -> None:
        name = signal.Signals(number).name
        super().__init__(INTERRUPTED if number == signal.SIGINT else f"{ENDED} {name}")
        self.number, self.time_s = number, time.monotonic()


def why(error: BaseException) -> str:
    """The reason that an unfinished run records: `interrupted` (also for a plain KeyboardInterrupt), or `ended by SIGTERM`."""
    return str(error) or INTERRUPTED


def exit_code(error: BaseException) -> int:
    """128 plus the number of the signal, as shells report it; 130 for a plain KeyboardInterrupt; 0 if the work was settled."""
    if settled.is_set():
        return 0
    return 128 + (error.number if isinstance(error, Ended) else signal.SIGINT)


def acting() -> list[signal.Signals]:
    """The signals that this process does not ignore; those that it was started to ignore, as by `nohup`, stay ignored."""
    return [number for number in ENDINGS if signal.getsignal(number) not in (signal.SIG_IGN, None)]


def raise_on_signals() -> None:
    """Makes every signal that asks to end raise `Ended` in the main thread."""
    for number in acting():
        signal.signal(number, raise_ended)
    sys.unraisablehook = partial(send_again, otherwise=sys.unraisablehook)


def ignore_signals() -> None:
    """From now on no signal changes the exit code, which is already decided."""
    for number in ENDINGS:
        signal.signal(number, signal.SIG_IGN)


def raise_ended(number: int, frame: FrameType | None) -> None:
    """The handler; a signal that repeats an earlier one within `AGAIN_S` does not disturb the clean-up."""
    if asked and time.monotonic() - asked[-1].time_s < AGAIN_S:
        return
    if importing(frame):
        raise_later(number)
        return
    if number == signal.SIGHUP:
        leave_terminal()
    asked.append(Ended(number))
    raise asked[-1]


def importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported in the frame or in one that called it."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def raise_later(number: int) -> None:
    """Sends the signal again soon: an exception in the middle of an import is lost or breaks a library (pandas then crashes)."""
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(number))
    signal.setitimer(signal.ITIMER_REAL, SOON_S)


def send_again(lost: "sys.UnraisableHookArgs", otherwise: Callable[["sys.UnraisableHookArgs"], object]) -> None:
    """Sends a signal again whose exception Python ignored, because it was raised in a destructor or in a callback of C code."""
    if isinstance(lost.exc_value, Ended):
        asked[:] = [error for error in asked if error is not lost.exc_value]
        raise_later(lost.exc_value.number)
    else:
        otherwise(lost)


def leave_terminal() -> None:
    """If the terminal is gone, sends further output to nowhere, because writing it would fail."""
    for descriptor in (1, 2):
        try:
            os.write(descriptor, b"")
        except OSError:
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def raise_if_asked() -> None:
    """Raises again what a signal raised before: code that must not fail, as a destructor, may have swallowed it."""
    if asked:
        raise asked[-1]


@contextmanager
def delayed() -> Iterator[Callable[[], None]]:
    """Makes signals wait for the end of the block, or until it calls the function that this yields."""
    waiting: list[int] = []
    before = {number: signal.getsignal(number) for number in acting()}
    closed = False

    def note(number: int, frame: FrameType | None) -> None:
        waiting.append(number)
        if closed:  # this handler was not removed yet, or a signal prevented it
            act()

    def act() -> None:
        while waiting:
            pass_on(waiting.pop(), before)

    if threading.current_thread() is not threading.main_thread():
        yield act
        return
    try:
        for number in before:
            signal.signal(number, note)
        yield act
    finally:
        closed = True
        for number, handler in before.items():
            signal.signal(number, handler)
        act()


def pass_on(number: int, handlers: Mapping[signal.Signals, Handler]) -> None:
    """Does what the handler of a signal does; without a handler, the signal ends the process."""
    handler = handlers[signal.Signals(number)]
    if callable(handler):
        handler(number, None)
    else:
        signal.signal(number, handler)
        signal.raise_signal(number)


@contextmanager
def too_late() -> Iterator[None]:
    """Completes the block in spite of signals; only `raise_if_asked` raises them afterwards."""
    complete = False
    try:
        with delayed():
            yield
            complete = True
    except KeyboardInterrupt:
        if not complete:
            raise
