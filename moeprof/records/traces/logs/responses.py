"""Responses of a server as sequences of tokens: what SGLang and vLLM have in common when they return the experts of a request.

T tokens, L layers, K choices.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from moeprof.records.system.inputs import InputFile, filled_lines
from moeprof.records.system.parsing import parsed_json, parsed_line
from moeprof.records.traces.choices import NO_EXPERT, Ids, LoggedChoices
from moeprof.records.traces.dense_layers import moe_layers_of
from moeprof.records.traces.layer_map import LayerMap
from moeprof.records.traces.logs.arrays import shape_of

Response = dict[str, object]


@dataclass(frozen=True)
class Answered:
    """One sequence that a server read and wrote; its rows are of neighbouring positions."""

    experts_TLK: Ids
    num_prompt: int | None
    """Tokens of the prompt; None if unknown, and every row counts as a step of decoding."""
    first: int = 0
    """The position of the first row."""
    token_ids: Sequence[int] | None = None
    """Of all positions from 0; -1 where unknown."""


def responses_in(file: InputFile) -> Iterator[Response]:
    """The JSON objects in a file: one, a list of them, or one per line; ValueError if there is anything else."""
    lines = filled_lines(file.texts())
    try:
        first = parsed_json(next(lines, (0, "[]"))[1])
    except ValueError:
        yield from objects_in(file.json())  # one document of several lines
        return
    yield from objects_in(first)
    for number, line in lines:
        yield from objects_in(parsed_line(line, number), f"line {number}: ")


def objects_in(document: object, where: str = "") -> list[Response]:
    """The document if it is an object, or the objects that it lists; ValueError if it is anything else."""
    listed = document if isinstance(document, list) else [document]
    found = [one for one in listed if isinstance(one, dict)]
    if len(found) < len(listed):
        raise ValueError(f"{where}not a JSON object per response")
    return found


def choices_of(answers: Sequence[Answered], stated: LayerMap | None) -> LoggedChoices:
    """The sequences one after another: a prompt is one step, and each token behind it a step of its own.

    ValueError if there are none, if their shapes differ, or if the layers are not known or do not fit.
    """
    if not answers:
        raise ValueError("no response with routed experts in it")
    shape_of([answer.experts_TLK for answer in answers])
    experts_TLK, layers = moe_layers_of(np.concatenate([answer.experts_TLK for answer in answers]), stated)
    length_S = np.array([len(answer.experts_TLK) for answer in answers])
    first_S = np.array([answer.first for answer in answers])
    prompt_S = np.array([answer.num_prompt or 0 for answer in answers])
    sequence_T = np.repeat(np.arange(len(answers)), length_S)
    start_S = np.cumsum(length_S) - length_S
    position_T = np.arange(len(sequence_T)) - start_S[sequence_T] + first_S[sequence_T]
    decode_T = position_T >= prompt_S[sequence_T]
    begins_T = decode_T | np.isin(np.arange(len(sequence_T)), start_S)
    known = any(answer.token_ids is not None for answer in answers)
    return LoggedChoices(
        experts_TLK,
        layers,
        step_T=np.cumsum(begins_T) - 1,
        sequence_T=sequence_T,
        position_T=position_T,
        decode_T=decode_T,
        token_id_T=np.concatenate([ids_of_rows(answer) for answer in answers]) if known else None,
    )


def first_and_rows(answer: Answered) -> int:
    """The position behind the last row."""
    return answer.first + len(answer.experts_TLK)


def ids_of_rows(answer: Answered) -> Ids:
    """The token of every row; -1 where it is unknown."""
    found = np.full(len(answer.experts_TLK), -1)
    known = list(answer.token_ids or ())[answer.first : first_and_rows(answer)]
    found[: len(known)] = known
    return found


def check_cached(answers: Sequence[Answered]) -> None:
    """ValueError unless the positions without experts are the first ones of a prompt, which a prefix cache can serve."""
    for number, answer in enumerate(answers):
        none_T = (answer.experts_TLK == NO_EXPERT).any(axis=(1, 2))
        cached = len(none_T) if none_T.all() else int(np.argmin(none_T))
        later = np.flatnonzero(none_T[cached:])
        where = cached + int(later[0]) if len(later) else cached - 1
        if len(later) or (
            cached and where + answer.first >= (first_and_rows(answer) if answer.num_prompt is None else answer.num_prompt)
        ):
            raise ValueError(
                f"position {where + answer.first} of sequence {number} has expert -1, but a prefix cache serves only the "
                "beginning of a prompt"
            )
