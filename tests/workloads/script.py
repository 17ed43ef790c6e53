"""A model that says fixed sentences, and episodes that are decoded with it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from moeprof.instrument.step import Step
from moeprof.workloads.batches import Batch, pad
from moeprof.workloads.episodes import DecodeEpisode
from moeprof.workloads.tokenizers import EOS


class Script:
    """A model that wants to say a fixed sentence per sequence; it keeps what it was fed since the last rewind."""

    def __init__(self, *sentences: Sequence[int]) -> None:
        self.sentences = sentences
        self.fed: list[list[int]] = []
        self.steps: list[Step] = []
        self.rewound = 0

    @property
    def first_B(self) -> Tensor:
        return torch.tensor([sentence[0] for sentence in self.sentences])

    def forward(self, tokens_B1: Tensor, step: Step) -> Tensor:
        """Logits (B, 1, 20) of the next word of every sentence."""
        self.fed.append(tokens_B1[:, 0].tolist())
        self.steps.append(step)
        wanted_B = torch.tensor([sentence[len(self.fed)] for sentence in self.sentences])
        return torch.nn.functional.one_hot(wanted_B, 20)[:, None].float()

    def rewind(self) -> None:
        self.fed, self.steps, self.rewound = [], [], self.rewound + 1


def episode_of(batch_size: int, *, max_tokens: int = 4, stop: int | None = EOS) -> DecodeEpisode:
    """Sequences 30, 31, ...; the first generated token stands at position 7, in step 100."""
    return episode_on(pad("prose", 4, [[1]] * batch_size, None, 30), max_tokens=max_tokens, stop=stop)


def episode_on(batch: Batch, *, max_tokens: int = 4, stop: int | None = EOS) -> DecodeEpisode:
    """The same on these sequences."""
    return DecodeEpisode(
        batch=batch,
        first_step=100,
        first_position=7,
        max_tokens=max_tokens,
        stop=stop,
        device="cpu",
        begin=lambda model: model,
    )


def reals(steps: list[Step]) -> list[list[bool] | None]:
    """Which rows of every step are no padding; None where all are."""
    return [None if step.real_T is None else step.real_T.tolist() for step in steps]
