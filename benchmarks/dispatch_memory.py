"""What one MoE layer's dispatch takes in bytes: how it grows with the tokens, and what dynamic gating saves at a large shape.

Meta tensors: nothing is allocated, nothing is computed.

python benchmarks/dispatch_memory.py [RECIPE] [--tokens N]
"""

import argparse
from collections.abc import Sequence

import numpy as np
import torch

from moeprof.instrument.memory import MemoryTracker
from moeprof.instrument.step import Step
from moeprof.moe.dispatch import dispatch_function
from moeprof.moe.dispatch.static import MaskedDispatched
from moeprof.moe.exchange import LOCAL
from moeprof.moe.layer import MoELayer
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import Variant
from moeprof.records.units import format_bytes

SIZES = [320 * 2**power for power in range(6)]
VARIANTS = (Variant("static"), Variant("tutel"), Variant("dynamic", "grouped_mm"))


def main() -> None:
    """Prints slopes and bytes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", nargs="?", default="lm-15b")
    parser.add_argument("--tokens", type=int, default=4096)
    arguments = parser.parse_args()
    recipe = load_recipe(arguments.recipe)
    print(f"{recipe.name}, S = {', '.join(map(str, SIZES))}: log-log slopes of bytes over tokens")
    dispatched = {variant.label: [dispatched_bytes(recipe, variant, size) for size in SIZES] for variant in VARIANTS}
    print(f"  {'static, the mask':<24} {slope([mask for _, mask in dispatched['static']]):.4f}")
    for label, sizes in dispatched.items():
        print(f"  {label + ', all of it':<24} {slope([whole for whole, _ in sizes]):.4f}")
    print(f"{recipe.name}, S = {arguments.tokens}: most dispatch bytes of one layer at once")
    peaks = {variant.label: layer_bytes(recipe, variant, arguments.tokens) for variant in VARIANTS}
    for label, peak in peaks.items():
        print(f"  {label:<24} {format_bytes(peak):>10}  {peak / peaks['static'] - 1:+.2%}")


def slope(sizes: Sequence[int]) -> float:
    """Of a straight line through the logarithms."""
    return float(np.polyfit(np.log(SIZES), np.log(sizes), 1)[0])


def meta_layer(recipe: Recipe) -> MoELayer:
    """A layer without values, in the recipe's dtype."""
    with torch.device("meta"):
        layer = MoELayer("1", recipe).to(getattr(torch, recipe.model.dtype)).requires_grad_(False)
        layer.router.float()
    return layer


def meta_tokens(recipe: Recipe, num_tokens: int) -> torch.Tensor:
    """(T, D) without values."""
    return torch.empty(num_tokens, recipe.own_model.dim, dtype=getattr(torch, recipe.own_model.dtype), device="meta")


def dispatched_bytes(recipe: Recipe, variant: Variant, num_tokens: int) -> tuple[int, int]:
    """Live bytes that the dispatch of so many tokens leaves, and those of the mask among them."""
    layer, x_TD = meta_layer(recipe), meta_tokens(recipe, num_tokens)
    with torch.inference_mode():
        routing = layer.router(x_TD, Step(None))
        tracker = MemoryTracker(layer)
        with tracker.observing():
            dispatched = dispatch_function(variant.dispatch)(x_TD, routing, recipe.gating.capacity_fraction, LOCAL)
    return tracker.bytes.total, dispatched.combine_weights_TR.nbytes if isinstance(dispatched, MaskedDispatched) else 0


def layer_bytes(recipe: Recipe, variant: Variant, num_tokens: int) -> int:
    """Peak of dispatch buffers of the whole layer."""
    layer, x_TD = meta_layer(recipe), meta_tokens(recipe, num_tokens)
    layer.variant = variant
    tracker = MemoryTracker(layer)
    with torch.inference_mode(), tracker.observing():
        layer(x_TD, Step(None))
    return tracker.bytes.by_category["dispatch_buffers"]


if __name__ == "__main__":
    main()
