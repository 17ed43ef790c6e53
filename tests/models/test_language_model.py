"""The decoder-only model: decoding with a cache, causality, padding, the tied head."""

import math

import pytest
import torch
from torch import Tensor

from moeprof.instrument.probe import observed_by
from moeprof.models.language_model import LanguageModel
from moeprof.moe.layer import MoELayer, moe_layers, use_variant

from .shapes import ALL_REAL, POSITIONS, Regions, language_model, real_up_to, step_of, words


def decoded(model: LanguageModel, tokens_BL: Tensor, parts: list[int]) -> Tensor:
    """Logits of all positions, the sequence fed part by part through a cache."""
    caches = model.empty_caches(*tokens_BL.shape)
    return torch.cat([model(part, ALL_REAL, caches) for part in tokens_BL.split(parts, dim=1)], dim=1)


@pytest.mark.parametrize("kind", POSITIONS)
@pytest.mark.parametrize("parts", [[1] * 7, [4, 1, 1, 1], [3, 4], [7]])
def test_decoding_with_a_cache_gives_the_logits_of_the_full_pass(device: str, kind: str, parts: list[int]) -> None:
    model, tokens_BL = language_model(positions=kind, device=device), words(3, 7, device=device)
    torch.testing.assert_close(decoded(model, tokens_BL, parts), model(tokens_BL, ALL_REAL), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", POSITIONS)
def test_a_later_token_never_changes_an_earlier_logit(device: str, kind: str) -> None:
    model, tokens_BL = language_model(positions=kind, device=device), words(2, 8, device=device)
    before = model(tokens_BL, ALL_REAL)
    for position in range(8):
        changed_BL = tokens_BL.clone()
        changed_BL[:, position] = (changed_BL[:, position] + 1) % 270
        after = model(changed_BL, ALL_REAL)
        torch.testing.assert_close(after[:, :position], before[:, :position], rtol=1e-5, atol=1e-5)
        assert (after[:, position] - before[:, position]).abs().amax() > 0.01


def test_an_earlier_token_reaches_every_later_logit(device: str) -> None:
    model, tokens_BL = language_model(device=device), words(1, 6, device=device)
    changed_BL = tokens_BL.clone()
    changed_BL[:, 0] = (changed_BL[:, 0] + 1) % 270
    moved_L = (model(changed_BL, ALL_REAL) - model(tokens_BL, ALL_REAL)).abs().amax(dim=2)[0]
    assert moved_L.min() > 1e-3


def test_with_little_capacity_an_earlier_token_can_push_out_a_later_one_only(device: str) -> None:
    """Priority is by token order: in a batch of one sequence, drops keep the model causal for top-1."""
    model, tokens_BL = language_model(capacity_fraction=0.3, top_k=1, device=device), words(1, 12, device=device)
    before = model(tokens_BL, ALL_REAL)
    changed_BL = tokens_BL.clone()
    changed_BL[:, 9] = (changed_BL[:, 9] + 1) % 270
    torch.testing.assert_close(model(changed_BL, ALL_REAL)[:, :9], before[:, :9], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", POSITIONS)
@pytest.mark.parametrize("dropless", [True, False])
def test_padding_does_not_change_the_logits_of_real_tokens(device: str, kind: str, dropless: bool) -> None:
    """With the reference layer, and with static gating at C = 1; whatever stands in the padding."""
    model, lengths = language_model(positions=kind, device=device), [7, 4, 1]
    if dropless:
        use_variant(model, None)
    tokens_BL, real_BL = words(3, 7, device=device), real_up_to(lengths, 7, device=device)
    for filled_BL in (tokens_BL, tokens_BL.masked_fill(~real_BL, 0)):
        logits_BLV = model(filled_BL, step_of(real_BL))
        for sequence, length in enumerate(lengths):
            alone = model(tokens_BL[sequence : sequence + 1, :length], ALL_REAL)[0]
            torch.testing.assert_close(logits_BLV[sequence, :length], alone, rtol=1e-4, atol=1e-5)


def test_every_second_layer_is_sparse_and_named_by_its_number() -> None:
    model = language_model()
    assert [isinstance(layer.ffn, MoELayer) for layer in model.layers] == [False, True, False, True]
    assert [layer.name for layer in moe_layers(model)] == ["1", "3"]


def test_the_embedding_is_scaled_by_the_root_of_the_width_and_shared_with_the_head(device: str) -> None:
    model = language_model(positions="rotary", device=device)
    x_BLD = model.embedding(words(1, 3, device=device))
    torch.testing.assert_close(x_BLD, math.sqrt(16) * model.embedding.weight[words(1, 3, device=device)])
    logits_BLV = model.embedding.head(x_BLD, model.norm)
    torch.testing.assert_close(logits_BLV, model.norm(x_BLD) @ model.embedding.weight.T)
    assert "head.weight" not in dict(model.named_parameters())


def test_regions_cover_the_step_in_order_and_never_nest() -> None:
    regions = Regions()
    model = language_model(decoder_layers=2)
    with observed_by(regions):
        model(words(1, 3), ALL_REAL)
    sparse = ["1 gate", "1 dispatch", "1 experts", "1 combine"]
    assert regions.names == ["embed", "0 attention", "0 dense_ffn", "1 attention", *sparse, "head"]


@pytest.mark.parametrize("kind", POSITIONS)
def test_a_bfloat16_model_has_bfloat16_logits_near_the_float32_ones(device: str, kind: str) -> None:
    tokens_BL = words(2, 5, device=device)
    model = language_model(positions=kind, dtype="bfloat16", device=device)
    logits_BLV = model(tokens_BL, ALL_REAL)
    assert logits_BLV.dtype == torch.bfloat16
    assert {layer.router.weight.dtype for layer in moe_layers(model)} == {torch.float32}
    torch.testing.assert_close(decoded(model, tokens_BL, [2, 1, 1, 1]), logits_BLV, rtol=0.1, atol=0.3)
