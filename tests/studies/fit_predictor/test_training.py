"""A network learns experts that follow from the token; with the decisions of other tokens it does not get beyond chance."""

from collections.abc import Callable

import pytest
import torch

from moeprof.records.predictor import FitSettings, StackHeader
from moeprof.studies.fit_predictor.lessons import StackLessons
from moeprof.studies.fit_predictor.training import loss, train

EXPERTS, VOCABULARY, LENGTH, SEQUENCES = 8, 16, 12, 60
SHAPE = StackHeader(causal=True, layers={"1": EXPERTS})
SETTINGS = FitSettings(epochs=14, batch_size=6)


def synthetic(seed: int) -> StackLessons:
    """Tokens whose two experts are token modulo 8 and the one behind it, so that all experts are equally frequent."""
    random = torch.Generator().manual_seed(seed)
    token_T = torch.randint(VOCABULARY, (SEQUENCES * LENGTH,), generator=random)
    table = torch.randn(VOCABULARY, 10, generator=torch.Generator().manual_seed(7))
    first_T = token_T % EXPERTS
    gates_TE = torch.full((len(token_T), EXPERTS), 0.01)
    gates_TE.scatter_(1, first_T[:, None], 0.6).scatter_(1, (first_T[:, None] + 1) % EXPERTS, 0.34)
    sequence_T = torch.arange(SEQUENCES).repeat_interleave(LENGTH)
    return StackLessons(sequence_T, token_T, table[token_T], {"1": gates_TE}, {"1": gates_TE.topk(2, dim=1).indices})


def recall(network: torch.nn.Module, lessons: StackLessons) -> float:
    """The share of choices among the two best scores, sequence by sequence."""
    with torch.no_grad():
        scores = torch.cat([network(lessons.x_TD[start:end][None])[0][0][0] for start, end in lessons.spans])
    hits = scores.topk(2, dim=1).indices[:, :, None] == lessons.experts["1"][:, None]
    return hits.any(dim=1).float().mean().item()


def test_experts_that_follow_from_the_token_are_learned_and_shuffled_ones_are_not() -> None:
    lessons, other = synthetic(0), synthetic(1)
    assert recall(train(lessons, SHAPE, SETTINGS, 32, lambda: None).network, other) > 0.95
    placebo = lessons.shuffled(0)
    assert torch.equal(placebo.experts["1"].sort(dim=0).values, lessons.experts["1"].sort(dim=0).values)
    assert recall(train(placebo, SHAPE, SETTINGS, 32, lambda: None).network, other) == pytest.approx(2 / EXPERTS, abs=0.1)


def test_the_same_seed_gives_the_same_weights_whatever_was_drawn_before_and_another_one_others() -> None:
    def weights(seed: int) -> torch.Tensor:
        torch.rand(3)
        settings = FitSettings(epochs=1, seed=seed)
        return torch.cat(
            [weight.flatten() for weight in train(synthetic(0), SHAPE, settings, 4, lambda: None).network.parameters()]
        )

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_training_ends_when_its_cpu_time_is_over() -> None:
    seconds = iter(range(0, 10_000, 25))
    settings = FitSettings(epochs=9, batch_size=30, cpu_minutes=1.0)
    counted: list[int] = []
    found = train(synthetic(0), SHAPE, settings, 4, lambda: counted.append(1), lambda: float(next(seconds)))
    assert (found.epochs, len(counted), found.cpu_seconds) == (
        1,
        1,
        100,
    )  # 2 updates per epoch of 25 s each, the third one is late


LOSSES: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], float]] = {
    "the teacher itself": (lambda gates: gates.log(), 0.0),
    "equal shares": (lambda gates: torch.zeros_like(gates), 0.0 + abs(5 / 8 - 1 / 2) + abs(3 / 8 - 1 / 2)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_distillation_compares_the_shares_of_the_preferred_experts_only(name: str) -> None:
    gates = torch.tensor([[0.05, 0.5, 0.15, 0.3]])
    scores, expected = LOSSES[name]
    settings = FitSettings(positions=2, ce_weight=0.0)
    assert loss(scores(gates), gates, torch.tensor([[1, 3]]), settings).item() == pytest.approx(expected, abs=1e-6)


def test_the_cross_entropy_is_the_mean_over_choices() -> None:
    gates, scores = torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[0.5, 0.25, 0.25]]).log()
    with_it = loss(scores, gates, torch.tensor([[0, 1]]), FitSettings(ce_weight=2.0)).item()
    assert with_it == pytest.approx(2 * 1.5 * torch.log(torch.tensor(2.0)).item(), rel=1e-5)
