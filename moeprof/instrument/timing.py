"""The `time` pass: a clock around rounds of several contenders, interleaved, and nothing else."""

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from moeprof.instrument.clock import Clock
from moeprof.instrument.probe import active


def interleaved(
    contenders: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    warmup: int,
    clock: Clock,
    before: Callable[[str], object] = lambda _: None,
    between: Callable[[], None] = lambda: None,
) -> dict[str, list[int]]:
    """Nanoseconds of every round, per contender.

    The order is A B, B A, A B ...: a drift of the machine's speed hits all alike. `before` a contender's turn it is called by
    its name, `between` runs after each round, both off the clock.
    """
    if active() is not None:
        raise RuntimeError("an instrument is looking on: no time is taken")
    samples: dict[str, list[int]] = {name: [] for name in contenders}
    with collector_paused():
        for index in range(-warmup, rounds):
            for name in list(contenders)[:: 1 if index % 2 == 0 else -1]:
                before(name)
                started = clock()
                contenders[name]()
                elapsed = clock() - started
                if index >= 0:
                    samples[name].append(elapsed)
            between()
    return samples


@contextmanager
def collector_paused() -> Iterator[None]:
    """No garbage collection inside, so that none falls into one contender's round."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
