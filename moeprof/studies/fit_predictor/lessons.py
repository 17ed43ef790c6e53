"""What a model's routers decided for every token of a text, as lessons for a predictor.

B sequences, L positions, T tokens, D width, E experts, K choices.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from moeprof.huggingface.model import HuggingFaceModel
from moeprof.instrument.probe import Probe, observed_by
from moeprof.instrument.step import Step
from moeprof.models.build import Model
from moeprof.predictors.embeddings import embeddings_observed
from moeprof.predictors.predictor import stack_of
from moeprof.records.errors import UsageError
from moeprof.records.predictor import StackHeader, StackName
from moeprof.studies.progress import Progress
from moeprof.workloads.episodes import Episode


@dataclass(frozen=True, eq=False)
class StackLessons:
    """The tokens of all sequences that passed one stack, sequence after sequence."""

    sequence_T: Tensor
    """Number of the excerpt of each token."""
    token_T: Tensor
    """Token ids."""
    x_TD: Tensor
    """Embeddings, float32."""
    gates: dict[str, Tensor]
    """By layer, the softmax of its router, (T, E) float32."""
    experts: dict[str, Tensor]
    """By layer, the choices of its router, (T, K)."""

    @property
    def spans(self) -> list[tuple[int, int]]:
        """First and last index (excluded) of the tokens of every sequence."""
        _, counts = torch.unique_consecutive(self.sequence_T, return_counts=True)
        ends = counts.cumsum(0).tolist()
        return list(zip([0, *ends[:-1]], ends, strict=True))

    def shuffled(self, seed: int) -> "StackLessons":
        """The same tokens with the decisions of other tokens, drawn without replacement; those of one token stay together."""
        order_T = torch.randperm(len(self.token_T), generator=torch.Generator().manual_seed(seed))
        gates = {layer: gates_TE[order_T] for layer, gates_TE in self.gates.items()}
        experts = {layer: experts_TK[order_T] for layer, experts_TK in self.experts.items()}
        return StackLessons(self.sequence_T, self.token_T, self.x_TD, gates, experts)


@dataclass(eq=False)
class ForwardPass:
    """What one forward pass showed."""

    step: Step
    x_TD: Tensor
    gates: dict[str, Tensor] = field(default_factory=dict)
    experts: dict[str, Tensor] = field(default_factory=dict)


class Teacher(Probe):
    """Records the embeddings of every forward pass, and the distribution and the choices of every router."""

    def __init__(self) -> None:
        self.embedded_TD = torch.empty(0)
        self.passes: list[ForwardPass] = []

    def embedded(self, x_BLD: Tensor) -> None:
        """Keeps the embeddings of the forward pass that begins."""
        self.embedded_TD = x_BLD.flatten(0, 1)

    def of(self, step: Step) -> ForwardPass:
        """The record of the running forward pass."""
        if not self.passes or self.passes[-1].step is not step:
            self.passes.append(ForwardPass(step, self.real(step, self.embedded_TD)))
        return self.passes[-1]

    def real(self, step: Step, values: Tensor) -> Tensor:
        """The rows of tokens that are not padding, on the CPU."""
        return (values if step.real_T is None else values[step.real_T]).cpu()

    def scored(self, layer: str, step: Step, gates_TE: Tensor) -> None:
        self.of(step).gates[layer] = self.real(step, gates_TE).float()

    def routed(self, layer: str, step: Step, experts_TK: Tensor, probs_TK: Tensor, dropped_TK: Tensor, num_rows: int) -> None:
        self.of(step).experts[layer] = self.real(step, experts_TK)

    def lessons(self, stacks: dict[StackName, StackHeader]) -> dict[StackName, StackLessons]:
        """Everything recorded, by stack; UsageError if a router showed no distribution."""
        return {
            stack: joined([done for done in self.passes if stack_of(done.step.phase) == stack], shape)
            for stack, shape in stacks.items()
        }


def joined(passes: list[ForwardPass], shape: StackHeader) -> StackLessons:
    """The tokens of all passes of a stack, sorted by sequence."""
    for layer, experts in shape.layers.items():
        widths = {done.gates[layer].shape[1] if layer in done.gates else 0 for done in passes}
        if widths != {experts}:
            raise UsageError(
                f"layer {layer}: its router shows no distribution over {experts} experts that a predictor could learn",
                "Use a model whose routers' scores can be recorded.",
            )
    sequence_T = torch.cat([torch.from_numpy(columns(done.step)[0]) for done in passes])
    order_T = sequence_T.argsort(stable=True)
    return StackLessons(
        sequence_T=sequence_T[order_T],
        token_T=torch.cat([torch.from_numpy(columns(done.step)[1]) for done in passes])[order_T],
        x_TD=torch.cat([done.x_TD for done in passes]).float()[order_T],
        gates={layer: torch.cat([done.gates[layer] for done in passes])[order_T] for layer in shape.layers},
        experts={layer: torch.cat([done.experts[layer] for done in passes]).long()[order_T] for layer in shape.layers},
    )


def columns(step: Step) -> tuple[np.ndarray, np.ndarray]:
    """Sequence and token id of the tokens of a step that are not padding."""
    assert step.sequence_T is not None
    assert step.token_T is not None
    real_T = np.ones(len(step.token_T), bool) if step.real_T is None else step.real_T.cpu().numpy()
    return step.sequence_T[real_T].astype(np.int64), step.token_T[real_T].astype(np.int64)


def taught(
    model: Model | HuggingFaceModel, episodes: Iterable[Episode], stacks: dict[StackName, StackHeader], progress: Progress
) -> dict[StackName, StackLessons]:
    """Runs the episodes and returns what the routers decided, by stack."""
    teacher = Teacher()
    with torch.no_grad(), embeddings_observed(model, teacher.embedded), observed_by(teacher):
        for episode in episodes:
            episode.settle(model)
            if episode.phase != "decode":
                episode.ready(model)()
            progress.advance()
    return teacher.lessons(stacks)
