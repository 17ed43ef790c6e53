"""Choosing to skip the experts of Zaya is no choice of expert 0."""

import pytest
import torch

from moeprof.huggingface.capture import Call
from moeprof.huggingface.sites import find_sites
from moeprof.huggingface.tally import Tally, expert_counts, tally
from tests.huggingface.architectures import build
from tests.huggingface.forward import TOKENS_BL, captured

ROWS = TOKENS_BL.numel()


@pytest.mark.parametrize(("bias", "skipped"), [(10.0, ROWS), (-10.0, 0)])
def test_skipped_tokens_are_those_that_the_router_sends_to_its_last_class(bias: float, skipped: int) -> None:
    model = build("zaya")
    for name, buffer in model.named_buffers():
        if name.endswith("balancing_biases"):
            buffer[-1] = bias
    _, calls = captured(model)
    for call in calls:
        assert tally(call) == Tally(ROWS - skipped, padding=0, skipped=skipped, zero_compute=0, dropped=0, sentinel=0)
        assert int(expert_counts(call).sum()) == ROWS - skipped


def test_a_weight_of_zero_is_a_choice_where_no_router_can_skip() -> None:
    """A softmax in half precision may be zero."""
    (site, *_) = find_sites(build("mixtral"))
    call = Call(site, (torch.tensor([[0, 3]]), torch.tensor([[0.0, 0.0]])), "eager", None)
    assert tally(call).routed == 2
