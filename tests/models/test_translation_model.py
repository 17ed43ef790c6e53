"""The encoder-decoder model: decoding with a cache, causality, padding on either side, NLLB's conventions."""

import pytest
import torch
from torch import Tensor

from moeprof.instrument.probe import observed_by
from moeprof.models.build import build_model
from moeprof.models.translation_model import Memory, TranslationModel
from moeprof.moe.layer import moe_layers, use_variant

from .shapes import ALL_REAL, POSITIONS, Regions, real_up_to, remembered, small, step_of, translation_model, words


def decoded(model: TranslationModel, target_BL: Tensor, memory: Memory, parts: list[int]) -> Tensor:
    """Logits of all target positions, fed part by part through a cache."""
    caches = model.empty_caches(*target_BL.shape)
    return torch.cat([model(part, memory, ALL_REAL, caches) for part in target_BL.split(parts, dim=1)], dim=1)


@pytest.mark.parametrize("kind", POSITIONS)
@pytest.mark.parametrize("parts", [[1] * 6, [2, 1, 3], [6]])
def test_decoding_with_a_cache_gives_the_logits_of_the_full_pass(device: str, kind: str, parts: list[int]) -> None:
    model, target_BL = translation_model(positions=kind, device=device), words(3, 6, seed=1, device=device)
    source_real = real_up_to([5, 3, 1], 5, device=device)
    memory = remembered(model, words(3, 5, device=device), step_of(source_real))
    full = model(target_BL, memory, ALL_REAL)
    torch.testing.assert_close(decoded(model, target_BL, memory, parts), full, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", POSITIONS)
def test_a_later_target_token_never_changes_an_earlier_logit(device: str, kind: str) -> None:
    model, target_BL = translation_model(positions=kind, device=device), words(2, 6, seed=1, device=device)
    memory = remembered(model, words(2, 5, device=device))
    before = model(target_BL, memory, ALL_REAL)
    for position in range(6):
        changed_BL = target_BL.clone()
        changed_BL[:, position] = (changed_BL[:, position] + 1) % 270
        after = model(changed_BL, memory, ALL_REAL)
        torch.testing.assert_close(after[:, :position], before[:, :position], rtol=1e-5, atol=1e-5)
        assert (after[:, position] - before[:, position]).abs().amax() > 0.01


def test_every_source_token_reaches_every_encoded_position_and_every_logit(device: str) -> None:
    model, source_BM, target_BL = (
        translation_model(device=device),
        words(1, 5, device=device),
        words(1, 3, seed=1, device=device),
    )
    encoded, logits = model.encode(source_BM, ALL_REAL), model(target_BL, remembered(model, source_BM), ALL_REAL)
    for position in range(5):
        changed_BM = source_BM.clone()
        changed_BM[:, position] = (changed_BM[:, position] + 1) % 270
        assert (model.encode(changed_BM, ALL_REAL) - encoded).abs().amax(dim=2).min() > 1e-3
        assert (model(target_BL, remembered(model, changed_BM), ALL_REAL) - logits).abs().amax(dim=2).min() > 1e-4


@pytest.mark.parametrize("kind", POSITIONS)
@pytest.mark.parametrize("dropless", [True, False])
def test_padding_does_not_change_how_real_source_tokens_are_encoded(device: str, kind: str, dropless: bool) -> None:
    model, lengths = translation_model(positions=kind, device=device), [6, 3, 1]
    if dropless:
        use_variant(model, None)
    source_BM, real_BM = words(3, 6, device=device), real_up_to(lengths, 6, device=device)
    for filled_BM in (source_BM, source_BM.masked_fill(~real_BM, 0)):
        encoded_BMD = model.encode(filled_BM, step_of(real_BM))
        for sentence, length in enumerate(lengths):
            alone = model.encode(source_BM[sentence : sentence + 1, :length], ALL_REAL)[0]
            torch.testing.assert_close(encoded_BMD[sentence, :length], alone, rtol=1e-4, atol=1e-5)


def test_cross_attention_ignores_padded_source_positions(device: str) -> None:
    model, target_BL, lengths = translation_model(device=device), words(3, 4, seed=1, device=device), [6, 3, 1]
    source_BM, real_BM = words(3, 6, device=device), real_up_to(lengths, 6, device=device)
    logits_BLV = model(target_BL, remembered(model, source_BM, step_of(real_BM)), ALL_REAL)
    for sentence, length in enumerate(lengths):
        one = slice(sentence, sentence + 1)
        memory = remembered(model, source_BM[one, :length])
        torch.testing.assert_close(logits_BLV[one], model(target_BL[one], memory, ALL_REAL), rtol=1e-4, atol=1e-5)


def test_a_sentence_that_has_ended_does_not_change_the_others(device: str) -> None:
    """In a decode step it is padding: routed by nobody, and its row says nothing."""
    model, target_BL = translation_model(device=device), words(3, 4, seed=1, device=device)
    memory = remembered(model, words(3, 5, device=device))
    real_BL = real_up_to([4, 2, 4], 4, device=device)
    with_all = model(target_BL, memory, ALL_REAL)
    with_ended = model(target_BL.masked_fill(~real_BL, 0), memory, step_of(real_BL))
    torch.testing.assert_close(with_ended[real_BL], with_all[real_BL], rtol=1e-4, atol=1e-5)


def test_sparse_layers_are_named_by_stack_and_number() -> None:
    assert [layer.name for layer in moe_layers(translation_model())] == ["enc.1", "dec.1"]


def test_expert_outputs_are_scaled_by_what_training_did_not_mask() -> None:
    recipe = small("mt", expert_output_masking=0.2)
    assert [layer.scale for layer in moe_layers(build_model(recipe))] == [0.8, 0.8]
    assert [layer.scale for layer in moe_layers(build_model(small("mt")))] == [1.0, 1.0]


def test_one_embedding_serves_source_target_and_head() -> None:
    model = translation_model()
    assert [name for name, parameter in model.named_parameters() if parameter.shape[0] == 270] == ["embedding.weight"]


def test_regions_cover_encoder_and_decoder_in_order_and_never_nest() -> None:
    regions, model = Regions(), translation_model()
    with observed_by(regions):
        model(words(1, 2), remembered(model, words(1, 3)), ALL_REAL)
    parts = ("gate", "dispatch", "experts", "combine")
    encoder = ["embed", "enc.0 attention", "enc.0 dense_ffn", "enc.1 attention", *(f"enc.1 {part}" for part in parts)]
    memory = ["dec.0 cross_attention", "dec.1 cross_attention"]
    first = ["embed", "dec.0 attention", "dec.0 cross_attention", "dec.0 dense_ffn"]
    second = ["dec.1 attention", "dec.1 cross_attention", *(f"dec.1 {part}" for part in parts), "head"]
    assert regions.names == [*encoder, *memory, *first, *second]
