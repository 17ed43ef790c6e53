"""The experts of one layer of a model from elsewhere, executed as a Variant says: by their own class, or by our dispatch and kernels.

T tokens (padding included), K choices, E experts, D width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from moeprof.huggingface.adapters.adapter import CallChoices, Kept
from moeprof.huggingface.adapters.three_arguments import ThreeArguments
from moeprof.huggingface.capture import backend_of, by_weight
from moeprof.huggingface.experts import computed, expert_tensors, with_tensors
from moeprof.huggingface.our_kernels import Changed, ffn_of, for_kernels, tensor_names
from moeprof.huggingface.recipe import CAPACITY_FACTOR
from moeprof.huggingface.sites import Site
from moeprof.huggingface.slots import computed_in_slots
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
from moeprof.store.entry import EntryLayout
from moeprof.store.resident import ExpertWeights, ResidentStore

OWN = AS_DEPLOYED.dispatch
"""The dispatch of variants that leave the computation to the model's own class and backend."""


class ExpertsLayer(SparseLayer):
    """The experts of a site; their tensors stay where they are, and every variant without slots uses them there."""

    def __init__(self, site: Site, capacity_fraction: float | None = None) -> None:
        """`capacity_fraction` is C of a static dispatch, 1.25 K / E if absent. UsageError if such experts cannot be supported."""
        super().__init__(site.layer)
        self.experts, self.num_experts, self.capacity_fraction = site.experts, site.num_experts, capacity_fraction
        self.path = site.path
        if why := refusal(site):
            raise refused(self, why, "Leave out the optimizations; the model can be characterized.")
        self.names = tuple(expert_tensors(site.experts, site.num_experts))
        self.why_not_ours = ours_refusal(site.experts, self.names)
        if not self.why_not_ours:
            self.ffn = ffn_of(site.experts)
        self.real_T: Tensor | None = None
        """Which rows are tokens, (T,) bool; None if all are. Padding uses no experts in slots and none of our kernels."""
        self.dropped_TK: Tensor | None = None
        """The choices that the last call dropped, each token's by descending weight; None if the dispatch drops nothing."""
        self.num_rows = 0
        """The rows that the experts computed in the last call."""

    @property
    def weights(self) -> ExpertWeights:
        return ExpertWeights((name, getattr(self.experts, name)) for name in self.names)

    @property
    def parameter_paths(self) -> list[str]:
        """The names of the weights in the model, in their order."""
        return [f"{self.path}.{name}" for name in self.names]

    def weights_under(self, variant: Variant) -> ExpertWeights:
        weights = super().weights_under(variant)
        return weights if variant.dispatch == OWN else for_kernels(self.experts, weights)

    def use(self, variant: Variant | None) -> None:
        """Executes the experts as `variant` says from now on; None leaves their module as it was found.

        UsageError if our kernels cannot take these experts.
        """
        super().use(variant)
        vars(self.experts).pop("forward", None)
        if self.replaced:
            if variant is not None and variant.dispatch != OWN and self.why_not_ours:
                raise refused(self, self.why_not_ours, "Use the model's own backend.")
            vars(self.experts)["forward"] = self.forward

    @property
    def replaced(self) -> bool:
        """Whether the variant changes how the experts are executed; otherwise their module is as it was found."""
        return self.variant is not None and (self.variant.dispatch != OWN or self.store is not None)

    @property
    def backend(self) -> str:
        """What computes the experts now: the backend of their class, or one of our kernels."""
        if self.variant is None or self.variant.dispatch == OWN:
            return backend_of(self.experts)
        return f"moeprof {self.variant.kernel}"

    @torch.no_grad()
    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        """Outputs (T, D) of hidden states (T, D), expert ids (T, K) and weights (T, K), whatever the class calls them."""
        x_TD, experts_TK, weights_TK = *args, *kwargs.values()
        self.num_rows, self.dropped_TK = experts_TK.numel(), None
        if self.variant is not None and self.variant.dispatch != OWN:
            return self.ours(x_TD, experts_TK, weights_TK, self.variant)
        if isinstance(self.store, BufferedStore):
            real_TK = experts_TK if self.real_T is None else experts_TK.masked_fill(~self.real_T[:, None], self.num_experts)
            return computed_in_slots(self.experts, self.store, x_TD, real_TK, weights_TK, self.name)
        with region("experts", self.name):
            return computed(self.experts, x_TD, experts_TK, weights_TK)

    def ours(self, x_TD: Tensor, experts_TK: Tensor, weights_TK: Tensor, variant: Variant) -> Tensor:
        """Outputs (T, D) by the variant's dispatch and kernel."""
        capacity_fraction = self.capacity_fraction or CAPACITY_FACTOR * experts_TK.shape[1] / self.num_experts
        store = Changed(self.store or ResidentStore(self.weights), lambda weights: for_kernels(self.experts, weights))
        with region("dispatch", self.name):
            routing = self.routing(experts_TK, weights_TK, in_order=variant.dispatch_entry.capacity != "none")
            inputs_TD = x_TD.to(store.weights.first.dtype)
            dispatched = dispatch_function(variant.dispatch)(inputs_TD, routing, capacity_fraction, LOCAL)
        store.expect(dispatched.rows.offsets)
        outputs_RD = run_experts(KERNELS[variant.kernel], dispatched.rows, store, self.ffn, self.name)
        self.num_rows, self.dropped_TK = len(dispatched.rows.rows_RD), dispatched.dropped_TK
        with region("combine", self.name):
            return dispatched.combine(outputs_RD, 1.0).to(x_TD.dtype)

    def routing(self, experts_TK: Tensor, weights_TK: Tensor, *, in_order: bool) -> Routing:
        """The decisions that the experts were called with; `in_order`: first choices first, because later ones may be dropped."""
        if in_order:
            kept_TK = torch.full_like(experts_TK, Kept.ROUTED)
            experts_TK, weights_TK, _ = by_weight(CallChoices(experts_TK, weights_TK, kept_TK))
        return Routing(experts_TK, weights_TK.float(), self.real_T, self.num_experts, final=True)

    def require_sentinels(self) -> None:
        """UsageError if the loop of the class fails for ids that no expert has; other backends know them."""
        if backend_of(self.experts) != "eager":
            return
        layout = EntryLayout.of(self.weights)
        slotted = with_tensors(self.experts, layout.weights(layout.slab(1, "cpu")))
        x_TD = torch.ones(1, width(self.experts, self.weights), dtype=layout.dtype)
        try:
            sound = not computed(slotted, x_TD, torch.ones(1, 1, dtype=torch.int64), torch.zeros(1, 1)).any()
        except (RuntimeError, IndexError):
            sound = False
        if not sound:
            name = type(self.experts).__name__
            raise refused(
                self, f"the loop of {name} fails for experts that are in no slot", "Use --experts-backend grouped_mm."
            )


def refused(layer: ExpertsLayer, why: str, remedy: str) -> UsageError:
    """The error for a layer that cannot be executed in this way."""
    return UsageError(f"layer {layer.name} ({layer.path}): {why}", remedy)


def refusal(site: Site) -> str:
    """Why the experts of a site can only run as their model runs them; empty if they need not."""
    name, experts = type(site.experts).__name__, site.experts
    if not isinstance(site.adapter, ThreeArguments):
        return f"{name} is not called with hidden states, ids and weights of chosen experts"
    if site.num_zero:
        return f"{name} has {site.num_zero} experts without weights"
    if not expert_tensors(experts, site.num_experts):
        return f"{name} has no tensor with one part for each of its {site.num_experts} experts"
    if "forward" in vars(experts) or experts._compiled_call_impl is not None:
        return f"the forward function of {name} is replaced already, as by accelerate's hooks or torch.compile"
    if getattr(experts, "_is_expert_parallel", False):
        return f"{name} has only the experts of one rank"
    return ""


def ours_refusal(experts: nn.Module, names: Sequence[str]) -> str:
    """Why our kernels cannot take a module's experts; empty if they can."""
    name = type(experts).__name__
    if not (hasattr(experts, "has_gate") and hasattr(experts, "is_transposed")):
        return f"{name} does not say how its matrices are stored, because transformers' use_experts_implementation is not applied to it"
    if unknown := set(names) ^ set(tensor_names(experts).values()):
        return f"{name} has experts of other tensors than our kernels know: {', '.join(sorted(unknown))}"
    if not all(getattr(experts, one).is_floating_point() for one in names):
        return f"{name} has quantised experts"
    return ""


def width(experts: nn.Module, weights: ExpertWeights) -> int:
    """D, the width of the rows that the experts take."""
    return weights["down_proj"].shape[2 if getattr(experts, "is_transposed", False) else 1]


def experts_layers(sites: Sequence[Site], capacity_fraction: float | None = None) -> nn.ModuleList:
    """The layers of all sites, as one module in which passes and stores find them. UsageError if a site cannot be supported."""
    return nn.ModuleList(ExpertsLayer(site, capacity_fraction) for site in sites)
