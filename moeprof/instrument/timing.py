"""A clock around interleaved rounds of several variants, and nothing else: the pass `time`, and the timed part of others."""

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from moeprof.instrument.clock import Clock
from moeprof.instrument.probe import active


def no_selection() -> None:
    """Selects nothing, for rounds that need no variant."""


class PreparedRound(NamedTuple):
    """A round that can be repeated: off the clock it selects its own variant, on the clock it runs."""

    play: Callable[[], object]
    select: Callable[[], object] = no_selection

    def under(self, observing: Callable[[Callable[[], object]], Callable[[], object]]) -> "PreparedRound":
        """The same round, run under an instrument."""
        return self._replace(play=observing(self.play))


def interleaved(
    prepared: Mapping[str, PreparedRound],
    *,
    rounds: int,
    warmup: int,
    clock: Clock,
    between: Callable[[], None] = lambda: None,
) -> dict[str, list[int]]:
    """Nanoseconds of every round, by name.

    The order is A B, B A, A B ...: a drift of the machine's speed affects all alike. `between` runs after each round of all, off
    the clock. RuntimeError while a probe is active.
    """
    if active() is not None:
        raise RuntimeError("cannot time while a probe is active")
    samples: dict[str, list[int]] = {name: [] for name in prepared}
    with collector_paused():
        for index in range(-warmup, rounds):
            for name in list(prepared)[:: 1 if index % 2 == 0 else -1]:
                prepared[name].select()
                started = clock()
                prepared[name].play()
                elapsed = clock() - started
                if index >= 0:
                    samples[name].append(elapsed)
            between()
    return samples


@contextmanager
def collector_paused() -> Iterator[None]:
    """No garbage collection inside, so that none happens in one variant's round."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
