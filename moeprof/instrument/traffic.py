"""The instrument of the pass `traffic`: records every collective, round by round, and its step."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import pyarrow as pa
from torch import Tensor

from moeprof.instrument.probe import Probe, observed_by
from moeprof.instrument.step import Step
from moeprof.records.traces.traffic import COLUMNS


class Collective(NamedTuple):
    """One collective as this rank observed it."""

    domain: str
    step: int
    layer: str
    region: str
    to_bytes: tuple[int, ...]
    start_ns: int
    wait_ns: int
    end_ns: int


class TrafficRecorder(Probe):
    """Records collectives; a layer names their step when it ends."""

    def __init__(self) -> None:
        self.rounds: list[list[Collective]] = []
        self.exchanges: list[tuple[str, str, Sequence[int], int, int, int]] = []
        """The collectives of the layer that is running."""

    def exchanged(self, region: str, layer: str, to_bytes: Sequence[int], start_ns: int, wait_ns: int, end_ns: int) -> None:
        self.exchanges.append((region, layer, to_bytes, start_ns, wait_ns, end_ns))

    def routed(self, layer: str, step: Step, experts_TK: Tensor, probs_TK: Tensor, dropped_TK: Tensor, num_rows: int) -> None:
        for region, where, to_bytes, *times_ns in self.exchanges:
            self.rounds[-1].append(Collective(step.domain, step.index, where, region, tuple(to_bytes), *times_ns))
        self.exchanges.clear()

    def observing(self, play: Callable[[], object]) -> Callable[[], None]:
        """`play` as a round that this recorder observes."""

        def observed() -> None:
            self.rounds.append([])
            with observed_by(self):
                play()

        return observed


def traffic_table(rank: int, phase: str, variant: str, episodes: Iterable[Sequence[Sequence[Collective]]]) -> pa.Table:
    """The rows of one rank; `episodes` are the rounds of every episode, in order. All ranks number the collectives alike."""
    numbered = [(index, one) for rounds in episodes for index, collectives in enumerate(rounds) for one in collectives]
    whose = {"phase": phase, "variant": variant, "point": "", "rank": rank, "source": rank}
    rows = [
        whose | one._asdict() | {"round": index, "op_id": op_id, "destination": destination, "bytes": size}
        for op_id, (index, one) in enumerate(numbered)
        for destination, size in enumerate(one.to_bytes)
    ]
    return pa.Table.from_pylist(rows, schema=COLUMNS)
