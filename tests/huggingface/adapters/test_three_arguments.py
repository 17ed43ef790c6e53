"""Experts without the decorator are found by the names of their arguments."""

import pytest
import torch

from moeprof.huggingface.sites import find_sites
from tests.huggingface.architectures import build
from tests.huggingface.forward import captured
from tests.huggingface.small_models import TOP_K


@pytest.mark.parametrize(("architecture", "expert_bytes"), [("dbrx", 3 * 32 * 48 * 4), ("step3p7", 3 * 32 * 16 * 4)])
def test_choices_are_those_of_the_router(architecture: str, expert_bytes: int) -> None:
    """dbrx takes the softmax, step3p7 sigmoids; both divide the largest by their sum."""
    model = build(architecture)
    assert {site.expert_bytes for site in find_sites(model)} == {expert_bytes}
    _, calls = captured(model, scores=True)
    for call in calls:
        assert call.recorded_TC is not None
        scores_TE = call.recorded_TC.softmax(dim=1) if architecture == "dbrx" else call.recorded_TC.sigmoid()
        weights_TK, experts_TK = scores_TE.topk(TOP_K, dim=1)
        assert torch.equal(call.experts_TK, experts_TK)
        torch.testing.assert_close(call.weights_TK, weights_TK / weights_TK.sum(dim=1, keepdim=True))
