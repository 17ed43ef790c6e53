"""Records how the steps of buffered layers used and loaded experts, for the passes `routing`, `loads` and `slots`."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import pyarrow as pa
from torch import Tensor

from moeprof.instrument.probe import Probe, observed_by
from moeprof.instrument.step import Step
from moeprof.records.traces.expert_loads import COLUMNS, LayerLoads, Movement


class LayerStep(NamedTuple):
    """The expert loads of one layer in one step."""

    domain: str
    step: int
    layer: str
    visit: LayerLoads


class ExpertLoadRecorder(Probe):
    """Records the expert loads of layers in order; a layer names its step when it ends."""

    def __init__(self) -> None:
        self.visits: list[LayerStep] = []
        self.rounds: list[list[LayerStep]] = []
        """The records of every observed round."""
        self.last: LayerLoads | None = None
        """The loads of the layer that is running."""

    def visited(self, layer: str, visit: LayerLoads) -> None:
        self.last = visit

    def routed(self, layer: str, step: Step, experts_TK: Tensor, probs_TK: Tensor, dropped_TK: Tensor, num_rows: int) -> None:
        if self.last is not None:
            self.visits.append(LayerStep(step.domain, step.index, layer, self.last))
            self.last = None

    def moved(self, movements: Sequence[Movement]) -> None:
        """Adds what the ledger moved after the last layer had ended."""
        if self.visits:
            last = self.visits.pop()
            self.visits.append(last._replace(visit=last.visit._replace(movements=[*last.visit.movements, *movements])))

    def observing(self, play: Callable[[], object]) -> Callable[[], None]:
        """`play` as a round that this recorder observes."""

        def observed() -> None:
            self.visits = []
            self.rounds.append(self.visits)
            with observed_by(self):
                play()

        return observed


def loads_table(rank: int, phase: str, variant: str, point: str, visits: Iterable[LayerStep]) -> pa.Table:
    """The rows of `loads.parquet` that one rank recorded."""
    whose = {"phase": phase, "variant": variant, "point": point, "rank": rank}
    rows = [
        whose
        | {"domain": one.domain, "step": one.step, "layer": one.layer, "expert": use.expert, "hit": use.hit}
        | {"victim": use.victim, "bytes": use.num_bytes, "start_ns": use.start_ns, "end_ns": use.end_ns}
        for one in visits
        for use in one.visit.uses
    ]
    return pa.Table.from_pylist(rows, schema=COLUMNS)
