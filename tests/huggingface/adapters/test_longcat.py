"""Identity experts of LongCat-Flash have no weights and are counted apart."""

from moeprof.huggingface.sites import find_sites
from moeprof.huggingface.tally import expert_counts, tally
from tests.huggingface.architectures import build
from tests.huggingface.forward import TOKENS_BL, captured
from tests.huggingface.small_models import NUM_EXPERTS, TOP_K


def test_ids_above_those_of_the_experts_are_identity_experts() -> None:
    """The ids as the experts receive them are counted by a hook of the test."""
    model = build("longcat_flash")
    received: list[list[int]] = []
    for site in find_sites(model):
        site.experts.register_forward_pre_hook(lambda module, args: received.append(args[1].flatten().tolist()))
    _, calls = captured(model)
    assert len(calls) == len(received) > 0
    for call, ids in zip(calls, received, strict=True):
        zero = sum(expert >= NUM_EXPERTS for expert in ids)
        assert (tally(call).zero_compute, tally(call).routed) == (zero, TOKENS_BL.numel() * TOP_K - zero)
        assert expert_counts(call).tolist() == [ids.count(expert) for expert in range(NUM_EXPERTS)]
    assert sum(tally(call).zero_compute for call in calls) > 0


def test_an_identity_expert_adds_no_bytes() -> None:
    """The rows that the parameters have for identity experts are never read."""
    assert {(site.num_experts, site.num_zero, site.expert_bytes) for site in find_sites(build("longcat_flash"))} == {
        (NUM_EXPERTS, 4, 3 * 32 * 16 * 4)
    }
