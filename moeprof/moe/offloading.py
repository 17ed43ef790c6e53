"""An offloading system on a model: its slots, its predictions, and what its store learns of a router's decisions.

T tokens, D width, E experts, K choices.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from moeprof.moe.far_side import FarSide
from moeprof.moe.forecast import Forecast
from moeprof.moe.kernels.auto import KernelCost, auto
from moeprof.moe.sparse_layer import SparseLayer
from moeprof.policies.offloading.decisions import Arrangement, OffloadingDecisions, planner_of
from moeprof.policies.offloading.demands import Demands, demands_of
from moeprof.policies.offloading.foresight import foresight_of
from moeprof.policies.offloading.planner import HIGH, Demand
from moeprof.policies.offloading.split import LinearTime, SplitCosts, split_experts
from moeprof.records.recipe.offloading import Offloading
from moeprof.store.entry import EntryLayout
from moeprof.store.host_memory import HostMemory
from moeprof.store.ledger import Ledger
from moeprof.store.offload import Form, Offload

if TYPE_CHECKING:
    from moeprof.policies.offloading.order import LoadOrder

TRIALS, MANY = 5, 64
"""Repetitions of a measurement, and the rows of the larger one."""

SOME = 4
"""Experts with which computation is measured."""


class Lookahead:
    """HOBBIT: the routers of the next layers decide on the rows of this one, whose residual stream they will see later."""

    def __init__(self, layers: Sequence[SparseLayer], depth: int, demands: Demands) -> None:
        self.layers, self.depth, self.demands = layers, depth, demands
        self.history: dict[int, Any] = {}

    def hints(self, layer: int, demands: Sequence[Demand], x_TD: Any = None) -> Iterator[tuple[int, list[Demand]]]:
        """What each of the next layers of the same step would use, at the precision that the rule would load."""
        for target in range(layer + 1, min(layer + 1 + self.depth, len(self.layers))):
            if (found := self.layers[target].foreseen(x_TD)) is not None:
                experts_TK, weights_TK = found[0].cpu().numpy(), found[1].double().cpu().numpy()
                yield target, self.demands(experts_TK, weights_TK, self.layers[target].weights.num_experts)


def arrangement_of(
    choice: Offloading, slots: int, layer: SparseLayer, forms: Mapping[str, Form], ledger: Ledger
) -> Arrangement | None:
    """The order of a system, with times that are measured now on one layer; None if experts are taken by id."""
    if choice.order == "index":
        return None
    cost = expert_cost(layer, forms[HIGH], ledger)
    load_ns = {name: load_time(layer, form, ledger) for name, form in forms.items()}
    return Arrangement(cast("LoadOrder", choice.order), slots, load_ns, cost.call_ns + cost.expert_ns, cost.row_ns)


def expert_cost(layer: SparseLayer, form: Form, ledger: Ledger) -> KernelCost:
    """What computing experts of the first layer of a form costs, one after another."""
    layout = form.layouts[0]
    return auto.calibrated(layer.for_kernels(layout.weights(layout.slab(SOME, ledger.device))), layer.ffn)["loop"]


def load_time(layer: SparseLayer, form: Form, ledger: Ledger) -> float:
    """Time to load an expert of the first layer of a form, nanoseconds."""
    return measured(ledger, partial(form.source.read, layer.name, 0, form.layouts[0].slab(1, ledger.device)[0]))


def measured(ledger: Ledger, work: Callable[[], object]) -> float:
    """Median time of some work, nanoseconds, after a first time that does not count."""
    work()
    times = []
    for _ in range(TRIALS):
        started = ledger.clock()
        work()
        times.append(ledger.clock() - started)
    return float(np.median(times))


class ColdExperts:
    """MoNDE: experts are moved or computed on the far side so that the busier side is done as early as possible."""

    def __init__(self, side: FarSide, layer: SparseLayer, form: Form, ledger: Ledger) -> None:
        """Measures what a load and a computation cost on this side, and an answer of the far one, on a layer."""
        self.side, layout = side, form.layouts[0]
        cost = expert_cost(layer, form, ledger)
        one_ns, many_ns = (measured(ledger, partial(self.answer, layer, layout, rows)) for rows in (1, MANY))
        self.costs = SplitCosts(
            link=LinearTime(fixed=load_time(layer, form, ledger)),
            near=LinearTime(cost.call_ns + cost.expert_ns, cost.row_ns),
            far=LinearTime(one_ns, max(many_ns - one_ns, 0) / (MANY - 1)),
            activations=LinearTime(),
        )

    def answer(self, layer: SparseLayer, layout: EntryLayout, num_rows: int) -> None:
        """Has the far side compute some rows of one expert."""
        first = next(iter(layout.tensors))
        self.side.begin(layer.name, [0], torch.zeros(num_rows, layout.tensors[first][0], dtype=layout.dtype), [num_rows])
        self.side.outputs()

    def chosen(self, demands: Sequence[Demand], loads: Sequence[bool], rows: Sequence[int]) -> set[int]:
        """The experts that the far side computes; what is resident stays near."""
        rows_E, resident_E = np.array(rows, np.int64), ~np.array(loads, bool)
        near_E, far_E = self.costs.near_times(rows_E, 0, resident_E), self.costs.far_times(rows_E, 0)
        split = split_experts(near_E, far_E, rows_E, resident_E)
        return {one.expert for one, far in zip(demands, split.far_E, strict=True) if far}

    def begin(self, layer: str, experts: Sequence[int], rows_ND: Tensor, counts: Sequence[int]) -> None:
        """Sends the rows of these experts."""
        self.side.begin(layer, experts, rows_ND, counts)

    def outputs(self) -> Tensor:
        """Waits for the outputs of the rows that were sent last, (N, D)."""
        return self.side.outputs()


def offload_of(
    choice: Offloading,
    slots: int,
    layers: Sequence[SparseLayer],
    forms: Mapping[str, Form],
    ledger: Ledger,
    side: FarSide | None = None,
    memory: HostMemory | None = None,
    forecast: Forecast | None = None,
) -> Offload:
    """The slots of some layers, in order of execution, under a system with the bytes of `slots` experts per layer.

    `side` has the experts of these layers if the system computes cold ones there; the sources of the forms read through `memory`;
    `forecast` predicts experts if the system has a predictor.
    """
    demands = demands_of(choice)
    sizes = [{name: form.layouts[index].entry_bytes for name, form in forms.items()} for index in range(len(layers))]
    planner = planner_of(choice, slots, sizes, max(layer.weights.num_experts for layer in layers))
    far = None if side is None else ColdExperts(side, layers[0], forms[HIGH], ledger)
    names = [layer.name for layer in layers]
    arrange = arrangement_of(choice, planner.capacities[HIGH], layers[0], forms, ledger)
    lookahead = Lookahead(layers, choice.depth, demands) if choice.foresight == "lookahead" else None
    foresight = foresight_of(choice, [layer.weights.num_experts for layer in layers], forecast or lookahead)
    decisions = OffloadingDecisions(planner, demands, foresight, arrange, None if far is None else far.chosen)
    return Offload(names, decisions, forms, ledger, far, memory, choice.preload)
