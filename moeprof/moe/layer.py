"""The MoE layer: router, dispatch, experts and combine, executed as a Variant says, with an exchange around the experts.

T tokens, D width, E experts, K choices, N ranks.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from moeprof.instrument.memory import key_of
from moeprof.instrument.probe import active, region
from moeprof.instrument.step import Step
from moeprof.moe.dispatch import Dispatched, dispatch_function
from moeprof.moe.exchange import exchange_of
from moeprof.moe.experts import Experts, make_ffn, run_experts
from moeprof.moe.kernels import KERNELS
from moeprof.moe.physical_experts import PhysicalExperts
from moeprof.moe.reference import reference_layer
from moeprof.moe.router import ROUTERS, ForcedDecisions, best
from moeprof.moe.routing import Routing
from moeprof.moe.sparse_layer import SparseLayer, sparse_layers
from moeprof.parallel.group import ALONE, Group
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import STATIC, Variant
from moeprof.store.offloaded import OffloadedStore
from moeprof.store.resident import ExpertWeights, ResidentStore
from moeprof.store.slots import SLOT_STORES


class MoELayer(SparseLayer):
    """One sparse FFN; the same weights run under every variant."""

    def __init__(self, name: str, recipe: Recipe) -> None:
        super().__init__(name)
        model, gating = recipe.own_model, recipe.gating
        self.capacity_fraction = gating.capacity_fraction
        self.scale = 1.0 - model.expert_output_masking
        self.ffn = make_ffn(model.ffn_form, model.activation)
        self.router = ROUTERS[recipe.family.router](
            name, model.dim, model.experts, gating.top_k, normalize_before_dropping=gating.normalize_before_dropping
        )
        self.experts = Experts(model.experts // recipe.parallel.ranks, model.ffn_shapes)
        self.variant = STATIC
        self.placement: PhysicalExperts | None = None
        """Which rank holds which experts; None means E / N consecutive experts each."""
        self.placements: dict[Variant, PhysicalExperts] = {}
        """The placements of variants that have their own; the stores of these variants hold the experts."""
        self.group = ALONE

    def use(self, variant: Variant | None) -> None:
        """Executes the layer as `variant` says from now on; None selects the dropless reference layer."""
        super().use(variant)
        self.placement = None if variant is None else self.placements.get(variant)

    def place(self, variant: Variant, ranks: Sequence[Sequence[int]]) -> PhysicalExperts:
        """Assigns these experts to the ranks under `variant`, whose store must hold the experts of this rank."""
        num_experts, device = len(self.router.weight), self.router.weight.device.type
        self.placements[variant] = PhysicalExperts(ranks, num_experts, self.group.rank, device)
        return self.placements[variant]

    def forward(self, x_TD: Tensor, step: Step) -> Tensor:
        with region("gate", self.name):
            decided = None if self.forecast is None else self.forecast.decided(self.name, step)
            routing = self.router(x_TD, step) if decided is None else self.router.routing(*decided, step)
        if self.variant is None:
            return reference_layer(x_TD, routing, self.experts.weights, self.ffn, self.scale)
        store = self.store or ResidentStore(self.experts.weights)
        if isinstance(store, OffloadedStore):
            store.consider(x_TD, routing.queues(), routing.weights(), routing.num_experts)
        exchange = exchange_of(self.name, self.group)
        with region("dispatch", self.name):
            physical = routing if self.placement is None else self.placement.routed(routing, step.index)
            dispatched = dispatch_function(self.variant.dispatch)(x_TD, physical, self.capacity_fraction, exchange)
        rows, return_outputs = exchange.send_to_experts(dispatched.rows, store.expect)
        outputs_RD = return_outputs(run_experts(KERNELS[self.variant.kernel], rows, store, self.ffn, self.name))
        with region("combine", self.name):
            y_TD = dispatched.combine(outputs_RD, self.scale)
        self.report(step, routing, dispatched)
        return y_TD

    @property
    def weights(self) -> ExpertWeights:
        return self.experts.weights

    def foreseen(self, x_TD: Tensor) -> tuple[Tensor, Tensor]:
        gates_TE = self.router.gates(x_TD)
        experts_TK = best(gates_TE, self.router.top_k)
        return experts_TK, gates_TE.gather(1, experts_TK)

    def report(self, step: Step, routing: Routing, dispatched: Dispatched) -> None:
        """Gives the active probe, if any, the decisions, what was dropped, and the number of rows."""
        if (probe := active()) is not None:
            nothing = torch.zeros_like(routing.experts_TK, dtype=torch.bool)
            dropped_TK = nothing if dispatched.dropped_TK is None else dispatched.dropped_TK
            probe.routed(self.name, step, routing.experts_TK, routing.probs_TK, dropped_TK, len(dispatched.rows.rows_RD))


def moe_layers(model: nn.Module) -> list[MoELayer]:
    """The MoE layers of a model, encoder first."""
    return [module for module in model.modules() if isinstance(module, MoELayer)]


def use_variant(model: nn.Module, variant: Variant | None) -> None:
    """Executes every layer of experts as `variant` says; None selects the dropless reference layer, or the model's own way."""
    for layer in sparse_layers(model):
        layer.use(variant)


def static_tensors(model: nn.Module, variant: Variant) -> dict[str, list[Tensor]]:
    """The tensors that a variant keeps on the device, by category; a store's weights replace the experts of its layer.

    Replicas in layers that a later phase will place count already, as tensors without memory.
    """
    layers = sparse_layers(model)
    behind = [layer for layer in layers if variant in layer.stores]
    coming = [
        whole.new_empty(variant.replicas, *whole.shape[1:], device="meta")
        for layer in layers
        if layer not in behind
        for whole in layer.weights.values()
    ]
    absent = {key_of(whole) for layer in behind for whole in layer.weights.values()}
    kept = [tensor for tensor in (*model.parameters(), *model.buffers()) if key_of(tensor) not in absent]
    found: dict[str, list[Tensor]] = {"weights": [*kept, *coming], "expert_slots": []}
    for layer in behind:
        store = layer.stores[variant]
        found["weights"] += layer.forecasts[variant].parameters if variant in layer.forecasts else []
        if isinstance(store, SLOT_STORES):
            found["expert_slots"] += store.slots
        else:
            found["weights"] += store.weights.values()
    return found


def connect(model: nn.Module, group: Group) -> None:
    """Makes every MoE layer exchange rows with the other ranks of `group`, each of which holds its own experts."""
    for layer in moe_layers(model):
        layer.group = group


def force_routing(model: nn.Module, forced: ForcedDecisions | None) -> None:
    """Replaces the decisions of every router by `forced`; None restores them."""
    for layer in moe_layers(model):
        layer.router.forced = forced
