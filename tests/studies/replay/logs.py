"""Small route logs and runs to be replayed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from moeprof.records.recipe.files import load_recipe
from moeprof.records.run.run import RunRecord
from moeprof.records.run.writer import RunWriter
from moeprof.records.traces.routing_trace import RoutingTrace
from tests.analysis.traces import Row, trace_of

HEADER = "turn,phase,step,layer,slot,expert,weight,residency,expert_bytes\n"

EXPERT_BYTES = 1000


def route_log(
    path: Path,
    decode: Sequence[Sequence[int]],
    *,
    prefill: Sequence[Sequence[int]] = (),
    layers: int = 1,
    experts: int = 4,
    sizes: bool = True,
) -> Path:
    """A token per step; in layer l every expert id is l further on. An expert of layer l takes 1000 x (l + 1) bytes."""
    preamble = f"# route_trace v1\n# n_expert={experts}\n"
    if sizes:
        preamble += "".join(
            f"# layer={layer} expert_bytes={EXPERT_BYTES * (layer + 1)} dense_bytes=5\n" for layer in range(layers)
        )
    lines = [
        f"0,{phase},{step},{layer},{slot},{(expert + layer) % experts},nan,0,0\n"
        for phase, first, steps in ((0, 0, prefill), (1, len(prefill), decode))
        for step, chosen in enumerate(steps, first)
        for layer in range(layers)
        for slot, expert in enumerate(chosen)
    ]
    path.write_text(preamble + HEADER + "".join(lines))
    return path


def run_of_shape(path: Path, recipe: str, steps: int = 20, tokens: int = 3) -> Path:
    """A run of a recipe's model whose decoder routed at random; no model is made."""
    shape = load_recipe(recipe)
    model, draw = shape.model, np.random.default_rng(0)
    writer = RunWriter(path, RunRecord(command="characterize", recipe=shape))
    rows = [
        Row(step, int(expert), slot, layer, sequence=token)
        for step in range(steps)
        for layer in model.decoder_moe_layers
        for token in range(tokens)
        for slot, expert in enumerate(draw.permutation(model.experts)[: shape.gating.top_k])
    ]
    trace = trace_of(rows, num_experts=model.experts, layers=tuple(model.decoder_moe_layers))
    writer.add_trace(RoutingTrace(trace.header.model_copy(update={"workload": shape.workload}), trace.table))
    writer.finish()
    return path
