"""The format `vllm`: the experts that vLLM returns, in its three generations.

Up to 0.20 a .npy or .npz of int32, [tokens, all layers, K]. Documented with 0.21: JSON lists `prompt_routed_experts` and
`choices[].routed_experts` of the layers with experts, -1 where a prefix cache served the position. Later: one base64 text of a .npy
per choice, [prompt + generated - 1, layers, K].
"""

import base64
import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from moeprof.records.errors import UsageError
from moeprof.records.name import name_from
from moeprof.records.system.files import write_text
from moeprof.records.system.inputs import InputFile, check_memory, max_bytes, reported
from moeprof.records.traces.choices import Ids
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.importing import Stated, imported
from moeprof.records.traces.logs.arrays import (
    MAX_HEADER_BYTES,
    NPY,
    bytes_of_base64,
    count_of,
    ids_of_lists,
    ids_of_npy,
    npy_header,
    npy_of,
    whole_numbers,
)
from moeprof.records.traces.logs.responses import Answered, Response, check_cached, choices_of, responses_in
from moeprof.records.traces.logs.sequences import Recorded, recorded
from moeprof.records.traces.trace_format import TraceFile, TraceFormat, only

NAME, KEY, PROMPT_KEY = "vllm", "routed_experts", "prompt_routed_experts"
ZIP = b"PK\x03\x04"
NO_PHASES = "the file does not state which tokens were decoded: each is taken as a step of decoding"


def is_vllm(file: InputFile) -> bool:
    """Whether the file is an array of three dimensions, an archive that begins with one, or JSON with the keys of vLLM."""
    head, text = file.head, file.head_text
    if head.startswith((NPY, ZIP)):
        return dimensions(first_member(head) if head.startswith(ZIP) else head) == 3
    of_sglang = '"meta_info"' in text or '"sglext"' in text
    return text.lstrip()[:1] in ("{", "[") and (f'"{KEY}"' in text or f'"{PROMPT_KEY}"' in text) and not of_sglang


def dimensions(head: bytes) -> int:
    """The number of dimensions of a .npy file; 0 if it is none, or its header is damaged."""
    try:
        return len(npy_header(head, "")[0])
    except ValueError:
        return 0


def first_member(head: bytes) -> bytes:
    """The beginning of the first file of a zip archive; empty if it is packed in another way than deflate, or damaged."""
    method, name, extra = (int.from_bytes(head[at : at + 2], "little") for at in (8, 26, 28))
    content = head[30 + name + extra :]
    try:
        return content if method == 0 else zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, MAX_HEADER_BYTES)
    except zlib.error:
        return b""


def read_vllm(files: Sequence[InputFile], options: ImportOptions) -> TraceFile:
    """One sequence per array or choice; UsageError if the file is damaged, or the options lack the layers."""
    file = only(files)
    with reported(
        f"vLLM experts {file.path}",
        "Give arrays or responses of vLLM with routed experts, with --model-config CONFIG or --layers MAP of the model.",
    ):
        if file.head.startswith((NPY, ZIP)):
            answers, notes = [Answered(array, None) for array in arrays_in(file)], [NO_PHASES]
        else:
            answers, notes = [answer for response in responses_in(file) for answer in answers_in(response)], []
        check_cached(answers)
        stated = Stated(NAME, name_from(file.path.name.partition(".")[0], "trace"), absent="cached", notes=notes)
        return imported(choices_of(answers, options.layers), stated, options)


def arrays_in(file: InputFile) -> Iterator[Ids]:
    """The array of a .npy file, or the arrays of a .npz archive, each a sequence; ValueError if one is damaged or too large."""
    content = file.read()
    if content.startswith(NPY):
        yield ids_of_npy(content, "the array")
        return
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
            if (total := sum(member.file_size for member in members)) > max_bytes():
                raise ValueError(f"its arrays take {total:,} bytes; set --max-bytes SIZE to read more")
            check_memory(total)
            for member in members:
                with archive.open(member) as opened:
                    yield ids_of_npy(opened.read(member.file_size + 1), f"array {member.filename[:-4]}")
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise ValueError("a damaged or encrypted .npz archive") from error


def answers_in(response: Response) -> Iterator[Answered]:
    """The sequences of a response: the prompt with the first choice, and each further choice behind the same prompt.

    In responses of the latest generation every choice has the prompt in its own array.
    """
    choices = response.get("choices")
    prompt = response.get(PROMPT_KEY)
    before = None if prompt is None else ids_of_lists(prompt, PROMPT_KEY)
    for number, choice in enumerate(choices if isinstance(choices, list) else []):
        if not isinstance(choice, dict) or choice.get(KEY) is None:
            continue
        if isinstance(choice[KEY], str):
            yield whole_answer(response, choice)
        else:
            yield continued(response, choice, before, with_prompt=number == 0)


def whole_answer(response: Response, choice: Response) -> Answered:
    """Prompt and generated tokens in one array; ValueError if it does not have a row for each but the last."""
    array = ids_of_npy(bytes_of_base64(choice[KEY], KEY), KEY)
    prompt_ids = whole_numbers(choice.get("prompt_token_ids", response.get("prompt_token_ids")), "prompt_token_ids")
    ids, num_prompt = whole_numbers(choice.get("token_ids"), "token_ids"), prompt_length(response, prompt_ids)
    if num_prompt is not None and ids is not None and len(array) not in (num_prompt + len(ids) - 1, num_prompt + len(ids)):
        raise ValueError(f"{KEY} has {len(array)} rows, but {num_prompt} tokens of prompt and {len(ids)} generated ones")
    known = None if num_prompt is None or ids is None else (prompt_ids or [-1] * num_prompt) + ids
    return Answered(array, num_prompt, token_ids=known)


def continued(response: Response, choice: Response, before: Ids | None, *, with_prompt: bool) -> Answered:
    """The tokens of a choice, behind its prompt if no other choice has it."""
    array = ids_of_lists(choice[KEY], KEY)
    prompt_ids, ids = (
        whole_numbers(response.get("prompt_token_ids"), "prompt_token_ids"),
        whole_numbers(choice.get("token_ids"), "token_ids"),
    )
    num_prompt = len(before) if before is not None else prompt_length(response, prompt_ids) or 0
    if ids is not None and len(ids) not in (len(array), len(array) + 1):
        raise ValueError(f"{KEY} has {len(array)} rows, but there are {len(ids)} generated tokens")
    known = None if ids is None else (prompt_ids or [-1] * num_prompt) + ids
    if before is None or not with_prompt:
        return Answered(array, num_prompt, num_prompt, known)
    if before.shape[1:] != array.shape[1:]:
        raise ValueError(f"{PROMPT_KEY} has rows of shape {before.shape[1:]}, but {KEY} of {array.shape[1:]}")
    return Answered(np.concatenate([before, array]), num_prompt, 0, known)


def prompt_length(response: Response, prompt_ids: list[int] | None) -> int | None:
    """Tokens of the prompt, from its ids or from the usage; ValueError if they differ."""
    usage = response.get("usage")
    stated = count_of(usage, "prompt_tokens") if isinstance(usage, dict) else None
    if prompt_ids is None:
        return stated
    if stated not in (None, len(prompt_ids)):
        raise ValueError(f"it has {len(prompt_ids)} token ids of a prompt, but prompt_tokens = {stated}")
    return len(prompt_ids)


def write_vllm(file: TraceFile, path: Path) -> None:
    """Writes a list of responses of the latest generation, one per sequence, with all layers up to the last one with experts."""
    sequences = recorded(file, path, NAME)
    if any(sequence.first for sequence in sequences):
        raise UsageError(
            f"{path}: {file.name} cannot be written as {NAME}: a sequence begins behind position 0", "Write it as sglang-api."
        )
    dtype = np.uint8 if max(trace.header.num_experts for trace in file.traces) <= 256 else np.uint16
    responses = [json.dumps(response_of(sequence, dtype)) for sequence in sequences]
    write_text(path, "[\n" + ",\n".join(responses) + "\n]\n")


def response_of(sequence: Recorded, dtype: type[np.integer]) -> Response:
    """The response that returns a sequence; its last generated token, which has no row, is unknown."""
    rows, prompt = len(sequence.experts_TLK), sequence.num_prompt
    choice: Response = {"index": 0, KEY: base64.b64encode(npy_of(sequence.experts_TLK, dtype)).decode()}
    if sequence.token_ids is not None:
        choice |= {"prompt_token_ids": sequence.token_ids[:prompt], "token_ids": [*sequence.token_ids[prompt:], -1]}
    return {"choices": [choice], "usage": {"prompt_tokens": prompt, "completion_tokens": rows - prompt + 1}}


VLLM = TraceFormat(
    NAME,
    "experts returned by vLLM (*.json, *.npy, *.npz)",
    recognise=is_vllm,
    read=read_vllm,
    write=write_vllm,
    keeps=frozenset({"phase", "sequence", "position", "token_id"}),
    derives=frozenset({"step"}),
    omits=frozenset({"experts"}),
    endings=(".vllm.json",),
)
