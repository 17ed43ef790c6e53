"""The ledger: the one thread that moves expert weights, those that a step waits for first, then in the order of the requests."""

import atexit
import threading
from collections import deque
from itertools import count
from queue import PriorityQueue
from typing import Literal

import torch
from torch import Tensor

from moeprof.instrument.clock import Clock, wall_clock
from moeprof.instrument.probe import expert_load_probe
from moeprof.policies.offloading.planner import HIGH
from moeprof.records.errors import MoeprofError
from moeprof.records.system.causes import out_of_memory
from moeprof.records.system.files import reason
from moeprof.records.traces.expert_loads import Movement
from moeprof.store.tier import Tier, TierName

PATIENCE_S = 1.0
"""How long the end of the process waits for a load in progress."""

Reason = Literal["demand", "prefetch", "preload"]
"""Why an expert is moved: a step needs it, or is expected to; or it is only brought nearer, from a file into host memory."""

URGENCY: dict[Reason, int] = {"demand": 1, "prefetch": 2, "preload": 3}
"""Loads of a lower number go first; the end of the thread has the number 0 if it cannot wait for any, and 4 if it comes last."""


class Load:
    """The transfer of an expert into a cache slot, or only into host memory (host_memory.py)."""

    def __init__(
        self,
        layer: str,
        expert: int,
        into_B: Tensor,
        free: "torch.cuda.Event | None" = None,
        *,
        source: Tier | None = None,
        reason: Reason = "demand",
        precision: str = HIGH,
    ) -> None:
        """`source` is where the expert comes from if not from the ledger's own tier."""
        self.precision = precision
        self.watched = False
        """Whether it was queued under an expert-load probe, so that it is reported."""
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
        self.movements: deque[Movement] = deque()
        """Watched loads that have ended and were not reported yet."""

    def moved(self) -> list[Movement]:
        """The watched loads that ended since the last call."""
        return [self.movements.popleft() for _ in range(len(self.movements))]

    def rest(self) -> list[Movement]:
        """What is left to report after all queued loads."""
        self.queue.join()
        return self.moved()

    def submit(self, load: Load) -> None:
        """Queues a load and returns immediately."""
        if self.thread is None:
            thread = threading.Thread(target=self.work, name="moeprof ledger", daemon=True)
            thread.start()
            self.thread = thread  # set only after a successful start, so that no load waits for a thread that does not run
            atexit.register(self.leave)
        load.watched = expert_load_probe() is not None
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
            if not load.cancelled and not load.finished.is_set():  # a hurried load has its place in the queue twice
                self.carry_out(load)
            load.finished.set()
            self.queue.task_done()

    def carry_out(self, load: Load) -> None:
        """Transfers one expert, and keeps its times and its error."""
        load.start_ns = self.clock()
        try:
            with torch.inference_mode():  # the mode belongs to a thread, and the slots were made in it by another one
                found = self.move(load)
            if load.watched:
                self.movements.append(Movement(load.layer, load.precision, load.reason, found, len(load.into_B)))
        except MoeprofError as error:
            load.error = error
        except BaseException as error:  # also KeyboardInterrupt: another thread waits for this load
            load.error = failure(load, error)
        load.end_ns = self.clock()

    def move(self, load: Load) -> TierName:
        """Transfers one expert, on a GPU in the ledger's stream, and returns where it was."""
        source = load.source or self.tier
        if self.stream is None:
            return source.read(load.layer, load.expert, load.into_B)
        with torch.cuda.stream(self.stream):
            if load.free is not None:
                self.stream.wait_event(load.free)
            load.begun, there = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            load.begun.record(self.stream)
            found = source.read(load.layer, load.expert, load.into_B)
            there.record(self.stream)
            load.there = there
            return found

    def close(self) -> None:
        """Ends the thread after all queued loads."""
        if self.thread is not None:
            self.queue.put((4, next(self.numbers), None))
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
