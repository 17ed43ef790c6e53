"""Experts whose class is decorated by `use_experts_implementation`: the decorator leaves its choices on each instance."""

from torch import nn

from moeprof.huggingface.adapters.three_arguments import ThreeArguments


class Decorated(ThreeArguments):
    """The three arguments may have any names."""

    def recognises(self, module: nn.Module, block: nn.Module) -> bool:
        return all(hasattr(module, name) for name in ("has_gate", "is_transposed", "_apply_gate"))
