"""How well a predictor and simpler methods foresee the routers' choices, on documents that none of them was fitted on.

T tokens, K choices, W predicted experts, E experts, V vocabulary, M documents, R resamples.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moeprof.moe.router import best
from moeprof.predictors.network import PredictorNetwork
from moeprof.records.predictor import Advantage, HitRate
from moeprof.studies.fit_predictor.lessons import StackLessons
from moeprof.studies.fit_predictor.training import padded

JUDGED_AT_ONCE = 64
RESAMPLES, SEED = 2000, 0
TAIL = 0.025
WIDER = (1, 2, 4)
"""Experts asked for, as multiples of K."""

Scores = Callable[[StackLessons], Mapping[str, Tensor]]
"""From the tokens of a stack to scores of all experts by layer, (T, E), not negative, of which the largest are predicted."""

PerDocument = npt.NDArray[np.int64]
"""A number for each of the M documents."""


@dataclass(frozen=True)
class Hits:
    """How many of the router's choices one method predicted in one layer."""

    stack: str
    layer: str
    method: str
    asked: int
    hits_M: PerDocument
    choices_M: PerDocument


def predicted(network: PredictorNetwork) -> Scores:
    """The scores of a network."""

    def scores(lessons: StackLessons) -> Mapping[str, Tensor]:
        found: dict[str, list[Tensor]] = {layer: [] for layer in lessons.gates}
        with torch.no_grad():
            for start in range(0, len(lessons.spans), JUDGED_AT_ONCE):
                x_BLD, real_BL = padded(lessons.x_TD, lessons.spans[start : start + JUDGED_AT_ONCE])
                for layer, scores_BLE in zip(found, network(x_BLD, real_BL=real_BL)[0], strict=True):
                    found[layer].append(torch.softmax(scores_BLE[real_BL], dim=1))
        return {layer: torch.cat(parts) for layer, parts in found.items()}

    return scores


def frequency(fitted: StackLessons) -> Scores:
    """How often each expert is chosen, whatever the token."""
    return lambda lessons: {layer: shares(fitted, layer).expand(len(lessons.token_T), -1) for layer in lessons.gates}


def shares(fitted: StackLessons, layer: str) -> Tensor:
    """The share of each expert in the choices, (E,)."""
    counts_E = torch.bincount(fitted.experts[layer].flatten(), minlength=fitted.gates[layer].shape[1])
    return counts_E / counts_E.sum()


def token_table(fitted: StackLessons) -> Scores:
    """How often each expert is chosen for this token id; for an id that was not seen, whatever the token."""
    known, row_T = (torch.from_numpy(found) for found in np.unique(fitted.token_T.numpy(), return_inverse=True))

    def scores(lessons: StackLessons) -> Mapping[str, Tensor]:
        place_T = torch.searchsorted(known, lessons.token_T).clamp(max=len(known) - 1)
        place_T = torch.where(known[place_T] == lessons.token_T, place_T, len(known))
        return {layer: counted(fitted, layer, row_T, len(known))[place_T] + shares(fitted, layer) for layer in lessons.gates}

    return scores


def counted(fitted: StackLessons, layer: str, row_T: Tensor, rows: int) -> Tensor:
    """How often each expert is chosen for the tokens of each row, with a row of zeros behind them, (rows + 1, E)."""
    experts_TK = fitted.experts[layer]
    counts_VE = torch.zeros(rows + 1, fitted.gates[layer].shape[1])
    return counts_VE.index_put_(
        (row_T[:, None].expand_as(experts_TK), experts_TK), torch.ones(experts_TK.shape), accumulate=True
    )


def previous(fitted: StackLessons) -> Scores:
    """The router's distribution for the token before; for the first token of a sequence, how often each expert is chosen."""

    def scores(lessons: StackLessons) -> Mapping[str, Tensor]:
        firsts = [start for start, _ in lessons.spans]
        found = {layer: gates_TE.roll(1, dims=0) for layer, gates_TE in lessons.gates.items()}
        for layer, gates_TE in found.items():
            gates_TE[firsts] = shares(fitted, layer)
        return found

    return scores


def hits_of(
    stack: str, lessons: StackLessons, document_T: PerDocument, count: int, methods: Mapping[str, Scores]
) -> Iterator[Hits]:
    """Hits of every method in every layer, by document of `count`, for every number of experts asked for."""
    for method, scores in methods.items():
        for layer, scores_TE in scores(lessons).items():
            experts_TK = lessons.experts[layer]
            top_k = experts_TK.shape[1]
            choices_M = top_k * np.bincount(document_T, minlength=count)
            for asked in sorted({min(factor * top_k, scores_TE.shape[1]) for factor in WIDER}):
                predicted_TW = best(scores_TE, asked)
                hit_T = (predicted_TW[:, :, None] == experts_TK[:, None, :]).any(dim=1).sum(dim=1).numpy()
                hits_M = np.bincount(document_T, weights=hit_T, minlength=count).astype(np.int64)
                yield Hits(stack, layer, method, asked, hits_M, choices_M)


def rates(hits: Sequence[Hits], top_k: int) -> list[HitRate]:
    """Recall and precision of every method in every layer, and over all layers."""
    groups: dict[tuple[str, str, str, int], list[Hits]] = {}
    for each in hits:
        for stack, layer in ((each.stack, each.layer), ("", "")):
            groups.setdefault((stack, layer, each.method, each.asked), []).append(each)
    found = []
    for (stack, layer, method, asked), members in groups.items():
        hit, choices = (sum(int(getattr(each, name).sum()) for each in members) for name in ("hits_M", "choices_M"))
        found.append(HitRate(stack, layer, method, asked, hit / choices, hit / choices * top_k / asked))
    return found


def advantages(hits: Sequence[Hits], top_k: int, ours: str) -> list[Advantage]:
    """The recall of `ours` minus that of each other method, over all layers; documents are resampled together for both."""
    totals = {each.method: np.zeros_like(each.hits_M) for each in hits}
    choices_M = np.zeros_like(hits[0].choices_M)
    for each in hits:
        if each.asked == top_k:
            totals[each.method] += each.hits_M
            choices_M = choices_M + (each.choices_M if each.method == ours else 0)
    count = len(choices_M)
    drawn_RM = np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    found = []
    for method, hits_M in totals.items():
        if method != ours:
            gained_M = totals[ours] - hits_M
            low, high = np.quantile((drawn_RM @ gained_M) / (drawn_RM @ choices_M), [TAIL, 1 - TAIL])
            found.append(Advantage(method, float(gained_M.sum() / choices_M.sum()), float(low), float(high)))
    return found
