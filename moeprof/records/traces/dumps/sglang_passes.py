"""SGLang's expert distribution in the modes `per_pass` and `per_token`: a file of each rank with a record of every forward pass.

S forward passes, L layers (dense ones too), P physical experts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from moeprof.records.arrays import Ints
from moeprof.records.errors import UsageError
from moeprof.records.system import torch_file
from moeprof.records.system.inputs import InputFile, check_memory
from moeprof.records.traces.count_arrays import checked_array, counts_file
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.trace_format import TraceFile

LAST_MAP = (
    "physical experts were mapped by the map at the end of the recording, which is wrong for records before a later rebalance"
)
MAP = "last_physical_to_logical_map"


@dataclass(frozen=True)
class RankPasses:
    """The records of one rank's file."""

    source: InputFile
    records: list[dict[str, Any]]
    map_LP: Ints
    """The logical expert behind every physical one at the end of the recording."""

    @property
    def ids(self) -> list[int]:
        """The forward passes in order; several records of one pass, those of two overlapping batches, count once."""
        return list(dict.fromkeys(record["forward_pass_id"] for record in self.records))

    @property
    def rank(self) -> int | None:
        """The rank that recorded the file; None if the file does not say."""
        found = self.records[0].get("rank")
        return found if type(found) is int else None

    @property
    def per_token(self) -> bool:
        """Whether the records have the choices of every token."""
        return "topk_ids_of_layer" in self.records[0]


def rank_passes(source: InputFile, document: Any) -> RankPasses:
    """The records of a file; ValueError if it is no dump of these modes."""
    if not isinstance(document, dict) or not isinstance(document.get("records"), list) or MAP not in document:
        raise ValueError(f"it has neither logical_count nor records with {MAP}")
    records = document["records"]
    if not records:
        raise ValueError("no records in it: no forward pass between start and dump")
    for number, record in enumerate(records):
        if not isinstance(record, dict) or type(record.get("forward_pass_id")) is not int:
            raise ValueError(f"record {number} has no forward_pass_id")
        if ("topk_ids_of_layer" in record) != ("topk_ids_of_layer" in records[0]):
            raise ValueError(f"record {number} is of another mode than the first")
    found = checked_array(torch_file.array(document[MAP]), MAP, [2])
    if found.dtype.kind not in "iu" or found.min() < 0 or found.max() >= found.shape[1]:
        raise ValueError(f"{MAP} has values that are not ids of at most {found.shape[1]} experts")
    return RankPasses(source, records, found.astype(np.int64))


def check_ranks(ranks: Sequence[RankPasses], options: ImportOptions) -> None:
    """UsageError if two files are of one rank, ValueError if the files are not of the ranks of one recording."""
    first, known = ranks[0], {ranks[0].rank: ranks[0].source.path}
    for other in ranks[1:]:
        name = other.source.path
        if other.rank is not None and other.rank in known:
            raise UsageError(
                f"SGLang dump {name}: rank {other.rank} is given twice, also in {known[other.rank]}",
                "Give each rank's file once.",
            )
        known[other.rank] = name
        if other.per_token != first.per_token:
            raise ValueError(f"{name} is of another mode")
        if differing := sorted(set(first.ids) ^ set(other.ids)):
            owner = first if differing[0] in first.ids else other
            raise ValueError(
                f"only {owner.source.path} has forward pass {differing[0]}; further such passes: {len(differing) - 1}"
            )
        if other.map_LP.shape != first.map_LP.shape or not (options.physical or (other.map_LP == first.map_LP).all()):
            raise ValueError(
                f"{name} has another map of physical experts, so the ranks were dumped before and after a rebalance"
            )


def mapping(ranks: Sequence[RankPasses], options: ImportOptions) -> tuple[Ints, int, list[str]]:
    """What replaces every physical id, (L, P), the number of experts, and notes; ValueError if a layer of the map lacks an expert."""
    map_LP = ranks[0].map_LP
    if options.physical:
        return np.broadcast_to(np.arange(map_LP.shape[1]), map_LP.shape), map_LP.shape[1], ["ids are those of physical experts"]
    check_complete(map_LP)
    moved = (map_LP != np.arange(map_LP.shape[1])).any()
    return map_LP, int(map_LP.max()) + 1, [LAST_MAP] if moved else []


def check_complete(map_LP: Ints) -> None:
    """ValueError if an expert has copies in some layers of a map and none in another: every layer has the same experts."""
    num_experts = int(map_LP.max()) + 1
    for layer, mapped in enumerate(map_LP):
        if lacking := sorted(set(range(num_experts)) - set(mapped.tolist())):
            has = int(np.flatnonzero((map_LP == num_experts - 1).any(axis=1))[0])
            raise ValueError(
                f"{MAP} contradicts itself: layer {has} has expert {num_experts - 1}, but layer {layer} has no copy of expert {lacking[0]}"
            )


def field(record: dict[str, Any], name: str, dims: int) -> npt.NDArray[np.integer]:
    """An array of whole numbers in a record; ValueError, with the forward pass, if there is none."""
    what = f"{name} of forward pass {record['forward_pass_id']}"
    values = torch_file.array(record.get(name))
    if values is None or values.ndim != dims or values.dtype.kind not in "iu":
        raise ValueError(f"{what} is no array of whole numbers with {dims} dimensions")
    return values


def read_per_pass(ranks: Sequence[RankPasses], options: ImportOptions) -> TraceFile:
    """The counts of every pass, summed over ranks and overlapping batches; ValueError if a record does not fit the map."""
    map_LP, num_experts, notes = mapping(ranks, options)
    num_layers = len(map_LP)
    step_of = {number: step for step, number in enumerate(ranks[0].ids)}
    shape = (len(step_of), num_layers, num_experts)
    check_memory(int(np.prod(shape)) * 8)
    counts_SLE, layers_L = np.zeros(shape, np.int64), np.arange(num_layers)[:, None]
    for number, count_LP in counts_of_records(ranks, map_LP.shape):
        np.add.at(counts_SLE[step_of[number]], (layers_L, map_LP), count_LP)
    return counts_file(ranks[0].source, "sglang", counts_SLE, options, "all", notes)


def counts_of_records(ranks: Sequence[RankPasses], shape: tuple[int, ...]) -> Iterator[tuple[int, Ints]]:
    """The forward pass of every record, and its counts of physical experts, (L, P)."""
    for record in (record for rank in ranks for record in rank.records):
        number, count_LP = record["forward_pass_id"], field(record, "global_physical_count", 2)
        if count_LP.shape != shape or count_LP.min() < 0:
            raise ValueError(
                f"global_physical_count of forward pass {number} is not a count of {shape[1]} experts in {shape[0]} layers"
            )
        yield number, count_LP.astype(np.int64)
