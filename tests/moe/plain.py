"""fairseq's Top2Gate and MOELayer in plain loops, for any number of choices: what the tensors are held against.

Written from the description (paper.md section 3), with none of the package's formulas.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
EPS = 2.0**-23
"""Of float32, below which fairseq does not divide."""


@dataclass
class Gated:
    """What becomes of every choice of every token; lists are (T, K)."""

    places: list[list[int | None]]
    """In the expert's queue; None for padding, which stands in no queue."""
    dropped: list[list[bool]]
    weights: list[list[float]]

    @property
    def losers(self) -> set[int]:
        """Tokens that lost at least one choice."""
        return {token for token, lost in enumerate(self.dropped) if any(lost)}


def choices(gates: list[list[float]], top_k: int) -> list[list[int]]:
    """One maximum after another; among equals the first that a search from the left meets."""
    chosen = []
    for row in gates:
        mine: list[int] = []
        for _ in range(top_k):
            best = None
            for expert, gate in enumerate(row):
                if expert not in mine and (best is None or gate > row[best]):
                    best = expert
            assert best is not None
            mine.append(best)
        chosen.append(mine)
    return chosen


def gated(experts: list[list[int]], probs: list[list[float]], real: list[bool], num_experts: int, slots: int) -> Gated:
    """All first choices queue up before any second one, tokens in order; whoever finds `slots` others before it is dropped."""
    num_tokens, top_k = len(experts), len(experts[0])
    queues: list[int] = [0] * num_experts
    places: list[list[int | None]] = [[None] * top_k for _ in range(num_tokens)]
    for choice in range(top_k):
        for token in range(num_tokens):
            if real[token]:
                expert = experts[token][choice]
                places[token][choice] = queues[expert]
                queues[expert] += 1
    dropped = [[place is not None and place >= slots for place in row] for row in places]
    weights = []
    for token in range(num_tokens):
        left = [0.0 if lost or not real[token] else prob for prob, lost in zip(probs[token], dropped[token], strict=True)]
        total = max(sum(left), EPS)
        weights.append([prob / total for prob in left])
    return Gated(places, dropped, weights)


ACTIVATIONS = {
    "gelu": lambda h: h * 0.5 * (1 + math.erf(h / math.sqrt(2))),
    "relu": lambda h: max(h, 0.0),
    "silu": lambda h: h / (1 + math.exp(-h)),
}


def ffn(x_D: Array, tensors: dict[str, Array], activation: str) -> Array:
    """One token through one expert: two matrices, or three if one of them is called `gate`; biases may be absent."""
    active = np.vectorize(ACTIVATIONS[activation], otypes=[np.float64])

    def affine(x: Array, matrix: str, bias: str) -> Array:
        result: Array = np.array(
            [sum(x[i] * tensors[matrix][i, o] for i in range(len(x))) for o in range(tensors[matrix].shape[1])]
        )
        return result + tensors[bias] if bias in tensors else result

    if "gate" in tensors:
        return affine(active(affine(x_D, "gate", "gate_bias")) * affine(x_D, "up", "up_bias"), "down", "down_bias")
    return affine(active(affine(x_D, "w1", "b1")), "w2", "b2")


def layer(
    x_TD: Array,
    experts: list[list[int]],
    weights: list[list[float]],
    parameters: dict[str, Array],
    activation: str,
    scale: float,
) -> Array:
    """Sum over every token's choices of weight x FFN, times `scale`; parameters are stacked by expert."""
    y_TD = np.zeros_like(x_TD)
    for token, x_D in enumerate(x_TD):
        for expert, weight in zip(experts[token], weights[token], strict=True):
            if weight:
                y_TD[token] += weight * ffn(x_D, of_expert(parameters, expert), activation)
    return y_TD * scale


def of_expert(parameters: dict[str, Array], expert: int) -> dict[str, Array]:
    """The tensors of one expert."""
    return {name: stacked[expert] for name, stacked in parameters.items()}
