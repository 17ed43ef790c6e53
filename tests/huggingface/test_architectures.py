"""The hook sees the routing of every architecture that transformers has, and changes nothing."""

import warnings

import pytest
import torch
from transformers import PreTrainedModel

from moeprof.huggingface.layer_names import needs_other_input
from moeprof.huggingface.sites import find_sites
from moeprof.huggingface.tally import expert_counts, tally
from tests.huggingface.architectures import build, decorated_architectures
from tests.huggingface.forward import TOKENS_BL, captured, forward, num_hooks
from tests.huggingface.small_models import TOP_K

ONE_EXPERT = {"zaya", "switch_transformers"}
"""Architectures whose tokens use one expert each."""

EIGHT = ["mixtral", "gpt_oss", "nemotron_h", "deepseek_v4", "phimoe", "gemma4", "zaya", "ernie4_5_vl_moe"]
"""Layouts and routers: plain; transposed, with biases, interleaved; without a gate; clamped, chosen by token; two maxima; scaled by
expert; with a class for skipping; apart for text and images."""

UNDECORATED = ["llama4", "longcat_flash", "jetmoe", "step3p7", "switch_transformers", "dbrx"]


def check(architecture: str, model: PreTrainedModel) -> None:
    """Outputs with, without and again without the hook are equal, and each layer has K choices for each token."""
    before = model.get_experts_implementation()
    plain = forward(model)
    seen, calls = captured(model)
    assert torch.isfinite(plain).all()
    assert torch.equal(seen, plain)
    assert torch.equal(forward(model), plain)
    assert (model.get_experts_implementation(), num_hooks(model)) == (before, 0)
    sites = [site for site in find_sites(model) if not needs_other_input(site.layer)]
    assert [call.site.path for call in sorted(calls, key=lambda call: call.site.path)] == sorted(site.path for site in sites)
    num_choices = TOKENS_BL.numel() * (1 if architecture in ONE_EXPERT else TOP_K)
    for call in calls:
        counts = tally(call)
        assert sum(counts) == num_choices
        assert int(expert_counts(call).sum()) == counts.routed
        assert call.backend in before.values()


@pytest.mark.parametrize("architecture", [*EIGHT, *UNDECORATED])
def test_the_hook_changes_nothing_and_sees_every_choice(architecture: str) -> None:
    check(architecture, build(architecture))


@pytest.mark.slow
def test_at_least_sixty_decorated_architectures_are_seen() -> None:
    """A new architecture that the sizes of the tests do not fit is reported; one that is built must be right."""
    passed, not_built = [], []
    for architecture, classes in decorated_architectures().items():
        try:
            model = build(architecture)
        except Exception as error:
            not_built.append(f"{architecture}: {error}")
            continue
        assert classes & {type(site.experts).__name__ for site in find_sites(model)}, architecture
        check(architecture, model)
        passed.append(architecture)
    if not_built:
        warnings.warn("not built: " + "; ".join(not_built), stacklevel=1)
    assert len(passed) >= 60
