"""The ledger: the one thread that moves expert weights, those that a step waits for first, then in the order of the requests."""

import atexit
import threading
from itertools import count
from queue import PriorityQueue
from typing import Literal

import torch
from torch import Tensor

from moeprof.instrument.clock import Clock, wall_clock
from moeprof.records.errors import MoeprofError
from moeprof.records.system.causes import out_of_memory
from moeprof.records.system.files import reason
from moeprof.store.tier import Tier

PATIENCE_S = 1.0
"""How long the end of the process waits for a load in progress."""

Reason = Literal["demand", "prefetch"]
"""Why an expert is moved: a step needs it, or is expected to."""

URGENCY: dict[Reason, int] = {"demand": 1, "prefetch": 2}
"""Loads of a lower number go first; the end of the thread has the number 0 if it cannot wait for any, and 3 if it comes last."""


class Load:
    """The transfer of an expert into a cache slot."""

    def __init__(
        self,
        layer: str,
        expert: int,
        into_B: Tensor,
        free: "torch.cuda.Event | None" = None,
        *,
        source: Tier | None = None,
        reason: Reason = "demand",
    ) -> None:
        """`source` is where the expert comes from if not from the ledger's own tier."""
        self.layer, self.expert, self.into_B, self.source, self.reason = layer, expert, into_B, source, reason
        self.free = free
        """When the device no longer needs the slot's old contents; None if it does not need them now."""
        self.cancelled = False
        """Whether its slot was given away before the transfer began."""
        self.start_ns = self.end_ns = 0
        self.error: MoeprofError | None = None
        self.begun: torch.cuda.Event | None = None
        self.there: torch.cuda.Event | None = None
        self.finished = threading.Event()

    @property
    def done(self) -> bool:
        """Whether the expert has arrived."""
        if self.there is None:
            return self.finished.is_set()
        return bool(self.there.query())  # type: ignore[no-untyped-call]

    @property
    def took_ns(self) -> int:
        """Duration of a finished transfer."""
        if self.begun is None or self.there is None:
            return self.end_ns - self.start_ns
        return round(float(self.begun.elapsed_time(self.there)) * 1e6)


class Ledger:
    """Moves experts from a tier into cache slots; its thread starts with the first load and ends with the process or `close`."""

    def __init__(self, tier: Tier, device: str = "cpu", clock: Clock = wall_clock) -> None:
        self.tier, self.device, self.clock = tier, device, clock
        self.stream = torch.cuda.Stream() if device == "cuda" else None  # type: ignore[no-untyped-call]
        """A separate stream, so that copies overlap with kernels."""
        self.queue: PriorityQueue[tuple[int, int, Load | None]] = PriorityQueue()
        self.numbers = count()
        self.thread: threading.Thread | None = None
        self.leaving = False

    def submit(self, load: Load) -> None:
        """Queues a load and returns immediately."""
        if self.thread is None:
            thread = threading.Thread(target=self.work, name="moeprof ledger", daemon=True)
            thread.start()
            self.thread = thread  # set only after a successful start, so that no load waits for a thread that does not run
            atexit.register(self.leave)
        self.queue.put((URGENCY[load.reason], next(self.numbers), load))

    def hurry(self, load: Load) -> None:
        """Moves a queued load to those that a step waits for; one that has begun continues."""
        if load.reason != "demand" and not load.finished.is_set():
            self.queue.put((URGENCY["demand"], next(self.numbers), load))

    def wait(self, load: Load) -> None:
        """Waits until the expert has arrived; on a GPU the device waits. MoeprofError if the transfer failed."""
        load.finished.wait()
        if load.error is not None:
            raise load.error
        if load.there is not None:
            torch.cuda.current_stream().wait_event(load.there)

    def work(self) -> None:
        """The thread's loop; an error is kept in the load and raised by `wait`."""
        while (load := self.queue.get()[2]) is not None and not self.leaving:
            if load.cancelled or load.finished.is_set():  # it was hurried, and has its place in the queue twice
                load.finished.set()
                continue
            load.start_ns = self.clock()
            try:
                with torch.inference_mode():  # the mode belongs to a thread, and the slots were made in it by another one
                    self.move(load)
            except MoeprofError as error:
                load.error = error
            except BaseException as error:  # also KeyboardInterrupt: another thread waits for this load
                load.error = failure(load, error)
            load.end_ns = self.clock()
            load.finished.set()

    def move(self, load: Load) -> None:
        """Transfers one expert, on a GPU in the ledger's stream."""
        if self.stream is None:
            (load.source or self.tier).read(load.layer, load.expert, load.into_B)
            return
        with torch.cuda.stream(self.stream):
            if load.free is not None:
                self.stream.wait_event(load.free)
            load.begun, there = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            load.begun.record(self.stream)
            (load.source or self.tier).read(load.layer, load.expert, load.into_B)
            there.record(self.stream)
            load.there = there

    def close(self) -> None:
        """Ends the thread after all queued loads."""
        if self.thread is not None:
            self.queue.put((3, next(self.numbers), None))
            self.thread.join()
            self.thread = None
            atexit.unregister(self.leave)

    def leave(self) -> None:
        """Starts no more loads: the process would be aborted if Python ended while the thread is in torch."""
        self.leaving = True
        self.queue.put((0, next(self.numbers), None))
        if self.thread is not None:
            self.thread.join(PATIENCE_S)


def failure(load: Load, error: BaseException) -> MoeprofError:
    """The error of a load with its cause, as one line, and the remedy for that cause."""
    why = reason(error) if isinstance(error, Exception) else type(error).__name__
    found = MoeprofError(f"expert {load.expert} of layer {load.layer} could not be loaded: {why}", remedy(error))
    found.__cause__ = error
    return found


def remedy(error: BaseException) -> str:
    """What a user can do about the cause of a failed load."""
    if out_of_memory(error):
        return "Free memory, or use fewer slots with --slots."
    if isinstance(error, OSError):
        return "Run it again; if it fails again, check the disk."
    return "Run it again with --debug for a traceback."
