"""SiDA's predictor (arXiv 2310.18859): from the embeddings of tokens to scores of every expert of every MoE layer.

B sequences, L positions, P positions before and with them, D width of the embeddings, H width of the predictor, E experts.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

NEVER = -1e9
"""A score that no key with another one loses to."""


def sparsemax(scores: Tensor) -> Tensor:
    """The projection of the last dimension onto the simplex (Martins and Astudillo 2016): like softmax, with exact zeros."""
    sorted_, _ = scores.sort(dim=-1, descending=True)
    sums = sorted_.cumsum(dim=-1) - 1
    ranks = torch.arange(1, scores.shape[-1] + 1, device=scores.device, dtype=scores.dtype)
    size = (ranks * sorted_ > sums).sum(dim=-1, keepdim=True)
    threshold = sums.gather(-1, size - 1) / size
    return (scores - threshold).clamp(min=0)


class NetworkState(NamedTuple):
    """What continues sequences: the state of the LSTM, and its outputs so far, which later tokens attend to."""

    hidden: tuple[Tensor, Tensor]
    outputs_BPH: Tensor


class PredictorNetwork(nn.Module):
    """The predictor of one stack of layers; causal for a decoder."""

    def __init__(self, dim: int, width: int, experts: Sequence[int], *, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.compress = nn.Linear(dim, width)
        self.lstm = nn.LSTM(width, width, num_layers=2, batch_first=True)
        self.residual = nn.Linear(width, width)
        self.heads = nn.ModuleList(nn.Linear(width, count) for count in experts)

    def forward(
        self, x_BLD: Tensor, state: NetworkState | None = None, real_BL: Tensor | None = None
    ) -> tuple[list[Tensor], NetworkState]:
        """Scores (B, L, E) of every MoE layer, and the state after these tokens.

        With a state, the tokens continue its sequences. A stack that is not causal gets whole sequences; `real_BL` says which of their
        positions are tokens, which come before any padding.
        """
        assert self.causal or state is None, "what is not causal reads a whole sequence at once"
        compressed_BLH = torch.relu(self.compress(x_BLD.float()))
        outputs_BLH, hidden = self.lstm(compressed_BLH, None if state is None else state.hidden)
        known_BPH = outputs_BLH if state is None else torch.cat([state.outputs_BPH, outputs_BLH], dim=1)
        mixed_BLH = outputs_BLH + self.residual(self.attend(outputs_BLH, known_BPH, real_BL))
        return [head(mixed_BLH) for head in self.heads], NetworkState(hidden, known_BPH)

    def attend(self, queries_BLH: Tensor, keys_BPH: Tensor, real_BL: Tensor | None) -> Tensor:
        """The mean of the keys with the weights of sparsemax over scaled products, (B, L, H)."""
        scores_BLP = queries_BLH @ keys_BPH.transpose(1, 2) / keys_BPH.shape[-1] ** 0.5
        if self.causal:
            length, past = queries_BLH.shape[1], keys_BPH.shape[1] - queries_BLH.shape[1]
            later_LP = torch.ones(length, past + length, dtype=torch.bool, device=scores_BLP.device).triu(past + 1)
            scores_BLP = scores_BLP.masked_fill(later_LP, NEVER)
        elif real_BL is not None:
            scores_BLP = scores_BLP.masked_fill(~real_BL[:, None], NEVER)
        return sparsemax(scores_BLP) @ keys_BPH
