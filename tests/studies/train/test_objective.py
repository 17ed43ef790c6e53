"""The losses against their formulas, worked out by hand and in numpy."""

import math

import numpy as np
import pytest
import torch

from moeprof.models.build import build_model
from moeprof.moe.layer import moe_layers, use_variant
from moeprof.records.recipe.recipe import TrainSection
from moeprof.studies.train.lessons import Lesson, lesson
from moeprof.studies.train.objective import Losses, balance_loss, cross_entropy_of, losses_of, z_loss
from moeprof.studies.train.optimizer import learning_rate
from moeprof.studies.train.own import OwnLearner, masked_outputs
from tests.models.shapes import small


def test_the_balance_loss_is_one_when_all_is_even() -> None:
    experts_TK = torch.tensor([[0, 1], [2, 3]])
    assert float(balance_loss(torch.zeros(2, 4), experts_TK)) == pytest.approx(1.0)


def test_the_balance_loss_by_hand() -> None:
    # gates 3/4 1/4 and 1/2 1/2: means 5/8 3/8; both tokens chose expert 0: shares 1 and 0 -> 2 x 5/8
    logits_TE = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]])
    assert float(balance_loss(logits_TE, torch.tensor([[0], [0]]))) == pytest.approx(1.25)


def test_the_z_loss_by_hand() -> None:
    # logsumexp of (0, 0) is ln 2, of (ln 3, 0) is ln 4
    logits_TE = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    assert float(z_loss(logits_TE)) == pytest.approx((math.log(2) ** 2 + math.log(4) ** 2) / 2)


def test_the_total_is_weighted() -> None:
    losses = Losses(torch.tensor(1.0), torch.tensor(2.0), torch.tensor(3.0))
    assert float(losses.total(TrainSection(balance_weight=0.1, z_weight=0.01))) == pytest.approx(1.23)


def test_cross_entropy_leaves_out_what_nothing_follows() -> None:
    logits_BLV = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    targets = np.array([[1, 4, -100], [0, -100, -100]])
    rows = logits_BLV.double().numpy()
    logs = rows - np.log(np.exp(rows).sum(axis=2, keepdims=True))
    expected = -np.mean([logs[0, 0, 1], logs[0, 1, 4], logs[1, 0, 0]])
    assert float(cross_entropy_of(logits_BLV, torch.from_numpy(targets))) == pytest.approx(expected, rel=1e-5)


def taught(workload: str) -> Lesson:
    """Two sequences of different length."""
    targets = [[1, 10, 11, 12, 13], [1, 20, 21]]
    return lesson(targets, [[30, 31, 2], [40, 2]] if workload == "mt" else None)


def test_a_lesson_reads_all_but_the_last_and_predicts_all_but_the_first() -> None:
    found = taught("mt")
    assert found.tokens_BL.tolist() == [[1, 10, 11, 12], [1, 20, 0, 0]]
    assert found.targets_BL.tolist() == [[10, 11, 12, 13], [20, 21, -100, -100]]
    assert found.num_tokens == 4 + 2 + 3 + 2


@pytest.mark.parametrize("workload", ["lm", "mt"])
def test_auxiliary_losses_are_summed_over_layers_and_blind_to_padding(workload: str) -> None:
    model = build_model(small(workload))
    use_variant(model, None)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    for layer in moe_layers(model):

        def keep(router: torch.nn.Module, inputs: tuple[torch.Tensor, object], routing: object) -> None:
            real_T = routing.real_T  # type: ignore[attr-defined]
            logits = inputs[0] @ router.weight.t()  # type: ignore[operator]
            real_T = torch.ones(len(logits), dtype=torch.bool) if real_T is None else real_T
            seen.append((logits[real_T], routing.experts_TK[real_T]))  # type: ignore[attr-defined]

        layer.router.register_forward_hook(keep)
    losses = losses_of(OwnLearner(model), taught(workload))
    tokens = [len(logits) for logits, _ in seen]
    assert tokens == ([5, 6] if workload == "mt" else [6, 6])
    by_hand = 0.0
    for logits, experts in seen:
        gates = np.exp(logits.numpy()) / np.exp(logits.numpy()).sum(axis=1, keepdims=True)
        shares = np.bincount(experts.flatten(), minlength=4) / experts.numel()
        by_hand += 4 * (shares * gates.mean(axis=0)).sum()
    assert float(losses.balance) == pytest.approx(by_hand, rel=1e-5)
    assert float(losses.z) == pytest.approx(sum(float(logits.logsumexp(1).square().mean()) for logits, _ in seen), rel=1e-5)


def test_a_dense_model_has_no_auxiliary_loss() -> None:
    losses = losses_of(OwnLearner(build_model(small("lm"), dense=True)), taught("lm"))
    assert float(losses.balance) == float(losses.z) == 0


def test_expert_output_masking_silences_some_tokens_and_leaves_the_mean() -> None:
    model = build_model(small("mt", expert_output_masking=0.25))
    use_variant(model, None)
    layer = moe_layers(model)[0]
    x_TD = torch.randn(4000, 16, generator=torch.Generator().manual_seed(0))
    from moeprof.instrument.step import Step

    usual = layer(x_TD, Step(None))
    with masked_outputs(model, torch.Generator().manual_seed(0)):
        masked = layer(x_TD, Step(None))
    silent_T = masked.eq(0).all(dim=1)
    assert 0.22 < float(silent_T.float().mean()) < 0.28
    torch.testing.assert_close(masked[~silent_T] * 0.75, usual[~silent_T])
    torch.testing.assert_close(layer(x_TD, Step(None)), usual)


def test_the_learning_rate_rises_then_falls_along_half_a_cosine() -> None:
    train = TrainSection(steps=110, warmup_steps=10, learning_rate=1.0, final_learning_rate=0.1)
    assert [learning_rate(train, number) for number in (0, 4, 9, 10)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert learning_rate(train, 60) == pytest.approx(0.55)
    assert learning_rate(train, 109) == pytest.approx(0.1, abs=1e-3)
