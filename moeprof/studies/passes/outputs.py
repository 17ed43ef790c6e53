"""The pass `outputs`: whether a variant computes what the baseline computes, checked before anything is timed.

Layer by layer on the baseline's own inputs, then end to end. T rows of a step, K choices, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moeprof.analysis.comparison.output_agreement import Agreement, Compared
from moeprof.huggingface.layer import ExpertsLayer
from moeprof.huggingface.model import HuggingFaceModel
from moeprof.instrument.hooks import hooked
from moeprof.instrument.probe import Probe, observed_by
from moeprof.instrument.step import Step
from moeprof.moe.layer import MoELayer, moe_layers
from moeprof.moe.sparse_layer import SparseLayer
from moeprof.records.arrays import Flags
from moeprof.records.recipe.variant import OWN, Variant
from moeprof.records.run.raw_tables import AGREEMENT
from moeprof.studies.passes.finite import finite
from moeprof.studies.selection import first_of_each_domain
from moeprof.studies.services import Findings, RunModel, Services
from moeprof.workloads.episodes import Episode

TOLERANCES = {"float32": 1e-4, "bfloat16": 3e-2, "float16": 5e-3}
"""Largest difference of a token's outputs, as a share of its largest output."""

INTACT = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Decision:
    """What a layer decided about the tokens of a step."""

    layer: str
    step: Step
    experts_TK: Tensor
    """The chosen experts in the order of their numbers."""
    probs_TK: Tensor
    """The largest softmax values, best first, whichever experts they belong to."""
    dropped_TK: Tensor
    """The choices, in this order, that no expert computes, as one is full."""

    @property
    def lost_T(self) -> Flags:
        """Tokens that lost a choice."""
        return any_of(self.dropped_TK)


class DecisionRecorder(Probe):
    """Keeps the decisions of one play, in order."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []

    def routed(self, layer: str, step: Step, experts_TK: Tensor, probs_TK: Tensor, dropped_TK: Tensor, num_rows: int) -> None:
        sorted_TK, order_TK = experts_TK.sort(dim=1)
        self.decisions.append(Decision(layer, step, sorted_TK, probs_TK, dropped_TK.gather(1, order_TK)))


@dataclass(frozen=True)
class LayerCall:
    """A layer's outputs on some inputs."""

    y_TD: Tensor
    lost_T: Flags
    """Tokens that lost a choice in it."""


See = Callable[[SparseLayer, Step, LayerCall, Callable[[], LayerCall]], None]
"""Takes a layer, its step, what it computed, and what computes it again on the same inputs, as the layer's variant then says."""


class Context:
    """The position from which on a sequence depends on a lost choice; an encoder sees all of its sentence at once."""

    def __init__(self) -> None:
        self.first_lost: dict[int, int] = {}

    def intact(self, step: Step) -> Flags:
        """Tokens that are not padding and depend on no lost choice, (T,)."""
        first_lost = np.array([self.first_lost.get(int(sequence), INTACT) for sequence in sequences(step)])
        intact_T: Flags = real(step) & (positions(step) < first_lost)
        return intact_T

    def lose(self, step: Step, lost_T: Flags) -> None:
        """Marks everything that depends on these tokens from now on."""
        for row in np.flatnonzero(lost_T & real(step)):
            sequence = int(sequences(step)[row])
            position = -1 if step.phase == "encode" else int(positions(step)[row])
            self.first_lost[sequence] = min(self.first_lost.get(sequence, INTACT), position)


def check_outputs(services: Services, phase: str, episodes: Sequence[Episode]) -> Findings:
    """Records how every other variant with experts agrees with the baseline, on the batches that are timed."""
    others = services.runner.routed[1:]
    chosen = first_of_each_domain(episodes)
    services.progress.stage(f"{phase}: outputs", len(chosen) * (1 + len(others)))
    found = {variant: Agreement() for variant in others}
    for episode in chosen:
        compare(services, episode, found)
    services.record(AGREEMENT, (row for variant, mine in found.items() for row in agreement_rows(phase, variant.label, mine)))
    return Findings()


def agreement_rows(phase: str, label: str, found: Agreement) -> Iterator[dict[str, Any]]:
    """Rows of the raw table `agreement`: end to end, then layer by layer."""
    cells = {"phase": phase, "variant": label}
    totals = {"tokens": found.tokens, "flips": found.flips, "jumps": found.jumps, "agreeing": found.agreeing}
    nothing: dict[str, Any] = dict.fromkeys(totals)
    for layer, part in {"": found.whole, **found.layers}.items():
        counts = {"compared": part.tokens, "differing": part.differing, "max_abs_diff": part.max_abs_diff}
        yield {**cells, "layer": layer, **counts, **(nothing if layer else totals)}


def compare(services: Services, episode: Episode, found: dict[Variant, Agreement]) -> None:
    """One batch under the baseline, its layers under all others on the same inputs, then the others end to end."""
    tolerance, runner = TOLERANCES[services.recipe.model.dtype], services.runner
    recorder = DecisionRecorder()

    def same_inputs(layer: SparseLayer, step: Step, expected: LayerCall, again: Callable[[], LayerCall]) -> None:
        if step.phase == episode.phase:
            for variant, agreement in found.items():
                other = repeated(layer, variant, again)
                kept_T = real(step, len(other.lost_T)) & ~expected.lost_T & ~other.lost_T
                agreement.layers.setdefault(layer.name, Compared()).add(
                    *differences(expected.y_TD, other.y_TD, kept_T, tolerance)
                )

    model = runner.select(runner.baseline)
    with calls_seen(model, recorder, same_inputs):
        expected = played(episode, model, recorder)
    services.progress.advance()
    for variant, agreement in found.items():
        other = DecisionRecorder()
        outputs = played(episode, runner.select(variant), other)
        compare_whole(episode, (recorder, expected), (other, outputs), agreement, tolerance, own=runner.baseline == OWN)
        services.progress.advance()


def played(episode: Episode, model: RunModel, recorder: DecisionRecorder) -> list[Tensor]:
    """The outputs of every step; the recorder keeps the decisions behind them."""
    with observed_by(recorder):
        return list(episode.outputs(model))


def calls_seen(model: RunModel, recorder: DecisionRecorder, see: See) -> AbstractContextManager[None]:
    """Calls `see` after each call of a layer in the block; decisions of repetitions are taken from the recorder again."""
    if isinstance(model, HuggingFaceModel):

        def seen(layer: ExpertsLayer, step: Step, y_TD: Tensor, again: Callable[[], Tensor]) -> None:
            """What the model itself drops is no loss: no variant computes it."""
            see(layer, step, LayerCall(y_TD, np.zeros(len(y_TD), bool)), lambda: LayerCall(again(), lost_in(layer, len(y_TD))))

        return model.calls_observed(seen)

    def after(layer: MoELayer, inputs: tuple[Tensor, Step], y_TD: Tensor) -> None:
        def again() -> LayerCall:
            return LayerCall(layer.forward(*inputs), recorder.decisions.pop().lost_T)

        see(layer, inputs[1], LayerCall(y_TD, recorder.decisions[-1].lost_T), again)

    return hooked(moe_layers(model), after)


def lost_in(layer: ExpertsLayer, num_rows: int) -> Flags:
    """The tokens that lost a choice in the last call of a layer, (T,)."""
    return np.zeros(num_rows, bool) if layer.dropped_TK is None else any_of(layer.dropped_TK)


def repeated(layer: SparseLayer, variant: Variant, again: Callable[[], LayerCall]) -> LayerCall:
    """What the layer computes on the same inputs as `variant`."""
    usual = layer.variant
    layer.use(variant)
    try:
        return again()
    finally:
        layer.use(usual)


def compare_whole(
    episode: Episode,
    expected: tuple[DecisionRecorder, list[Tensor]],
    found: tuple[DecisionRecorder, list[Tensor]],
    agreement: Agreement,
    tolerance: float,
    *,
    own: bool,
) -> None:
    """Compares every step's outputs for tokens that depend on no lost choice and no other decision.

    `own`: the baseline is a model of transformers, and choices that it drops itself are no loss to who drops the same.
    """
    context = Context()
    for ours, theirs in zip(expected[0].decisions, found[0].decisions, strict=True):
        lost_TK = ours.dropped_TK ^ theirs.dropped_TK if own else ours.dropped_TK | theirs.dropped_TK
        follow(context, ours, theirs, any_of(lost_TK), agreement, tolerance)
    for step, ours_TV, theirs_TV in zip(episode.steps, expected[1], found[1], strict=True):
        agreement.tokens += int(real(step).sum())
        agreement.whole.add(*differences(ours_TV, theirs_TV, context.intact(step), tolerance))
        if episode.phase != "encode":
            same_T = (ours_TV.argmax(dim=1) == theirs_TV.argmax(dim=1)) & finite(ours_TV) & finite(theirs_TV)
            agreement.agreeing = (agreement.agreeing or 0) + int((same_T.cpu().numpy() & real(step)).sum())


def follow(context: Context, ours: Decision, theirs: Decision, lost_T: Flags, agreement: Agreement, tolerance: float) -> None:
    """Adds what one layer lost (T,) or decided differently to the context; counts flips and jumps."""
    intact_T = context.intact(ours.step)
    other_T = (ours.experts_TK != theirs.experts_TK).any(dim=1).cpu().numpy() & intact_T
    # A near-tie leaves the same best values behind, whichever expert they belong to.
    apart_TK = (ours.probs_TK - theirs.probs_TK).abs() > 5 * tolerance * ours.probs_TK
    jumps_T = apart_TK.any(dim=1).cpu().numpy() & other_T
    agreement.jumps += int(jumps_T.sum())
    agreement.flips += int((other_T & ~jumps_T).sum())
    context.lose(ours.step, lost_T | other_T)


def differences(ours_TV: Tensor, theirs_TV: Tensor, chosen_T: Flags, tolerance: float) -> tuple[int, int, float]:
    """Rows compared, rows that differ beyond the tolerance (NaN and infinity always do), and the largest absolute difference,
    infinite if it is no number."""
    rows = torch.from_numpy(np.flatnonzero(chosen_T)).to(ours_TV.device)
    if not len(rows):
        return 0, 0, 0.0
    ours_NV, theirs_NV = ours_TV[rows].float(), theirs_TV[rows].float()
    apart_N = (ours_NV - theirs_NV).abs().amax(dim=1)
    equal_N = apart_N.isfinite() & (apart_N <= tolerance * ours_NV.abs().amax(dim=1))
    return len(rows), int((~equal_N).sum()), float(apart_N.nan_to_num(torch.inf, torch.inf).max())


def any_of(flags_TK: Tensor) -> Flags:
    """Which rows have a flag set, (T,)."""
    flags: Flags = flags_TK.any(dim=1).cpu().numpy()
    return flags


def real(step: Step, num_rows: int | None = None) -> Flags:
    """Which rows are not padding, (T,)."""
    if step.real_T is None:
        return np.ones(len(sequences(step)) if num_rows is None else num_rows, bool)
    flags: Flags = step.real_T.cpu().numpy()
    return flags


def sequences(step: Step) -> npt.NDArray[np.int32]:
    """The sequence of every row, (T,)."""
    assert step.sequence_T is not None
    return step.sequence_T


def positions(step: Step) -> npt.NDArray[np.int32]:
    """The position of every row in its sequence, (T,)."""
    assert step.position_T is not None
    return step.position_T
