"""The experts of a model as moeprof's kernels take them, through the module's own gate, activation and norm.

P physical experts (all, or the cache slots), F hidden width.
"""

from collections.abc import Callable, Iterator
from typing import Any, cast

from torch import Tensor, nn

from moeprof.moe.experts import FFN, Product
from moeprof.records.ffn.form import Matrix, narrowing, widening
from moeprof.store.resident import ExpertWeights, Offsets, Store, Wave

UP, DOWN = Matrix("up", "up_bias", widening), Matrix("down", "down_bias", narrowing)
"""The first matrix has 2F outputs if it holds the gate too."""


def tensor_names(experts: nn.Module) -> dict[str, str]:
    """The names of a decorated module's tensors, by those that kernels know them by."""
    module = cast("Any", experts)
    names = {UP.name: "gate_up_proj" if module.has_gate else "up_proj", DOWN.name: "down_proj"}
    biases = {UP.bias: f"{names[UP.name]}_bias", DOWN.bias: "down_proj_bias"}
    return names | biases if module.has_bias else names


def for_kernels(experts: nn.Module, weights: ExpertWeights) -> ExpertWeights:
    """Views of the tensors as kernels take them, matrices (P, inputs, outputs); nothing is copied."""
    module = cast("Any", experts)
    views = ExpertWeights((name, weights[own]) for name, own in tensor_names(experts).items())
    return views.map(lambda whole: whole.mT if whole.dim() == 3 and not module.is_transposed else whole)


def ffn_of(experts: nn.Module) -> FFN:
    """The FFN of a decorated module; its gate takes both factors as the module stores them, interleaved or one after the other."""
    module = cast("Any", experts)
    gate = module._apply_gate if module.has_gate else module.act_fn
    normed = getattr(module, "has_post_expert_norm", False)  # transformers before 5.20 does not say it, and has no such norm

    def ffn(rows: Tensor, product: Product) -> Tensor:
        outputs = product(gate(product(rows, UP)), DOWN)
        return cast("Tensor", module.post_expert_norm(outputs) if normed else outputs)

    return ffn


class Changed:
    """A store whose waves have their weights changed, without a copy, on the way to the kernel."""

    def __init__(self, store: Store, change: Callable[[ExpertWeights], ExpertWeights]) -> None:
        self.store, self.change = store, change
        self.weights = change(store.weights)

    def expect(self, offsets: Offsets) -> None:
        """Passes the bounds on."""
        self.store.expect(offsets)

    def waves(self) -> Iterator[Wave]:
        """The same waves with changed weights."""
        for wave in self.store.waves():
            yield wave if wave.weights is None else wave._replace(weights=self.change(wave.weights))
