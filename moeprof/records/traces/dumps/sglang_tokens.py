"""SGLang's mode `per_token`: the choices of every token, as ids of physical experts in a fixed width, with -1 where there is none.

T tokens, L layers (dense ones too), W choices in the width of the file.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from moeprof.records.arrays import Flags, Ints
from moeprof.records.system.inputs import check_memory
from moeprof.records.traces.choices import NO_EXPERT, LoggedChoices
from moeprof.records.traces.count_arrays import name_of, placed
from moeprof.records.traces.dumps.sglang_passes import RankPasses, field, mapping
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.importing import Stated, imported
from moeprof.records.traces.trace_format import TraceFile

MIXED = 3
DECODE_MODES = (2, 5)
"""`ForwardMode.DECODE` and `TARGET_VERIFY`, which checks tokens that a draft model decoded."""

ROW_BYTES = 128
"""Memory of one choice while the rows of a trace are made."""

NO_REQUESTS = (
    "SGLang names no requests: a sequence is a place in the batch, and another one begins there if a pass has no later position"
)


def read_per_token(ranks: Sequence[RankPasses], options: ImportOptions) -> TraceFile:
    """The choices of every token, prefill and decode apart; ValueError if records are damaged, or do not fit the map."""
    map_LP, num_experts, notes = mapping(ranks, options)
    kept, more = without_copies(ranks)
    passes = list(in_order(kept))
    check_memory(sum(field(record, "topk_ids_of_layer", 3).size for _, record in passes) * ROW_BYTES)
    ids_TLW = np.concatenate([ids_of(record, map_LP.shape) for _, record in passes])
    if not len(ids_TLW):
        raise ValueError("no tokens in it")
    valid_TLW = ids_TLW != NO_EXPERT
    found, silent = placed(valid_TLW.any(axis=(0, 2)), options, "all")
    used = int(np.flatnonzero(valid_TLW.any(axis=(0, 1)))[-1]) + 1
    experts_TLW = np.where(valid_TLW, map_LP[np.arange(len(map_LP))[:, None], ids_TLW], NO_EXPERT)[:, list(found.rows), :used]
    step_T, place_T, position_T, decode_T = placing(passes, {number: step for step, number in enumerate(ranks[0].ids)})
    sequence_T = sequences_apart(place_T, step_T, position_T, valid_TLW.any(axis=(1, 2)))
    token_id_T = joined(passes, "input_ids")
    choices = LoggedChoices(experts_TLW, found.layers, step_T, sequence_T, position_T, decode_T, token_id_T)
    stated = Stated(
        "sglang",
        name_of(ranks[0].source),
        num_experts,
        by_layer=True,
        clock="pass",
        repeated=repeated_rows(experts_TLW),
        notes=[*notes, *more, *silent, *skipped(experts_TLW), NO_REQUESTS],
    )
    return imported(choices, stated, options)


def skipped(experts_TLW: Ints) -> Iterator[str]:
    """A note on tokens that have choices in some layers, and none in others."""
    chosen_TL = (experts_TLW != NO_EXPERT).any(axis=2)
    if rows := int((~chosen_TL[chosen_TL.any(axis=1)]).sum()):
        yield f"rows without choices, of tokens that have some in other layers: {rows:,}"


def repeated_rows(experts_TLW: Ints) -> int:
    """How many tokens of a layer chose an expert twice."""
    in_order_TLW = np.sort(experts_TLW, axis=2)
    twice_TLW = (in_order_TLW[..., 1:] == in_order_TLW[..., :-1]) & (in_order_TLW[..., 1:] != NO_EXPERT)
    return int(twice_TLW.any(axis=2).sum())


def without_copies(ranks: Sequence[RankPasses]) -> tuple[list[RankPasses], list[str]]:
    """The ranks whose tokens are not all those of an earlier rank, as under tensor parallelism, and a note on the others."""
    kept: dict[bytes, RankPasses] = {}
    for rank in ranks:
        kept.setdefault(b"".join(field(record, "topk_ids_of_layer", 3).tobytes() for record in rank.records), rank)
    copies = len(ranks) - len(kept)
    return list(kept.values()), [f"{copies} ranks recorded the same choices as another; they count once"] if copies else []


def in_order(ranks: Sequence[RankPasses]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Forward pass and record, pass by pass; the ranks of a pass follow each other."""
    place = {number: step for step, number in enumerate(ranks[0].ids)}
    records = chain.from_iterable(rank.records for rank in ranks)
    yield from sorted(((record["forward_pass_id"], record) for record in records), key=lambda one: place[one[0]])


def ids_of(record: dict[str, Any], shape: tuple[int, ...]) -> Ints:
    """The ids of physical experts of a pass, (T, L, W); ValueError if they do not fit the map, or the token ids."""
    ids_LTW, number = field(record, "topk_ids_of_layer", 3), record["forward_pass_id"]
    tokens = len(whole_list(record, "input_ids"))
    if ids_LTW.shape[:2] != (shape[0], tokens):
        raise ValueError(
            f"forward pass {number}: topk_ids_of_layer has {ids_LTW.shape[0]} layers and {ids_LTW.shape[1]} tokens, "
            f"not {shape[0]} and {tokens}"
        )
    if ids_LTW.size and not -1 <= ids_LTW.min() <= ids_LTW.max() < shape[1]:
        wrong = ids_LTW[(ids_LTW < -1) | (ids_LTW >= shape[1])][0]
        raise ValueError(f"forward pass {number}: expert {wrong} is not one of {shape[1]} physical experts")
    return ids_LTW.transpose(1, 0, 2).astype(np.int64)


def whole_list(record: dict[str, Any], name: str) -> list[int]:
    """A list of whole numbers in a record; ValueError, with the forward pass, if it is none."""
    values = record.get(name)
    if not isinstance(values, list) or not all(type(value) is int and -(2**31) <= value < 2**31 for value in values):
        raise ValueError(f"forward pass {record['forward_pass_id']}: {name} is no list of whole numbers")
    return values


def joined(passes: Sequence[tuple[int, dict[str, Any]]], name: str) -> Ints:
    """A list of every record, one after another, (T,)."""
    return np.array(list(chain.from_iterable(whole_list(record, name) for _, record in passes)), np.int64)


def placing(passes: Sequence[tuple[int, dict[str, Any]]], steps: dict[int, int]) -> tuple[Ints, Ints, Ints, Flags]:
    """Step, sequence, position and whether it was decoded, of every token, each (T,)."""
    position_T, sequences, decoded = joined(passes, "positions"), [], []
    sizes = [len(whole_list(record, "input_ids")) for _, record in passes]
    if len(position_T) != sum(sizes):
        raise ValueError(f"{len(position_T)} positions do not belong to {sum(sizes)} tokens")
    sequences_of = dict.fromkeys(steps, 0)
    for number, record in passes:
        sequence_T, decode_T = batch_of(record)
        sequences.append(sequence_T + sequences_of[number])
        decoded.append(decode_T)
        sequences_of[number] += int(sequence_T.max(initial=-1)) + 1
    step_T = np.repeat([steps[number] for number, _ in passes], sizes)
    return step_T, np.concatenate(sequences), position_T, np.concatenate(decoded)


def sequences_apart(place_T: Ints, step_T: Ints, position_T: Ints, valid_T: Flags) -> Ints:
    """The sequence of every token: its place in the batch, or a further number for later requests at that place, (T,).

    place 0, steps 0, 1, 2, 3, positions 4, 5, 0, 1  ->  sequences 0, 0, 1, 1
    """
    at = np.flatnonzero(valid_T)
    order = at[np.argsort(place_T[at], kind="stable")]
    place, step, position = place_T[order], step_T[order], position_T[order]
    other = np.append(True, place[1:] != place[:-1])
    begins = other | np.append(False, (step[1:] != step[:-1]) & (position[1:] <= position[:-1]))
    number = place[begins]
    later = np.flatnonzero(~other[begins])
    number[later[np.argsort(order[begins][later])]] = place_T.max(initial=-1) + 1 + np.arange(len(later))
    sequence_T = place_T.copy()
    sequence_T[order] = number[np.cumsum(begins) - 1]
    return sequence_T


def batch_of(record: dict[str, Any]) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """The place in its batch of every token's sequence, and whether the token was decoded, each (T,).

    A mixed batch has prompts, and single tokens behind earlier ones, which are decoded.
    """
    positions, mode = whole_list(record, "positions"), record.get("forward_mode")
    size = len(positions)
    if type(mode) is not int:
        raise ValueError(f"forward pass {record['forward_pass_id']}: forward_mode is no number")
    if mode in DECODE_MODES or record.get("extend_seq_lens") is None:
        return np.arange(size), np.full(size, mode in DECODE_MODES)
    lengths = whole_list(record, "extend_seq_lens")
    if min(lengths, default=0) < 0 or sum(lengths) > size:
        raise ValueError(f"forward pass {record['forward_pass_id']}: extend_seq_lens has {sum(lengths)} tokens, not {size}")
    lengths = [*lengths, *[1] * (size - sum(lengths))]
    single_T = np.repeat(lengths, lengths) == 1
    return np.repeat(np.arange(len(lengths)), lengths), (mode == MIXED) & single_T & (np.array(positions, np.int64) > 0)
