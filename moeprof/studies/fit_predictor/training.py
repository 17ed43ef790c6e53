"""Trains the network of one stack: truncated distillation of the routers' distributions, and a little cross-entropy (SiDA, section 3).

B sequences, L positions, N tokens, D width, E experts, K choices, P compared positions.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from moeprof.predictors.network import PredictorNetwork
from moeprof.records.predictor import FitSettings, StackHeader
from moeprof.studies.fit_predictor.lessons import StackLessons
from moeprof.studies.train.loop import Timer, process_time


@dataclass(frozen=True)
class Trained:
    """A network after its training."""

    network: PredictorNetwork
    epochs: int
    """Complete ones."""
    cpu_seconds: float


def train(
    lessons: StackLessons,
    shape: StackHeader,
    settings: FitSettings,
    width: int,
    advance: Callable[[], None],
    timer: Timer = process_time,
) -> Trained:
    """The network after all epochs, or as it is when `settings.cpu_minutes` are over; the same seed gives the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        network = PredictorNetwork(lessons.x_TD.shape[1], width, list(shape.layers.values()), causal=shape.causal)
    order = torch.Generator().manual_seed(settings.seed)
    optimizer = torch.optim.AdamW(network.parameters(), settings.learning_rate)
    updates = settings.epochs * -(-len(lessons.spans) // settings.batch_size)
    fall = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: 1 - done / (updates + 1))
    begun, epochs = timer(), 0
    while epochs < settings.epochs:
        for batch in drawn(lessons.spans, settings.batch_size, order):
            update(network, lessons, batch, optimizer, settings)
            fall.step()
            if timer() - begun > 60 * settings.cpu_minutes:
                return Trained(network.eval(), epochs, timer() - begun)
        epochs += 1
        advance()
    return Trained(network.eval(), epochs, timer() - begun)


def drawn(spans: Sequence[tuple[int, int]], size: int, order: torch.Generator) -> Iterator[list[tuple[int, int]]]:
    """All sequences in random order, in batches."""
    numbers = torch.randperm(len(spans), generator=order).tolist()
    for start in range(0, len(numbers), size):
        yield [spans[number] for number in numbers[start : start + size]]


def update(
    network: PredictorNetwork,
    lessons: StackLessons,
    batch: Sequence[tuple[int, int]],
    optimizer: torch.optim.Optimizer,
    settings: FitSettings,
) -> None:
    """One step of the optimizer."""
    x_BLD, real_BL = padded(lessons.x_TD, batch)
    index_N = torch.cat([torch.arange(*span) for span in batch])
    scores, _ = network(x_BLD, real_BL=real_BL)
    losses = [
        loss(scores_BLE[real_BL], lessons.gates[layer][index_N], lessons.experts[layer][index_N], settings)
        for layer, scores_BLE in zip(lessons.gates, scores, strict=True)
    ]
    optimizer.zero_grad()
    torch.autograd.backward(torch.stack(losses).sum())
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()


def padded(x_TD: Tensor, batch: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """The sequences of a batch, (B, L, D), and which positions are tokens, (B, L)."""
    lengths_B = torch.tensor([end - start for start, end in batch])
    x_BLD = pad_sequence([x_TD[start:end] for start, end in batch], batch_first=True)
    return x_BLD, torch.arange(x_BLD.shape[1]) < lengths_B[:, None]


def loss(scores_NE: Tensor, gates_NE: Tensor, experts_NK: Tensor, settings: FitSettings) -> Tensor:
    """The distance between the shares of the experts that the router prefers, plus the cross-entropy of its choices."""
    teacher_NP, preferred_NP = gates_NE.topk(min(settings.positions, gates_NE.shape[1]), dim=1)
    teacher_NP = teacher_NP / teacher_NP.sum(dim=1, keepdim=True)
    distance = (torch.softmax(scores_NE.gather(1, preferred_NP), dim=1) - teacher_NP).abs().sum(dim=1).mean()
    chosen = torch.log_softmax(scores_NE, dim=1).gather(1, experts_NK).mean()
    return distance - settings.ce_weight * chosen
