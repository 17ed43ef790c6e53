"""The work of a phase on one batch: an untimed preparation, then forward passes that are timed and recorded.

B sequences, L positions, N generated tokens, V vocabulary.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from moeprof.instrument.step import Step, make_step
from moeprof.parallel.collectives import anyone, largest
from moeprof.parallel.group import ALONE, Group
from moeprof.workloads.batches import Batch
from moeprof.workloads.sources import Source
from moeprof.workloads.tokenizers import PAD

Marker = Callable[[], None]
"""Marks a moment of a round."""


def unmarked() -> None:
    """Marks no moment of a round."""


@dataclass(frozen=True, eq=False)
class Round:
    """The timed part of an episode, which can be repeated; returns the output of the last forward pass."""

    play: Callable[[], Tensor]
    rewind: Callable[[], None] = lambda: None
    """Goes back to the beginning, which a round does if it was not done before; this is not timed."""

    def __call__(self) -> Tensor:
        self.rewind()
        return self.play()


class Episode(Protocol):
    """One batch in one phase."""

    phase: str
    batch: Batch
    steps: list[Step]
    """Its forward passes; known after `settle`."""

    @property
    def domain(self) -> str:
        """The domain of all its sequences."""
        ...

    def settle(self, model: Any) -> None:
        """Fixes the tokens that all variants process: those that `model` generates."""
        ...

    def ready(self, model: Any, mark: Marker = unmarked) -> Round:
        """Runs the untimed part (prompt, encoder) and returns the timed one, which marks where its steps begin and end if it decodes."""
        ...

    def outputs(self, model: Any) -> Iterator[Tensor]:
        """Runs the untimed part and returns the outputs of each step, (T, V), or (T, D) in `encode`; each runs as it is asked for."""
        ...


def num_tokens(episode: Episode) -> int:
    """Tokens of one round, without padding."""
    return sum(step.num_tokens for step in episode.steps)


@dataclass(eq=False)
class ForwardEpisode:
    """One forward pass over a whole batch: `score` and `encode`."""

    phase: str
    batch: Batch
    device: str
    forward: Callable[[Any, Tensor, Step], Tensor]
    steps: list[Step] = field(init=False)

    def __post_init__(self) -> None:
        batch = self.batch
        step = make_step(
            self.phase, batch.index, batch.domain, batch.tokens_BL, batch.real_BL, batch.sequence_B, 0, self.device
        )
        self.steps = [step]

    @property
    def domain(self) -> str:
        """The domain of the batch."""
        return self.batch.domain

    def settle(self, model: Any) -> None:
        """Does nothing, since the tokens are those of the text."""

    def ready(self, model: Any, mark: Marker = unmarked) -> Round:
        tokens_BL = torch.from_numpy(self.batch.tokens_BL).to(self.device)
        return Round(lambda: self.forward(model, tokens_BL, self.steps[0]))

    def outputs(self, model: Any) -> Iterator[Tensor]:
        return (play().flatten(0, 1) for play in [self.ready(model)])


class Generation(Protocol):
    """A model that is generating, after its prompt or source."""

    first_B: Tensor
    """The first token of each sequence."""

    def forward(self, tokens_B1: Tensor, step: Step) -> Tensor:
        """Logits (B, 1, V) of the next token."""
        ...

    def rewind(self) -> None:
        """Goes back to the first token."""
        ...


@dataclass(eq=False)
class DecodeEpisode:
    """Decoding of a batch token by token; timed rounds are teacher-forced with the tokens that `settle` found."""

    batch: Batch
    first_step: int
    first_position: int
    max_tokens: int
    stop: int | None
    """A sequence that generates this token continues as padding."""
    device: str
    begin: Callable[[Any], Generation]
    reads: Literal["prefill", "encode"] = "prefill"
    """What `begin` runs: a prompt, which gives the first generated token, or a source, after which the first step gives it."""
    group: Group = ALONE
    """Ranks that decode together, with the same number of steps."""
    sources: tuple[Source, ...] = ()
    """What each sequence translates; empty if there are no references."""
    tokens_NB: list[Tensor] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    phase: str = "decode"

    @property
    def domain(self) -> str:
        """The domain of the batch."""
        return self.batch.domain

    def settle(self, model: Any) -> None:
        """Decodes greedily; ends early if every sequence of every rank has stopped."""
        generation = self.begin(model)
        self.tokens_NB, self.steps = [], []
        running_B = torch.from_numpy(self.batch.real_BL.any(axis=1)).to(self.device)
        tokens_B = torch.where(running_B, generation.first_B, PAD)
        for _ in range(self.max_tokens):
            self.tokens_NB.append(tokens_B)
            self.steps.append(self.step(tokens_B, running_B))
            logits_BV = generation.forward(tokens_B[:, None], self.steps[-1])[:, -1]
            chosen_B = logits_BV.argmax(dim=1)
            if self.stop is not None:
                running_B = running_B & (chosen_B != self.stop)
            if not anyone(self.group, bool(running_B.any())):
                break
            tokens_B = torch.where(running_B, chosen_B, PAD)

    def step(self, tokens_B: Tensor, running_B: Tensor) -> Step:
        """The tokens of the next forward pass."""
        return make_step(
            self.phase,
            self.first_step + len(self.steps),
            self.domain,
            tokens_B[:, None].cpu().numpy(),
            running_B[:, None].cpu().numpy(),
            self.batch.sequence_B,
            self.first_position + len(self.steps),
            self.device,
        )

    def ready(self, model: Any, mark: Marker = unmarked) -> Round:
        generation = self.begin(model)

        def play() -> Tensor:
            mark()
            for tokens_B, step in zip(self.tokens_NB, self.steps, strict=True):
                logits_B1V = generation.forward(tokens_B[:, None], step)
                chosen_B = logits_B1V[:, -1].argmax(dim=1)
                mark()
            return chosen_B

        return Round(play, generation.rewind)

    def outputs(self, model: Any) -> Iterator[Tensor]:
        generation = self.begin(model)
        known = zip(self.tokens_NB, self.steps, strict=True)
        return (generation.forward(tokens_B[:, None], step)[:, -1] for tokens_B, step in known)


def with_settled_tokens(episode: DecodeEpisode, settled: Iterable[DecodeEpisode]) -> DecodeEpisode:
    """The episode with the tokens that its sequences generated in settled ones; a sequence that ended continues as padding."""
    generated: dict[int, list[int]] = {}
    for known in settled:
        for sequence, column, length in zip(known.batch.sequence_B, columns(known), lengths(known), strict=True):
            generated[int(sequence)] = column[:length]
    mine = [generated[int(sequence)] for sequence in episode.batch.sequence_B]
    for position in range(largest(episode.group, [max(map(len, mine))])[0]):
        running_B = torch.tensor([position < len(tokens) for tokens in mine], device=episode.device)
        tokens_B = torch.tensor([tokens[position] if position < len(tokens) else PAD for tokens in mine], device=episode.device)
        episode.steps.append(episode.step(tokens_B, running_B))
        episode.tokens_NB.append(tokens_B)
    return episode


def columns(episode: DecodeEpisode) -> list[list[int]]:
    """The tokens fed to each sequence, padding included."""
    rows: list[list[int]] = torch.stack(episode.tokens_NB, dim=1).tolist()
    return rows


def lengths(episode: DecodeEpisode) -> list[int]:
    """Number of tokens of each sequence that are not padding."""
    everyone = torch.ones(len(episode.batch.sequence_B), dtype=torch.bool, device=episode.device)
    counts: list[int] = sum(everyone.int() if step.real_T is None else step.real_T.int() for step in episode.steps).tolist()  # type: ignore[union-attr]
    return counts
