"""Switch Transformers as transformers runs it is right: top-1, and a capacity per sequence, first come, first served."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from tests.huggingface.small_models import small_model

Array = npt.NDArray[np.float64]


def plain(layer: Any, x_BLD: Array, capacity: int) -> tuple[Array, int]:
    """The output of a sparse layer in float64, token by token, and how many tokens found their expert full; these give zeros."""
    gate, y_BLD, dropped = layer.router.classifier.weight.double().numpy(), np.zeros_like(x_BLD), 0
    for sequence, x_LD in enumerate(x_BLD):
        taken = [0] * len(gate)
        for position, x_D in enumerate(x_LD):
            powers = np.exp(gate @ x_D - (gate @ x_D).max())
            expert = int(powers.argmax())
            taken[expert] += 1
            if taken[expert] > capacity:
                dropped += 1
                continue
            wi, wo = (getattr(layer.experts[f"expert_{expert}"], name).weight.double().numpy() for name in ("wi", "wo"))
            y_BLD[sequence, position] = powers.max() / powers.sum() * (wo @ np.maximum(wi @ x_D, 0))
    return y_BLD, dropped


@pytest.mark.parametrize(("capacity", "full"), [(64, False), (2, True)])
def test_every_sparse_layer_gives_what_a_plain_loop_gives(capacity: int, full: bool) -> None:
    model = small_model("switch_transformers", expert_capacity=capacity).requires_grad_(False)
    seen: list[tuple[Any, torch.Tensor, torch.Tensor]] = []
    for module in model.modules():
        if type(module).__name__ == "SwitchTransformersSparseMLP":
            module.register_forward_hook(lambda layer, inputs, output: seen.append((layer, inputs[0], output)))
    ids = torch.from_numpy(np.random.default_rng(0).integers(3, 300, (3, 12)))
    model(input_ids=ids, decoder_input_ids=ids[:, :9])
    dropped = 0
    for layer, x_BLD, y_BLD in seen:
        wanted, lost = plain(layer, x_BLD.double().numpy(), capacity)
        dropped += lost
        assert np.abs(wanted).max() > 1
        assert np.abs(y_BLD.double().numpy() - wanted).max() < 1e-6 * np.abs(wanted).max()
    assert len(seen) >= 2
    assert (dropped > 0) == full
