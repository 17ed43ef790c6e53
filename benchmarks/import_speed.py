"""Time and memory of reading one million rows of every text format (limits: 5 s, 4 times the file's size + 400 MiB).

A row is the choices of a token in a layer; in a route log it is one choice. A process of its own reads each file.

python benchmarks/import_speed.py [FORMAT ...] [--rows N] [--top-k K]
"""

import argparse
import base64
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from moeprof.records.arrays import Ints
from moeprof.records.traces.formats import read_trace_file
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.layer_map import LayerMap

NUM_LAYERS, NUM_EXPERTS, PROMPT = 48, 128, 500
LIMIT_S, LIMIT_SIZES, LIMIT_MIB = 5.0, 4, 400
MIB = 2**20


def main() -> int:
    """Prints one line per format; exit status 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("formats", nargs="*", default=list(WRITERS))
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--top-k", type=int, default=8)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        print(read(options.read, options.top_k))
        return 0
    exceeded = [measured(name, options.rows, options.top_k) for name in options.formats]
    return int(any(exceeded))


def read(file: Path, top_k: int) -> str:
    """The rows of a file, and the time, the processor time and most memory of this process; all but the last without imports."""
    started, before = perf_counter(), process_time()
    layers = LayerMap(tuple(range(NUM_LAYERS)), NUM_LAYERS)
    found = read_trace_file(file, options=ImportOptions(layers=layers, top_k=top_k, experts=NUM_EXPERTS))
    took, worked = perf_counter() - started, process_time() - before
    assert found.report is not None
    return f"{found.report.kept} {took} {worked} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}"


def measured(name: str, num_rows: int, top_k: int) -> bool:
    """Whether a format exceeds a limit, which is printed."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "file"
        shape = (num_rows // NUM_LAYERS // (top_k if name == "route-csv" else 1), NUM_LAYERS, top_k)
        with file.open("w") as out:
            for text in WRITERS[name](drawn(shape)):
                out.write(text)
        command = [sys.executable, __file__, "--read", str(file), "--top-k", str(top_k)]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        size_mib = file.stat().st_size / MIB
    kept, seconds, worked, mib = int(answer[0]), *map(float, answer[1:])
    allowed = LIMIT_SIZES * size_mib + LIMIT_MIB
    print(
        f"{name:13}{kept:10,} rows kept, {size_mib:4.0f} MiB:{seconds:6.2f} s of {LIMIT_S:g} (processor time {worked:.2f} s), "
        f"{mib:5.0f} MiB of {allowed:.0f}"
    )
    return seconds > LIMIT_S or mib > allowed


def drawn(shape: tuple[int, int, int]) -> Ints:
    """Different experts of every token and layer, (T, L, K)."""
    generator = np.random.default_rng(0)
    first = generator.integers(0, NUM_EXPERTS, shape[:2])[..., None]
    apart = 1 + np.cumsum(generator.integers(1, NUM_EXPERTS // (shape[2] + 1), shape), axis=2)
    return np.asarray((first + apart) % NUM_EXPERTS)


def lines(
    fields: Callable[[int, int], dict[str, Any]], head: dict[str, Any], ids: tuple[str, str], experts: Ints
) -> Iterator[str]:
    """JSON lines with the fields of every token and layer, its experts and its weights."""
    weights = [round(1 / (slot + 3), 6) for slot in range(experts.shape[2])]
    yield json.dumps(head) + "\n"
    for token, layers in enumerate(experts.tolist()):
        for layer, chosen in enumerate(layers):
            yield json.dumps(fields(token, layer) | {"layer": layer, ids[0]: chosen, ids[1]: weights}) + "\n"


def vllm_log(experts: Ints) -> Iterator[str]:
    """The log of a hook in vLLM's router."""
    head = {"type": "meta", "layers_logged": list(range(NUM_LAYERS)), "top_k": experts.shape[2]}
    return lines(
        lambda token, layer: {"type": "route", "req_id": f"req-{token // PROMPT}", "token_idx": token % PROMPT},
        head,
        ("topk_ids", "topk_weights"),
        experts,
    )


def cache_lab(experts: Ints) -> Iterator[str]:
    """The log of a study of caches."""
    head = {"type": "metadata", "num_experts": NUM_EXPERTS, "top_k": experts.shape[2]}
    return lines(
        lambda token, layer: {"type": "routing_selection", "phase": "decode", "token_position": token, "token_id": token % 999},
        head,
        ("selected_experts", "selected_probabilities"),
        experts,
    )


def selections(experts: Ints) -> Iterator[str]:
    """One document of all tokens."""
    facts = {"layers": NUM_LAYERS, "expertsPerLayer": NUM_EXPERTS, "topK": experts.shape[2]}
    yield json.dumps(facts | {"selections": experts.tolist(), "promptBoundaries": list(range(0, len(experts), PROMPT))})


def vllm(experts: Ints) -> Iterator[str]:
    """Responses of vLLM 0.21, which are lists."""
    for start in range(0, len(experts), PROMPT):
        yield json.dumps({"choices": [{"routed_experts": experts[start : start + PROMPT].tolist()}]}) + "\n"


def sglang_api(experts: Ints) -> Iterator[str]:
    """Responses of SGLang."""
    for start in range(0, len(experts), PROMPT):
        part = experts[start : start + PROMPT]
        counts = {"prompt_tokens": len(part), "completion_tokens": 1}
        packed = base64.b64encode(part.astype("<i4").tobytes()).decode()
        yield json.dumps({"meta_info": counts | {"routed_experts": packed}}) + "\n"


def router_data(experts: Ints) -> Iterator[str]:
    """Prompts of a study of gpt-oss."""
    weights = [round(1 / (slot + 3), 6) for slot in range(experts.shape[2])]
    for start in range(0, len(experts), PROMPT):
        tokens = [
            {
                f"token_{place}": {
                    f"layer_{layer}": {"selected_experts": one, "selected_probs": weights} for layer, one in enumerate(layers)
                }
            }
            for place, layers in enumerate(experts[start : start + PROMPT].tolist())
        ]
        yield json.dumps({"router_data": tokens}) + "\n"


def route_csv(experts: Ints) -> Iterator[str]:
    """A route log with a line per choice."""
    yield "phase,step,layer,slot,expert\n"
    for token, layers in enumerate(experts.tolist()):
        for layer, chosen in enumerate(layers):
            yield "".join(f"1,{token},{layer},{slot},{expert}\n" for slot, expert in enumerate(chosen))


WRITERS = {
    "route-csv": route_csv,
    "vllm-log": vllm_log,
    "cache-lab": cache_lab,
    "selections": selections,
    "vllm": vllm,
    "sglang-api": sglang_api,
    "router-data": router_data,
}


if __name__ == "__main__":
    sys.exit(main())
