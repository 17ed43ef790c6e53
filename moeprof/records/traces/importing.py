"""From the choices that a reader finds to a trace with a report of what was kept.

T tokens, L layers, K choices.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from moeprof.records.arrays import Flags
from moeprof.records.errors import OptionError
from moeprof.records.traces.choices import NO_EXPERT, LoggedChoices, traces_of
from moeprof.records.traces.import_options import ImportOptions, ImportReport
from moeprof.records.traces.left_out import left_out
from moeprof.records.traces.routing_trace import StepClock
from moeprof.records.traces.trace_format import TraceFile

CORRECT = "Correct or remove {} or --model-config."


@dataclass(frozen=True)
class Stated:
    """What a file says about itself."""

    format: str
    name: str
    """What to call the trace, and its domain if it names none."""
    experts: int | None = None
    top_k: int | None = None
    absent: Literal["padding", "cached"] = "padding"
    """What a token without any choice is."""
    by_layer: bool = False
    """Whether the file has a row per token and layer, so that a token may have none in a layer."""
    repeated: int = 0
    """Rows with two copies of one expert."""
    notes: Iterable[str] = ()
    workload: str = "lm"
    prompt_phase: str = "prefill"
    clock: StepClock = "token"
    expert_bytes: dict[str, int] = field(default_factory=dict)


def imported(choices: LoggedChoices, stated: Stated, options: ImportOptions) -> TraceFile:
    """The tokens of a user as traces, with a report. ValueError if there are none, or if the file contradicts the options."""
    experts = agreed("experts", stated.experts, options.experts)
    choices, spare = without_spare_slots(choices)
    top_k = agreed("choices of a token", stated.top_k, options.top_k)
    if top_k is not None and top_k != choices.experts_TLK.shape[2]:
        what = f"a token has {choices.experts_TLK.shape[2]} choices, not {top_k} as stated"
        raise ValueError(what) if options.top_k is None else OptionError(what, CORRECT.format("--top-k"))
    kept, report = without_idle_rows(choices, stated, options)
    check_choices(kept, by_layer=stated.by_layer)
    check_experts(kept, experts, options)
    report = report.model_copy(update={"sentinels": spare * report.kept})
    if options.strip_tokens:
        kept = replace(kept, token_id_T=None)
    traces = traces_of(kept, stated.name, experts, stated.workload, report, stated.prompt_phase, stated.clock)
    return TraceFile(
        stated.name,
        traces,
        expert_bytes=stated.expert_bytes,
        experts_guessed=experts is None,
        report=report,
    )


def agreed(what: str, in_file: int | None, given: int | None) -> int | None:
    """The number that the file or the options state; OptionError if both do, and differ."""
    if in_file is not None and given is not None and in_file != given:
        option = "--experts" if what == "experts" else "--top-k"
        raise OptionError(
            f"it states {in_file} {what}, but the options or the model's configuration {given}", CORRECT.format(option)
        )
    return in_file if given is None else given


def without_spare_slots(choices: LoggedChoices) -> tuple[LoggedChoices, int]:
    """The choices without the last slots that no token uses, and how many these are: some engines record a fixed width."""
    width = choices.experts_TLK.shape[2]
    used_K = np.flatnonzero((choices.experts_TLK != NO_EXPERT).any(axis=(0, 1)))
    top_k = int(used_K[-1]) + 1 if len(used_K) else width
    if top_k == width:
        return choices, 0
    cut = replace(
        choices,
        experts_TLK=choices.experts_TLK[..., :top_k],
        weights_TLK=None if choices.weights_TLK is None else choices.weights_TLK[..., :top_k],
        dropped_TLK=None if choices.dropped_TLK is None else choices.dropped_TLK[..., :top_k],
    )
    return cut, width - top_k


def without_idle_rows(choices: LoggedChoices, stated: Stated, options: ImportOptions) -> tuple[LoggedChoices, ImportReport]:
    """The tokens of a user, and a report of the others; ValueError if there are none."""
    found = left_out(choices, options)
    kept_T = ~(found.absent_T | found.padding_T | found.warmup_T)
    if not kept_T.any():
        raise ValueError("only rows of padding or warm-up in it, and no token of a user" if len(kept_T) else "no choices in it")
    kept, num_layers = choices.select(kept_T), choices.experts_TLK.shape[1]
    absent, padding, warmup = (int(one_T.sum()) * num_layers for one_T in (found.absent_T, found.padding_T, found.warmup_T))
    report = ImportReport(
        format=stated.format,
        kept=int((kept.experts_TLK != NO_EXPERT).any(axis=2).sum()),
        padding=padding + (absent if stated.absent == "padding" else 0),
        warmup=warmup,
        cached=absent if stated.absent == "cached" else 0,
        repeated=stated.repeated,
        notes=list(stated.notes),
    )
    return kept, report


def check_choices(choices: LoggedChoices, *, by_layer: bool) -> None:
    """ValueError for a token that lacks choices; none in a whole layer is allowed with `by_layer`."""
    wrong_TL = np.asarray((choices.experts_TLK < 0).any(axis=2))
    if by_layer:
        wrong_TL &= (choices.experts_TLK != NO_EXPERT).any(axis=2)
    if wrong_TL.any():
        raise ValueError(f"{found_at(choices, wrong_TL)}, of which a negative one is no expert")


def check_experts(choices: LoggedChoices, num_experts: int | None, options: ImportOptions) -> None:
    """ValueError for an expert that the model does not have; OptionError if its number of experts is an option."""
    if num_experts is None:
        return
    wrong_TL = np.asarray((choices.experts_TLK >= num_experts).any(axis=2))
    if wrong_TL.any():
        what = f"{found_at(choices, wrong_TL)}, but there are {num_experts} experts"
        raise ValueError(what) if options.experts is None else OptionError(what, CORRECT.format("--experts"))


def found_at(choices: LoggedChoices, wrong_TL: Flags) -> str:
    """Where the first of some choices are, and what they are."""
    token, layer = (int(at[0]) for at in np.nonzero(wrong_TL))
    where = f"position {choices.position_T[token]} of sequence {choices.sequence_T[token]}, layer {choices.layers[layer]}"
    return f"the experts at {where} are {choices.experts_TLK[token, layer].tolist()}"
