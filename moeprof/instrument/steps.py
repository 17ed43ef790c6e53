"""The times of the steps of a round: marks while it runs, read off the clock."""

from itertools import pairwise

from moeprof.instrument.regions import Mark, Stopwatch


class StepTimer:
    """Nanoseconds of every step of every round. A mark is a reading of the clock or, on CUDA, an event: the host never waits for it."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        self.stopwatch = stopwatch
        self.marks: list[Mark] = []
        self.rounds: list[list[int]] = []
        """The steps of each settled round."""

    def mark(self) -> None:
        """The round begins, or one of its steps ends."""
        self.marks.append(self.stopwatch.mark())

    def settle(self) -> None:
        """Reads the marks since the last call as one round, which may have no steps."""
        self.stopwatch.settle()
        self.rounds.append([self.stopwatch.elapsed_ns(started, ended) for started, ended in pairwise(self.marks)])
        self.marks.clear()
        self.stopwatch.reuse()
