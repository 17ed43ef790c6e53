"""What a conversion loses: what the source says, and the target has no field for.

R rows of a trace, T tokens.
"""

from collections.abc import Iterator

import numpy as np

from moeprof.records.arrays import Ints
from moeprof.records.traces.routing_trace import RoutingTrace
from moeprof.records.traces.trace_format import TraceFile, TraceFormat

COLUMN_TITLES = {
    "step": "forward passes",
    "sequence": "numbers of sequences",
    "position": "positions",
    "token_id": "token ids",
    "weight": "weights of choices",
    "domain": "domains",
    "dropped": "which choices were dropped",
    "residency": "hits and misses of a cache",
}
"""What a column of a trace says."""

MODEL_TITLES = {
    "top_k": "how many experts a token uses",
    "experts": "the number of experts",
    "layers": "numbers of layers",
}
"""What a fact of the model says."""


def lost_facts(source: TraceFile, entry: TraceFormat) -> Iterator[str]:
    """What the source says and the format has no field for."""
    if source.traces and entry.loads_only:
        yield "choices of single tokens"
    stated = {name for trace in source.traces for name in stated_columns(trace)}
    stated &= {"domain"} if entry.loads_only else stated
    if source.counts is not None:
        stated = {"domain"} if len(source.counts.counts) > 1 else set()
        stated |= {"step"} if source.counts.num_steps > 1 else set()
    if stated & entry.derives:
        stated -= entry.derives & derived_columns(source)
    yield from (title for name, title in COLUMN_TITLES.items() if name in stated - entry.keeps)
    if not entry.loads_only and "phase" not in entry.keeps and len({trace.header.phase for trace in source.traces}) > 1:
        yield "phases"
    yield from (title for name, title in MODEL_TITLES.items() if name in entry.omits and says(source, entry, name))
    if source.expert_bytes and "expert_bytes" not in entry.keeps:
        yield "bytes of an expert"


def says(source: TraceFile, entry: TraceFormat, fact: str) -> bool:
    """Whether the source states a fact of the model that no one finds again in what the format holds."""
    headers = [trace.header for trace in source.traces]
    if fact == "top_k":
        as_loads = entry.loads_only or source.counts is not None
        return as_loads and bool(source.counts.top_k if source.counts else headers)
    if fact == "layers":
        names = list(map(str, source.counts.layers)) if source.counts else [name for one in headers for name in one.layers]
        return {*names} != set(map(str, range(len({*names}))))
    highest = max((int(trace.column("expert").max(initial=0)) for trace in source.traces), default=0)
    return not source.experts_guessed and any(one.num_experts > highest + 1 for one in headers)


def stated_columns(trace: RoutingTrace) -> Iterator[str]:
    """The columns that say something: not only what stands for unknown, and not the same in all rows where that says nothing."""
    if not len(trace):
        return
    yield from (name for name in ("step", "sequence", "position") if trace.column(name).any())
    if (trace.column("token_id") >= 0).any():
        yield "token_id"
    if np.isfinite(trace.column("weight")).any():
        yield "weight"
    if len(trace.names("domain")) > 1:
        yield "domain"
    if trace.column("dropped").any():
        yield "dropped"
    if trace.table["residency"].null_count < len(trace):
        yield "residency"


def derived_columns(file: TraceFile) -> set[str]:
    """Columns that are what a reader makes of tokens that follow each other, sequence by sequence.

    A prompt is one step, and each decoded token a step of its own; sequences are counted from 0, and so are positions in each.
    Phases of a log share the numbers of their steps; those of a run have their own.
    """
    tokens = [tokens_of(trace) for trace in file.traces]
    groups = [np.concatenate(tokens, axis=1)] if file.shared_steps else tokens
    found = {"step"} if all(map(steps_follow, groups)) else set()
    sequence_T, decoded_T, position_T, _ = in_order(np.concatenate(tokens, axis=1))
    starts_T = np.append(True, np.diff(sequence_T) != 0)
    if (sequence_T == np.cumsum(starts_T) - 1).all() and (starts_T.sum() == 1 or not decoded_T.any()):
        found.add("sequence")
    place_T = np.arange(len(position_T))
    if (position_T == place_T - place_T[starts_T][np.cumsum(starts_T) - 1]).all():
        found.add("position")
    return found


def tokens_of(trace: RoutingTrace) -> Ints:
    """Sequence, whether it was decoded, position and step of every token of a trace, (4, T)."""
    decoded_R = np.full(len(trace), trace.header.phase == "decode", np.int64)
    first_R = trace.column("slot") == 0
    sequence_R, position_R, step_R = (trace.column(name).astype(np.int64)[first_R] for name in ("sequence", "position", "step"))
    return np.asarray(np.unique(np.stack([sequence_R, decoded_R[first_R], position_R, step_R]), axis=1))


def in_order(tokens: Ints) -> Ints:
    """The tokens sequence by sequence, prompts before decoded ones, by position."""
    return tokens[:, np.lexsort(tokens[2::-1])]


def steps_follow(tokens: Ints) -> bool:
    """Whether steps ascend from token to token where a prompt begins or a token was decoded, and nowhere else."""
    sequence_T, decoded_T, _, step_T = in_order(tokens)
    begins_T = (decoded_T[1:] > 0) | (np.diff(sequence_T) != 0)
    return bool(np.where(begins_T, np.diff(step_T) > 0, np.diff(step_T) == 0).all())
