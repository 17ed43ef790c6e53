"""What the columns of the files of a run directory are, with their units."""

from typing import NamedTuple


class ColumnNote(NamedTuple):
    """The unit of a column, empty for names and numbers that count nothing, and what it holds."""

    unit: str
    meaning: str


NAMES = {
    "precision": "precision of an expert that an offloading store loads or skips",
    "event": "what the store did: `hit`, `foreseen`, `demand`, `skip` or `prefetch`",
    "policy": "eviction policy",
    "workload": "lm or mt",
    "phase": "part of the workload that is measured alone: score, encode, decode or prefill",
    "variant": "label of the variant",
    "point": "swept parameters, such as batch=8",
    "domain": "text; empty: all of them",
    "layer": "MoE layer; empty: all of them, or the whole model",
    "region": "part of a step",
    "category": "kind of memory; of a speed-up: the baseline variant",
    "pass": "pass that recorded the row",
    "part": "decode, prefill or encode",
    "metric": "name of the metric",
    "unit": "unit of the value",
    "kind": "exact, routed, timed, modelled or forced",
    "backend": "what computed the experts",
    "measure": "static, dynamic (the peak), at_peak, category or region",
    "name": "category of memory or region",
    "translation": "greedy translation",
    "reference": "reference translation",
    "reason": "why the batch fits or not",
    "tier": "where an expert was moved from: weights, host or file",
}
"""Columns of text."""

NUMBERS = {
    "rank": "process that recorded the row",
    "round": "number of the timed round, from 0",
    "step": "number of the forward pass, from 0",
    "sequence": "number of the sequence",
    "sentence": "number of the sentence in its domain",
    "position": "position of the token in its sequence",
    "token_id": "token in the vocabulary",
    "slot": "number of the choice of a token, 0 for the first",
    "expert": "number of the expert in the model",
    "victim": "expert that was evicted; -1: none",
    "op_id": "number of the collective, the same on every rank",
    "source": "rank that sent",
    "destination": "rank that received",
    "value": "number in the unit of its metric",
    "weight": "softmax value of the choice before dropping and renormalising",
    "residency": "0 miss, 1 hit, 2 hit on a prefetch; null: always resident",
    "max_abs_diff": "largest difference of an output from the baseline's",
    "judged": "false for steps that placements are made from",
    "dropped": "whether the expert was full",
    "hit": "whether the expert was resident",
    "fits": "whether the batch fits the memory budget",
}
"""Columns of numbers, ids and flags without a unit."""

QUANTITIES = {
    "time_ns": ("ns", "duration"),
    "start_ns": ("ns", "clock of the rank at the start"),
    "wait_ns": ("ns", "clock of the rank when it began to wait"),
    "end_ns": ("ns", "clock of the rank at the end"),
    "load_ns": ("ns", "time that experts were being loaded"),
    "stall_ns": ("ns", "time that the layer waited for experts"),
    "hideable_ns": ("ns", "time of loads that computation could hide"),
    "bytes": ("bytes", "size"),
    "received_bytes": ("bytes", "expert weights that the rank received"),
    "budget_bytes": ("bytes", "memory budget"),
    "memory_bytes": ("bytes", "memory that the batch needs"),
    "energy_mj": ("mJ", "energy of the device in the round"),
    "nats": ("nats", "cross-entropy, summed over tokens"),
    "entropy_nats": ("nats", "entropy of the router, summed over tokens"),
    "steps": ("steps", "forward passes of the round"),
    "tokens": ("tokens", "tokens without padding"),
    "rows": ("rows", "rows with padding"),
    "expert_rows": ("rows", "rows that experts computed"),
    "slots": ("experts", "cache slots per layer"),
    "count": ("events", "number of events"),
    "batch": ("sequences", "batch size"),
    "calls": ("calls", "calls of the experts"),
    "choices": ("choices", "choices of the expert in the step"),
    "routed": ("choices", "choices that an expert computed"),
    "padding": ("choices", "choices of padding"),
    "skipped": ("choices", "choices of tokens that skip the experts"),
    "zero_compute": ("choices", "choices of experts without weights"),
    "sentinel": ("choices", "choices of experts on other ranks"),
    "compared": ("tokens", "tokens whose outputs were compared"),
    "differing": ("tokens", "compared tokens whose outputs differ"),
    "flips": ("tokens", "tokens with another routing after a near-tie"),
    "jumps": ("tokens", "tokens with another routing without a near-tie"),
    "agreeing": ("tokens", "tokens with the same next token"),
}
"""Columns with a unit."""

NOTES = {name: ColumnNote("", meaning) for name, meaning in (NAMES | NUMBERS).items()} | {
    name: ColumnNote(*note) for name, note in QUANTITIES.items()
}
"""Every column that a file of a run directory may have."""

OF_FILES = {
    ("expert_calls.parquet", "dropped"): ColumnNote("choices", "choices of full experts"),
    ("cache_sample.parquet", "rank"): ColumnNote("", "device of the cache"),
    ("cache_sample.parquet", "step"): ColumnNote("", "number of the batch in the layer"),
    ("memory.parquet", "time_ns"): ColumnNote("ns", "clock of the moment"),
    ("memory.parquet", "bytes"): ColumnNote("bytes", "live bytes of the category at the moment"),
    ("scores.parquet", "bytes"): ColumnNote("bytes", "UTF-8 bytes of the predicted tokens"),
    ("footprints.parquet", "bytes"): ColumnNote("bytes", "memory of one batch"),
    ("traffic.parquet", "bytes"): ColumnNote("bytes", "bytes from the source to the destination"),
    ("stalls.parquet", "bytes"): ColumnNote("bytes", "bytes of loaded experts"),
    ("movements.parquet", "bytes"): ColumnNote("bytes", "bytes that were moved"),
    ("movements.parquet", "reason"): ColumnNote("", "why an expert was moved"),
    ("unit_events.parquet", "bytes"): ColumnNote("bytes", "bytes that the events loaded"),
    ("loads.parquet", "bytes"): ColumnNote("bytes", "bytes that were copied; 0 for a hit"),
}
"""Columns that are something else in one file."""


def note_of(file_name: str, column: str) -> ColumnNote:
    """What a column of a file is; KeyError for an unknown one."""
    return OF_FILES.get((file_name, column)) or NOTES[column]
