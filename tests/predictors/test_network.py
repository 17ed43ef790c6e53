"""SparseMax is the projection onto the simplex; the network does not see the future, and reads tokens one by one as all at once."""

import pytest
import torch
from torch import Tensor

from moeprof.predictors.network import NEVER, PredictorNetwork, sparsemax

WIDTH, DIM = 8, 5


def projected(scores: Tensor) -> Tensor:
    """The projection of a row onto the simplex by bisection of the threshold, in float64."""
    row = scores.double()
    low, high = row.max() - 1, row.max()
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if (row - middle).clamp(min=0).sum() > 1 else (low, middle)
    return (row - low).clamp(min=0)


def network(*, causal: bool) -> PredictorNetwork:
    torch.manual_seed(0)
    return PredictorNetwork(DIM, WIDTH, [4, 3], causal=causal)


@pytest.mark.parametrize("size", [1, 2, 7, 50])
@pytest.mark.parametrize("spread", [0.0, 0.1, 1.0, 30.0])
def test_sparsemax_is_the_projection_onto_the_simplex(size: int, spread: float) -> None:
    scores = torch.randn(20, size, generator=torch.Generator().manual_seed(size)) * spread
    expected = torch.stack([projected(row) for row in scores])
    torch.testing.assert_close(sparsemax(scores).double(), expected, atol=2e-6, rtol=0)


def test_sparsemax_of_two_scores_is_known_by_hand_and_has_zeros() -> None:
    found = sparsemax(torch.tensor([[0.4, 0.0], [3.0, 0.0], [0.0, NEVER]]))
    torch.testing.assert_close(found, torch.tensor([[0.7, 0.3], [1.0, 0.0], [1.0, 0.0]]))


def test_the_gradient_of_sparsemax_is_that_of_finite_differences() -> None:
    scores = torch.tensor([[0.5, 0.2, -0.1, -3.0], [2.0, 0.1, 0.3, 1.9]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(sparsemax, (scores,))


def test_later_tokens_do_not_change_the_predictions_of_a_decoder_and_do_change_those_of_an_encoder() -> None:
    x_BLD = torch.randn(2, 6, DIM, generator=torch.Generator().manual_seed(1))
    changed = x_BLD.clone()
    changed[:, 4:] += 1
    for causal in (True, False):
        one, other = (network(causal=causal)(x)[0][0][:, :4] for x in (x_BLD, changed))
        assert torch.equal(one, other) == causal


def test_an_earlier_token_changes_the_predictions_of_all_later_ones() -> None:
    x_BLD = torch.randn(1, 6, DIM, generator=torch.Generator().manual_seed(1))
    changed = x_BLD.clone()
    changed[:, 0] += 1
    one, other = (network(causal=True)(x)[0][0] for x in (x_BLD, changed))
    assert bool((one != other).any(dim=2).all())


@pytest.mark.parametrize("cuts", [[1] * 7, [3, 4], [5, 1, 1]])
def test_tokens_in_several_calls_give_the_scores_of_one_call(cuts: list[int]) -> None:
    x_BLD = torch.randn(3, 7, DIM, generator=torch.Generator().manual_seed(2))
    asked = network(causal=True)
    whole, _ = asked(x_BLD)
    state, parts = None, []
    for part_BLD in x_BLD.split(cuts, dim=1):
        scores, state = asked(part_BLD, state)
        parts.append(scores)
    for layer in range(2):
        torch.testing.assert_close(torch.cat([scores[layer] for scores in parts], dim=1), whole[layer])


def test_padding_does_not_change_the_predictions_of_an_encoder() -> None:
    x_BLD = torch.randn(1, 4, DIM, generator=torch.Generator().manual_seed(3))
    padded = torch.cat([x_BLD, torch.full((1, 3, DIM), 9.0)], dim=1)
    real_BL = torch.tensor([[True] * 4 + [False] * 3])
    asked = network(causal=False)
    torch.testing.assert_close(asked(padded, real_BL=real_BL)[0][1][:, :4], asked(x_BLD)[0][1])
    assert not torch.allclose(asked(padded)[0][1][:, :4], asked(x_BLD)[0][1])
