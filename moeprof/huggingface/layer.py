"""The experts of one layer of a model from elsewhere, executed as a Variant says: by their own class, or by our dispatch and kernels.

T tokens (padding included), K choices, E experts, D width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from moeprof.huggingface.adapters.adapter import CallChoices, Kept
from moeprof.huggingface.capture import backend_of, by_weight
from moeprof.huggingface.our_kernels import Changed
from moeprof.huggingface.recipe import CAPACITY_FACTOR
from moeprof.huggingface.sites import Site
from moeprof.huggingface.slots import computed_in_slots
from moeprof.huggingface.stack import ExpertStack, Received, TensorPlace
from moeprof.instrument.probe import region
from moeprof.moe.dispatch import dispatch_function
from moeprof.moe.exchange import LOCAL
from moeprof.moe.experts import run_experts
from moeprof.moe.kernels import KERNELS
from moeprof.moe.routing import Routing
from moeprof.moe.sparse_layer import SparseLayer
from moeprof.records.errors import UsageError
from moeprof.records.recipe.variant import OWN as AS_DEPLOYED
from moeprof.records.recipe.variant import Variant
from moeprof.store.buffered import BufferedStore
from moeprof.store.offloaded import OffloadedStore
from moeprof.store.resident import ExpertWeights, ResidentStore

OWN = AS_DEPLOYED.dispatch
"""The dispatch of variants that leave the computation to the model's own class and backend."""


class ExpertsLayer(SparseLayer):
    """The experts of a site; there is one copy of their tensors, which every variant without slots uses."""

    def __init__(self, site: Site, capacity_fraction: float | None = None) -> None:
        """`capacity_fraction` is C of a static dispatch, 1.25 K / E if absent. UsageError if such experts cannot be supported."""
        super().__init__(site.layer)
        self.experts, self.num_experts, self.capacity_fraction = site.experts, site.num_experts, capacity_fraction
        self.path, self.stack = site.path, supported(site)
        self.router, self.top_k = site.router, site.top_k
        self.why_not_ours = self.stack.ours_refusal()
        if not self.why_not_ours:
            self.ffn = self.stack.ffn
        self.real_T: Tensor | None = None
        """Which rows are tokens, (T,) bool; None if all are. Padding uses no experts in slots and none of our kernels."""
        self.dropped_TK: Tensor | None = None
        """The choices that the last call dropped, each token's by descending weight; None if the dispatch drops nothing."""
        self.num_rows = 0
        """The rows that the experts computed in the last call."""

    @property
    def weights(self) -> ExpertWeights:
        return self.stack.weights

    def foreseen(self, x_TD: Tensor) -> tuple[Tensor, Tensor] | None:
        if self.router is None or self.top_k is None:
            return None
        scores_TE = self.router.recorded(self.router.module.forward(x_TD))[:, : self.num_experts]
        weights_TK, experts_TK = scores_TE.softmax(dim=1).topk(self.top_k)
        return experts_TK, weights_TK

    def place(self, name: str, expert: int) -> TensorPlace:
        """Where a tensor of an expert is in the model."""
        found = self.stack.place(name, expert)
        return found._replace(parameter=f"{self.path}.{found.parameter}")

    @property
    def parameter_paths(self) -> list[str]:
        """The names in the model of the parameters that hold the weights."""
        return [f"{self.path}.{name}" for name in self.stack.parameter_names]

    def for_kernels(self, weights: ExpertWeights) -> ExpertWeights:
        return self.stack.for_kernels(weights)

    def weights_under(self, variant: Variant) -> ExpertWeights:
        weights = super().weights_under(variant)
        return weights if variant.dispatch == OWN else self.for_kernels(weights)

    def use(self, variant: Variant | None) -> None:
        """Executes the experts as `variant` says from now on; None leaves their module as it was found.

        UsageError if our kernels cannot take these experts.
        """
        super().use(variant)
        vars(self.experts).pop("forward", None)
        if self.ours and self.why_not_ours:
            raise refused(self, self.why_not_ours, "Use the model's own backend.")
        if self.replaced:
            vars(self.experts)["forward"] = self.forward

    @property
    def ours(self) -> Variant | None:
        """The variant, if it executes the experts by our dispatch and kernels; None if their own class does."""
        return None if self.variant is None or self.variant.dispatch == OWN else self.variant

    @property
    def replaced(self) -> bool:
        """Whether the variant changes how the experts are executed; otherwise their module is as it was found."""
        return self.ours is not None or self.store is not None

    @property
    def backend(self) -> str:
        """What computes the experts now: the backend of their class, or one of our kernels."""
        return f"moeprof {self.ours.kernel}" if self.ours else backend_of(self.experts)

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Outputs (T, D) of a call of the experts' module, as the variant executes them."""
        call, self.dropped_TK = self.stack.received(args, kwargs), None
        used_T = call.used_T if self.real_T is None else self.real_T if call.used_T is None else self.real_T & call.used_T
        if self.ours:
            return self.by_our_kernels(call._replace(used_T=used_T), self.ours)
        if not isinstance(self.store, BufferedStore):
            return self.stack.computed(call.x_TD, sentinels(call, call.used_T, self.num_experts), call.weights_TK)
        self.num_rows = call.experts_TK.numel() if used_T is None else int(used_T.sum()) * call.experts_TK.shape[1]
        experts_TK = sentinels(call, used_T, self.num_experts)
        return computed_in_slots(self.stack, self.store, call.x_TD, experts_TK, call.weights_TK, self.name)

    def by_our_kernels(self, call: Received, variant: Variant) -> Tensor:
        """Outputs (T, D) by the variant's dispatch and kernel."""
        capacity_fraction = self.capacity_fraction or CAPACITY_FACTOR * call.experts_TK.shape[1] / self.num_experts
        store = Changed(self.store or ResidentStore(self.weights), self.for_kernels)
        with region("dispatch", self.name):
            routing = self.routing(call, in_order=variant.dispatch_entry.capacity != "none")
            inputs_TD = call.x_TD.to(store.weights.first.dtype)
        if isinstance(self.store, OffloadedStore):
            self.store.consider(call.x_TD, routing.queues(), routing.weights(), self.num_experts)
        with region("dispatch", self.name):
            dispatched = dispatch_function(variant.dispatch)(inputs_TD, routing, capacity_fraction, LOCAL)
        store.expect(dispatched.rows.offsets)
        outputs_RD = run_experts(KERNELS[variant.kernel], dispatched.rows, store, self.ffn, self.name)
        self.num_rows, self.dropped_TK = len(dispatched.rows.rows_RD), dispatched.dropped_TK
        with region("combine", self.name):
            return dispatched.combine(outputs_RD, 1.0).to(call.x_TD.dtype)

    def routing(self, call: Received, *, in_order: bool) -> Routing:
        """The decisions that the experts were called with; `in_order`: first choices first, because later ones may be dropped."""
        experts_TK, weights_TK = call.experts_TK, call.weights_TK
        if in_order:
            kept_TK = torch.full_like(experts_TK, Kept.ROUTED)
            experts_TK, weights_TK, _ = by_weight(CallChoices(experts_TK, weights_TK, kept_TK))
        return Routing(experts_TK, weights_TK.float(), call.used_T, self.num_experts, final=True)

    def require_sentinels(self) -> None:
        """UsageError if the loop of the class fails for ids that no expert has; other backends know them."""
        if backend_of(self.experts) == "eager" and not self.stack.takes_sentinels():
            what = f"the loop of {self.stack.kind} fails for experts that are in no slot"
            raise refused(self, what, "Use --experts-backend grouped_mm.")


def sentinels(call: Received, used_T: Tensor | None, num_experts: int) -> Tensor:
    """The ids (T, K) of a call, E where a row reaches no expert."""
    return call.experts_TK if used_T is None else call.experts_TK.masked_fill(~used_T[:, None], num_experts)


def refused(layer: Site | ExpertsLayer, why: str, remedy: str) -> UsageError:
    """The error for a layer that cannot be executed in this way."""
    name = layer.name if isinstance(layer, ExpertsLayer) else layer.layer
    return UsageError(f"layer {name} ({layer.path}): {why}", remedy)


def supported(site: Site) -> ExpertStack:
    """The experts of a site as variants execute them; UsageError if they can only run as their model runs them."""
    name, experts, stack = type(site.experts).__name__, site.experts, site.stack
    remedy = "Leave out the optimizations; the model can be characterized."
    if stack is None:
        raise refused(site, f"{name} is not called with hidden states, ids and weights of chosen experts", remedy)
    if site.num_zero:
        raise refused(site, f"{name} has {site.num_zero} experts without weights", remedy)
    if "forward" in vars(experts) or experts._compiled_call_impl is not None:
        what = f"the forward function of {name} is replaced already, as by accelerate's hooks or torch.compile"
        raise refused(site, what, remedy)
    if why := stack.refusal():
        raise refused(site, why, remedy)
    return stack


def experts_layers(sites: Sequence[Site], capacity_fraction: float | None = None) -> nn.ModuleList:
    """The layers of all sites, as one module in which passes and stores find them. UsageError if a site cannot be supported."""
    return nn.ModuleList(ExpertsLayer(site, capacity_fraction) for site in sites)
