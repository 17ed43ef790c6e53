"""The router's distribution is found from what it recorded and the weights that the experts received."""

import pytest
import torch

from moeprof.huggingface.scores import router_scores, scores_of
from tests.huggingface.forward import captured
from tests.huggingface.small_models import SEVEN, small_model

KIND_OF = dict.fromkeys(SEVEN, "softmax") | {"deepseek_v3": "sigmoid"}
LOGITS_TC = torch.tensor([[0.5, -1.0, 2.0, 0.0], [-0.3, 0.2, 0.1, 1.5], [1.0, 0.0, -2.0, 0.4]])


@pytest.mark.parametrize("architecture", SEVEN)
def test_the_kind_of_score_is_that_of_the_architecture(architecture: str) -> None:
    _, calls = captured(small_model(architecture), scores=True)
    for call in calls:
        scores = scores_of(call)
        assert scores.kind == KIND_OF[architecture]
        assert call.recorded_TC is not None
        assert scores.gates_TC is not None
        expected_TC = call.recorded_TC.float().sigmoid() if scores.kind == "sigmoid" else call.recorded_TC.float().exp()
        torch.testing.assert_close(scores.gates_TC, expected_TC / expected_TC.sum(dim=1, keepdim=True))


def test_recorded_probabilities_are_no_logits() -> None:
    """Gemma 4 records probabilities under the name of logits, and scales its weights by expert."""
    probs_TC = LOGITS_TC.softmax(dim=1)
    weights_TK, experts_TK = probs_TC.topk(2, dim=1)
    scores = router_scores(probs_TC, experts_TK, weights_TK * torch.tensor([1.0, 3.0]))
    assert scores.kind == "probabilities"
    assert scores.gates_TC is not None
    assert torch.equal(scores.gates_TC, probs_TC)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid", "sqrtsoftplus"])
@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_each_function_is_told_from_the_others(kind: str, top_k: int) -> None:
    functions = {
        "softmax": lambda x: x.exp() / x.exp().sum(dim=1, keepdim=True),
        "sigmoid": lambda x: 1 / (1 + (-x).exp()),
        "sqrtsoftplus": lambda x: (1 + x.exp()).log().sqrt(),
    }
    weights_TK, experts_TK = functions[kind](LOGITS_TC).topk(top_k, dim=1)
    assert router_scores(LOGITS_TC, experts_TK, 2.5 * weights_TK).kind == kind


def test_scores_that_are_recorded_themselves_are_divided_by_their_sum() -> None:
    scores_TC = LOGITS_TC.sigmoid()
    weights_TK, experts_TK = scores_TC.topk(2, dim=1)
    found = router_scores(scores_TC, experts_TK, weights_TK)
    assert found.kind == "scores"
    assert found.gates_TC is not None
    torch.testing.assert_close(found.gates_TC, scores_TC / scores_TC.sum(dim=1, keepdim=True))


def test_scores_are_not_taken_for_weights_that_agree_in_one_row_if_others_are_negative() -> None:
    """Two logits of 2 and 1 give 0.731 and 0.269 by softmax; 2/3 and 1/3 would be a coincidence, and -1 is no score."""
    found = router_scores(torch.tensor([[2.0, 1.0, -1.0]]), torch.tensor([[0, 1]]), torch.tensor([[2 / 3, 1 / 3]]))
    assert found.gates_TC is None


def test_weights_that_no_function_gives_leave_the_metric_out_with_the_reason() -> None:
    found = router_scores(LOGITS_TC, torch.tensor([[2, 0], [3, 1], [0, 3]]), torch.tensor([[0.9, 0.1]] * 3))
    assert found.gates_TC is None
    assert found.reason == "no known function of the router's scores gives the weights that the experts received"


def test_one_expert_with_weight_one_says_nothing_about_the_scores() -> None:
    """Every function gives 1 if the weights are divided by their sum."""
    found = router_scores(LOGITS_TC[:1], torch.tensor([[2]]), torch.ones(1, 1))
    assert found.gates_TC is None
    assert found.reason.startswith("several functions (softmax, sigmoid, sqrtsoftplus) of the router's scores give the weights")


def test_the_kind_of_an_earlier_call_decides_where_one_call_cannot() -> None:
    found = router_scores(LOGITS_TC[:1], torch.tensor([[2]]), torch.ones(1, 1), "sigmoid")
    expected_TC = 1 / (1 + (-LOGITS_TC[:1]).exp())
    assert found.gates_TC is not None
    torch.testing.assert_close(found.gates_TC, expected_TC / expected_TC.sum())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_in_half_precision_are_explained_too(dtype: torch.dtype) -> None:
    weights_TK, experts_TK = LOGITS_TC.sigmoid().topk(3, dim=1)
    assert router_scores(LOGITS_TC, experts_TK, weights_TK.to(dtype)).kind == "sigmoid"


def test_a_call_without_rows_has_no_distribution() -> None:
    found = router_scores(torch.zeros(0, 4), torch.zeros(0, 2, dtype=torch.long), torch.zeros(0, 2))
    assert (found.gates_TC, found.reason) == (None, "the call had no rows")


def test_a_layer_without_recorded_scores_has_no_distribution() -> None:
    found = router_scores(None, torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 2))
    assert (found.gates_TC, found.reason) == (None, "the layer has no router whose scores transformers records")
