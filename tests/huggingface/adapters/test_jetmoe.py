"""JetMoE sorts choices by expert; they are put back to their tokens."""

import torch

from moeprof.huggingface.sites import find_sites
from tests.huggingface.architectures import build
from tests.huggingface.forward import captured
from tests.huggingface.small_models import TOP_K


def test_choices_are_the_largest_logits_of_each_token() -> None:
    _, calls = captured(build("jetmoe"), scores=True)
    assert calls
    for call in calls:
        assert call.recorded_TC is not None
        logits_TK, experts_TK = call.recorded_TC.topk(TOP_K, dim=1)
        assert torch.equal(call.experts_TK, experts_TK)
        torch.testing.assert_close(call.weights_TK, logits_TK.softmax(dim=1))


def test_a_layer_has_experts_in_its_mlp_and_others_in_its_attention() -> None:
    """Bytes: gate, up and down of the MLP; query and output projections of the attention."""
    sites = find_sites(build("jetmoe"))
    assert {site.layer: site.expert_bytes for site in sites[:2]} == {"0.attention": 2 * 32 * 16 * 4, "0": 3 * 32 * 48 * 4}
