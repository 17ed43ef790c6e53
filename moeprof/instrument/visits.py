"""Keeps what the steps of buffered layers did with experts, for the passes `routing` and `loads`."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import pyarrow as pa
from torch import Tensor

from moeprof.instrument.probe import Probe, observed_by
from moeprof.instrument.step import Step
from moeprof.records.traces.expert_loads import COLUMNS, LayerLoads


class LayerStep(NamedTuple):
    """One, and where it belongs."""

    domain: str
    step: int
    layer: str
    visit: LayerLoads


class ExpertLoadRecorder(Probe):
    """Keeps visits in order; a layer names the step they belong to when it has come to its end."""

    def __init__(self) -> None:
        self.visits: list[LayerStep] = []
        self.rounds: list[list[LayerStep]] = []
        """Those of rounds that were observed as such."""
        self.last: LayerLoads | None = None
        """Of the layer at work."""

    def visited(self, layer: str, visit: LayerLoads) -> None:
        self.last = visit

    def routed(self, layer: str, step: Step, experts_TK: Tensor, probs_TK: Tensor, dropped_TK: Tensor, num_rows: int) -> None:
        if self.last is not None:
            self.visits.append(LayerStep(step.domain, step.index, layer, self.last))
            self.last = None

    def observing(self, play: Callable[[], object]) -> Callable[[], None]:
        """`play` as a round that this recorder looks at."""

        def observed() -> None:
            self.visits = []
            self.rounds.append(self.visits)
            with observed_by(self):
                play()

        return observed


def loads_table(rank: int, phase: str, variant: str, point: str, visits: Iterable[LayerStep]) -> pa.Table:
    """The rows of one rank."""
    whose = {"phase": phase, "variant": variant, "point": point, "rank": rank}
    rows = [
        whose
        | {"domain": one.domain, "step": one.step, "layer": one.layer, "expert": use.expert, "hit": use.hit}
        | {"victim": use.victim, "bytes": use.num_bytes, "start_ns": use.start_ns, "end_ns": use.end_ns}
        for one in visits
        for use in one.visit.uses
    ]
    return pa.Table.from_pylist(rows, schema=COLUMNS)
