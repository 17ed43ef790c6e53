"""The format `sglang-api`: responses of SGLang to requests with `return_routed_experts`.

`meta_info.routed_experts` (in the OpenAI protocol `sglext.routed_experts`) is base64 of int32 without a header,
[prompt + generated - 1 - start, all layers, K], with logical ids and expert 0 in dense layers; K and the layers are not in it.
"""

import base64
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from moeprof.records.name import name_from
from moeprof.records.system.files import write_text
from moeprof.records.system.inputs import InputFile, reported
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.importing import Stated, imported
from moeprof.records.traces.layer_map import LayerMap
from moeprof.records.traces.logs.arrays import bytes_of_base64, count_of, whole_numbers
from moeprof.records.traces.logs.responses import Answered, Response, choices_of, responses_in
from moeprof.records.traces.logs.sequences import recorded
from moeprof.records.traces.trace_format import TraceFile, TraceFormat, only

NAME, KEY = "sglang-api", "routed_experts"


def is_response(file: InputFile) -> bool:
    """Whether the file is JSON with the keys of a response of SGLang."""
    text = file.head_text
    return text.lstrip()[:1] in ("{", "[") and f'"{KEY}"' in text and ('"meta_info"' in text or '"sglext"' in text)


def read_responses(files: Sequence[InputFile], options: ImportOptions) -> TraceFile:
    """One sequence per response; UsageError if the file is damaged, or the options lack the layers or K."""
    file = only(files)
    with reported(
        f"SGLang responses {file.path}",
        "Give responses to requests with return_routed_experts, with --model-config CONFIG (or --layers MAP and --top-k K) of the model.",
    ):
        answers = [answer for response in responses_in(file) for answer in answers_in(response, options)]
        later = sum(answer.first > 0 for answer in answers)
        notes = [f"sequences whose first positions have no experts: {later} (routed_experts_start_len)"] if later else []
        stated = Stated(NAME, name_from(file.path.name.partition(".")[0], "trace"), notes=notes)
        return imported(choices_of(answers, options.layers), stated, options)


def answers_in(response: Response, options: ImportOptions) -> Iterator[Answered]:
    """The sequences of a response: one, or in the OpenAI protocol one per choice if these have arrays of their own."""
    meta = response.get("meta_info")
    if isinstance(meta, dict) and KEY in meta:
        yield answer_of(meta[KEY], meta, response.get("output_ids"), options)
    choices, usage = response.get("choices"), response.get("usage")
    for choice in [response, *(choices if isinstance(choices, list) else [])]:
        if isinstance(choice, dict) and isinstance(extension := choice.get("sglext"), dict) and KEY in extension:
            yield answer_of(extension[KEY], usage if isinstance(usage, dict) else {}, None, options)


def answer_of(value: object, counts: Response, output_ids: object, options: ImportOptions) -> Answered:
    """One sequence; ValueError if the bytes are no array of this many tokens, layers and choices."""
    content = bytes_of_base64(value, KEY)
    if not content or len(content) % 4:
        raise ValueError(f"{KEY} has {len(content):,} bytes, which are no int32 numbers")
    if options.top_k is None or options.layers is None:
        raise ValueError(f"{KEY} states neither its layers nor the choices of a token")
    prompt, generated = count_of(counts, "prompt_tokens"), count_of(counts, "completion_tokens")
    expected = None if prompt is None or generated is None else max(prompt + generated - 1, 0)
    num_layers = layers_in(len(content) // 4, expected, options.layers, options.top_k)
    experts = np.frombuffer(content, "<i4").reshape(-1, num_layers, options.top_k)
    first = 0 if expected is None else expected - len(experts)
    ids = whole_numbers(output_ids, "output_ids")
    known = None if ids is None or prompt is None or len(ids) != generated else [-1] * prompt + ids
    return Answered(experts, prompt, first, known)


def layers_in(numbers: int, expected: int | None, stated: LayerMap, top_k: int) -> int:
    """The layers of an array, all or those with experts: what gives the expected tokens, or fewer if it begins later.

    ValueError if none does.
    """
    known = [stated.num_layers] if stated.num_layers is not None else []
    if expected and not known and numbers % (expected * top_k) == 0:
        return numbers // (expected * top_k)
    for num_layers in (*known, len(stated.moe_layers)):
        if expected and numbers == expected * num_layers * top_k:
            return num_layers
    for num_layers in known:
        rows, rest = divmod(numbers, num_layers * top_k)
        if not rest and (expected is None or 0 < rows < expected):
            return num_layers
    tokens = "tokens" if expected is None else f"{expected} tokens or fewer"
    layers = " or ".join(str(number) for number in dict.fromkeys((*known, len(stated.moe_layers))))
    raise ValueError(f"{KEY} has {numbers:,} numbers, which are no {tokens} with {layers} layers of {top_k} choices")


def write_responses(file: TraceFile, path: Path) -> None:
    """Writes a list of responses, one per sequence, with all layers up to the last one with experts."""
    responses = []
    for sequence in recorded(file, path, NAME):
        generated = sequence.first + len(sequence.experts_TLK) - sequence.num_prompt + 1
        text = base64.b64encode(sequence.experts_TLK.astype("<i4").tobytes()).decode()
        counts = {"prompt_tokens": sequence.num_prompt, "completion_tokens": generated}
        responses.append({"meta_info": counts | {KEY: text}})
    write_text(path, "[\n" + ",\n".join(json.dumps(response) for response in responses) + "\n]\n")


SGLANG_API = TraceFormat(
    NAME,
    "responses of SGLang with routed experts (*.json)",
    recognise=is_response,
    read=read_responses,
    write=write_responses,
    keeps=frozenset({"phase", "sequence", "position"}),
    derives=frozenset({"step"}),
    omits=frozenset({"experts"}),
    endings=(".sglang.json",),
)
