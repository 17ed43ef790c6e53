"""The format `eplb-stats`: JSON Lines of vLLM's balancer, with the loads of physical experts and their map in every step.

S steps, L MoE layers, P physical experts, E logical experts.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moeprof.records.arrays import Ints
from moeprof.records.system.files import write_text
from moeprof.records.system.inputs import InputFile, check_memory, filled_lines, reported, texts_of
from moeprof.records.system.parsing import parsed_line
from moeprof.records.traces.count_arrays import checked_array, counts_file, counts_of, rows_of, steps_added_up, whole_counts
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.trace_format import TraceFile, TraceFormat, only

META, STATS = "eplb_load_meta", "eplb_load_stats"
NO_EXPERT = -1
REMEDY = "Give the lines of eplb_load_meta and eplb_load_stats as they were recorded, complete and in order."


def is_eplb_stats(file: InputFile) -> bool:
    """Whether the first line is that of such a log."""
    return META.encode() in file.head[:4096] or STATS.encode() in file.head[:4096]


def read_eplb_stats(files: Sequence[InputFile], options: ImportOptions) -> TraceFile:
    """The counts of every step, mapped to logical experts; UsageError, with the line, if a record is damaged."""
    source = only(files)
    with reported(f"EPLB statistics {source.path}", REMEDY):
        meta: dict[str, Any] = {}
        steps: list[int] = []
        loads: list[Ints] = []
        maps: list[Ints] = []
        for number, line in filled_lines(texts_of(source.blocks())):
            record = record_of(number, line)
            if record["record_type"] == META:
                meta = record
                continue
            load_LP, map_LP = arrays_of(number, record)
            if loads and load_LP.shape != loads[0].shape:
                raise ValueError(f"line {number}: {load_LP.shape} layers and experts, but {loads[0].shape} before")
            steps.append(step_behind(steps, number, record))
            loads.append(load_LP)
            maps.append(map_LP)
        if not loads:
            raise ValueError(f"no {STATS} in it")
        if meta.get("num_layers", len(loads[0])) != len(loads[0]):
            raise ValueError(f"{META} states {meta['num_layers']} layers, but the loads are of {len(loads[0])}")
        check_copies(meta, map_SLP := np.stack(maps))
        counts_SLE = logical(np.stack(loads), map_SLP, physical=options.physical)
        notes = ["ids are those of physical experts"] if options.physical else []
        model = meta.get("model")
        return counts_file(
            source, "eplb-stats", counts_SLE, options, "moe", notes, model=model if isinstance(model, str) else ""
        )


def record_of(number: int, line: str) -> dict[str, Any]:
    """The record in a line; ValueError, with its number, if it is none of the two kinds."""
    record = parsed_line(line, number)
    if not isinstance(record, dict) or record.get("record_type") not in (META, STATS):
        raise ValueError(f"line {number}: neither {META} nor {STATS}")
    return record


def arrays_of(number: int, record: dict[str, Any]) -> tuple[Ints, Ints]:
    """Loads and map of a step, each (L, P); ValueError if they do not fit each other."""
    load, mapped = (
        checked_array(rows_of(record.get(name), f"line {number}: {name}"), f"line {number}: {name}", [2])
        for name in ("expert_load", "p2l_map")
    )
    load_LP, _ = whole_counts(load, f"line {number}: expert_load")
    if mapped.shape != load_LP.shape or mapped.dtype.kind not in "iu":
        raise ValueError(f"line {number}: p2l_map has the shape {mapped.shape}, not {load_LP.shape} of whole numbers")
    if mapped.min() < NO_EXPERT or mapped.max() >= mapped.shape[1]:
        raise ValueError(f"line {number}: p2l_map has ids that are not from -1 to {mapped.shape[1] - 1}")
    if load_LP[mapped == NO_EXPERT].any():
        raise ValueError(f"line {number}: a physical expert without a logical one has a load")
    return load_LP, mapped.astype(np.int64)


def step_behind(steps: Sequence[int], number: int, record: dict[str, Any]) -> int:
    """The step of a record, or the next one if it states none; ValueError unless it comes behind those before."""
    last = steps[-1] if steps else -1
    step = record.get("step", last + 1)
    if type(step) is not int or step <= last:
        raise ValueError(f"line {number}: step {json.dumps(step)[:40]} is no step behind {last}")
    return step


def check_copies(meta: dict[str, Any], map_SLP: Ints) -> None:
    """ValueError unless every layer of every step has a copy of each expert, and as many further ones as the meta line states."""
    steps, layers, num_physical = map_SLP.shape
    num_experts = int(map_SLP.max()) + 1
    check_memory(steps * layers * (num_experts + 1))
    copied_SLE = np.zeros((steps, layers, num_experts + 1), bool)  # the last one is of NO_EXPERT
    copied_SLE[np.arange(steps)[:, None, None], np.arange(layers)[:, None], map_SLP] = True
    if not copied_SLE[..., :-1].all():
        step, layer, expert = (int(at[0]) for at in np.nonzero(~copied_SLE[..., :-1]))
        raise ValueError(f"record {step}: p2l_map has no copy of expert {expert} in layer {layer}")
    if (stated := meta.get("num_redundant_experts")) not in (None, num_physical - num_experts):
        raise ValueError(f"{META} states {stated} redundant experts, but p2l_map has {num_physical - num_experts}")


def logical(load_SLP: Ints, map_SLP: Ints, *, physical: bool) -> Ints:
    """Choices of every expert in every step, (S, L, E); of physical experts if they are wanted."""
    if physical:
        return load_SLP
    shape = (*load_SLP.shape[:2], int(map_SLP.max()) + 1)
    check_memory(int(np.prod(shape)) * 8)
    counts_SLE = np.zeros(shape, np.int64)
    step_S, layer_L = np.arange(shape[0])[:, None, None], np.arange(shape[1])[:, None]
    np.add.at(counts_SLE, (step_S, layer_L, np.maximum(map_SLP, 0)), load_SLP)
    return counts_SLE


def write_eplb_stats(file: TraceFile, path: Path) -> None:
    """Writes one record per step, in which every physical expert is the logical one of its number."""
    counts = counts_of(file)
    identity = [list(range(counts.num_experts))] * len(counts.layers)
    meta: dict[str, Any] = {"record_type": META, "version": 1, "model": counts.model, "num_ranks": 1, "num_groups": 1}
    records = [meta | {"num_nodes": 1, "num_layers": len(counts.layers), "num_redundant_experts": 0}]
    for step, load in enumerate(steps_added_up(counts).tolist()):
        records.append({"record_type": STATS, "version": 1, "step": step, "expert_load": load, "p2l_map": identity})
    write_text(path, "".join(f"{json.dumps(record)}\n" for record in records))


EPLB_STATS = TraceFormat(
    "eplb-stats",
    "statistics of vLLM's EPLB (*.jsonl)",
    recognise=is_eplb_stats,
    read=read_eplb_stats,
    write=write_eplb_stats,
    keeps=frozenset({"step"}),
    omits=frozenset({"top_k", "layers"}),
    loads_only=True,
)
