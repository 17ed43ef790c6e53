"""`moeprof.record(model)`: records the routing of a Hugging Face model while a user's own code runs it.

B sequences, L positions, T tokens (B x L), K choices, E experts.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from moeprof.analysis.derive import derive, salvage
from moeprof.huggingface.adapters.adapter import Kept
from moeprof.huggingface.capture import Call, Capture
from moeprof.huggingface.description import keys_of, top_k_of
from moeprof.huggingface.sites import find_sites
from moeprof.huggingface.tally import computed_rows, tally
from moeprof.instrument.machine import environment
from moeprof.instrument.routing import RoutingRecorder
from moeprof.instrument.step import Step, make_step
from moeprof.records.errors import UsageError
from moeprof.records.name import name_from
from moeprof.records.recipe.files import validated
from moeprof.records.recipe.recipe import PHASES, Recipe
from moeprof.records.recipe.variant import OWN
from moeprof.records.run.raw_tables import EXPERT_CALLS, STEPS
from moeprof.records.run.run import Run, RunRecord
from moeprof.records.run.writer import RunWriter
from moeprof.records.traces.routing_trace import RoutingTrace
from moeprof.studies.passes.routing import call_rows, step_rows, trace_header

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ExpertCounts = npt.NDArray[np.int64]


class Recording:
    """What the experts of a model were given inside a block; the model and its outputs stay as they are.

    `with moeprof.record(model) as recording: model.generate(...)`. A call with several positions per sequence belongs to the phase
    `score` (in an encoder `encode`), one with a single position to `decode`. No hook is left after the block.
    """

    def __init__(self, model: "PreTrainedModel", *, name: str = "", keep_tokens: bool = False) -> None:
        """UsageError for a model without experts; `name` is that of the run, and token ids are kept only if asked."""
        self.model, self.sites, self.keep_tokens = model, find_sites(model), keep_tokens
        self.name = name_from(name or model.config.name_or_path.rpartition("/")[2] or type(model).__name__, "model")
        self.recorders: dict[str, RoutingRecorder] = {}
        """What was recorded, by phase."""
        self.stacks: dict[str, Step] = {}
        """The step that a stack of the model is running, by the prefix of its layers."""
        self.hooks = ExitStack()

    def __enter__(self) -> "Recording":
        with ExitStack() as hooks:
            for prefix, stack in self.stacks_of_model().items():
                handle = stack.register_forward_pre_hook(self.begin_hook(prefix), with_kwargs=True)
                hooks.callback(handle.remove)
            hooks.enter_context(Capture(self.sites, self.see))
            self.hooks = hooks.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.hooks.__exit__(kind, error, trace)

    def stacks_of_model(self) -> dict[str, Any]:
        """The modules whose calls are steps, by the prefix of their layers' names."""
        if not self.model.config.is_encoder_decoder:
            return {"": self.model}
        model: Any = self.model
        return {"enc.": model.get_encoder(), "dec.": model.get_decoder()}

    def begin_hook(self, prefix: str) -> Any:
        """A hook that begins a step with the inputs of a call."""

        def begin(module: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
            ids = kwargs.get("input_ids", args[0] if args else None)
            inputs = ids if ids is not None else kwargs.get("inputs_embeds")
            if not isinstance(inputs, Tensor):
                raise UsageError("moeprof.record: a call without input_ids or inputs_embeds", "Call the model with tensors.")
            self.stacks[prefix] = self.step(prefix, ids, inputs, kwargs.get("attention_mask"))

        return begin

    def step(self, prefix: str, ids: Tensor | None, inputs: Tensor, mask: Tensor | None) -> Step:
        """The step of a call: which rows are padding, and the position of each."""
        batch, length = inputs.shape[:2]
        phase = "encode" if prefix == "enc." else "decode" if length == 1 else "score"
        if phase == "score" and prefix == "dec.":
            phase = "decode"
        tokens_BL = np.full((batch, length), -1) if ids is None or not self.keep_tokens else ids.cpu().numpy()
        known = mask.bool() if isinstance(mask, Tensor) and mask.dim() == 2 and len(mask) == batch else None
        real_BL = np.ones((batch, length), bool) if known is None else known[:, -length:].cpu().numpy()
        first = 0 if known is None else known.shape[1] - length
        index = len({step.index for _, step, *_ in self.recorder(phase).steps})
        device = inputs.device.type
        return make_step(phase, index, self.name, tokens_BL.astype(np.int64), real_BL, np.arange(batch), first, device)

    def recorder(self, phase: str) -> RoutingRecorder:
        """The recorder of a phase."""
        return self.recorders.setdefault(phase, RoutingRecorder())

    def see(self, call: Call) -> None:
        """Keeps the choices of one call of experts."""
        prefix = next((prefix for prefix in self.stacks if prefix and call.site.layer.startswith(prefix)), "")
        step = self.stacks[prefix]
        counts = tally(call, step.real_T)
        layer, lost_TK, recorder = call.site.layer, call.kept_TK != Kept.ROUTED, self.recorder(step.phase)
        recorder.routed(layer, step, call.experts_TK, call.weights_TK, lost_TK, computed_rows(call, counts))
        recorder.called(layer, step, call.backend, counts._asdict())

    def counts(self) -> dict[str, ExpertCounts]:
        """The tokens that each expert computed, (E,), by layer; padding and dropped choices are left out."""
        found = {site.layer: np.zeros(site.num_experts, np.int64) for site in self.sites}
        for recorder in self.recorders.values():
            for layer, step, experts_TK, _, lost_TK in recorder.decisions:
                kept_TK = ~lost_TK if step.real_T is None else ~lost_TK & step.real_T[:, None]
                found[layer] += torch.bincount(experts_TK[kept_TK], minlength=len(found[layer])).cpu().numpy()
        return found

    def trace(self, phase: str) -> RoutingTrace:
        """The routing trace of a phase. UsageError if nothing was recorded in it."""
        if phase not in self.recorders:
            recorded = ", ".join(self.recorders) or "nothing"
            raise UsageError(f"recording {self.name}: no phase {phase!r}", f"Recorded: {recorded}.")
        return self.recorders[phase].trace(trace_header(self.recipe(), phase, OWN))

    def recipe(self) -> Recipe:
        """The model and the sizes of what was recorded, as a recipe."""
        workload = "mt" if self.model.config.is_encoder_decoder else "lm"
        sizes = [step for recorder in self.recorders.values() for _, step, *_ in recorder.steps]
        sequences = max((1 + int(np.max(step.sequence_T)) for step in sizes if step.sequence_T is not None), default=1)
        longest = max((1 + int(np.max(step.position_T)) for step in sizes if step.position_T is not None), default=2)
        top_k = top_k_of(self.name, self.sites)
        return validated(
            {
                "name": self.name,
                "workload": workload,
                "model": {"huggingface": self.name, "keep_tokens": self.keep_tokens, **keys_of(self.model, self.sites)},
                "gating": {"top_k": top_k},
                "load": {
                    "batch_size": sequences,
                    "sequence_length": max(longest, 2),
                    "prompt_length": 1,
                    "phases": [phase for phase in PHASES[workload] if phase in self.recorders] or None,
                },
                "measure": {"device": "cuda" if self.model.device.type == "cuda" else "cpu"},
            },
            f"of {self.name}",
        )

    def save(self, folder: str | Path, *, force: bool = False) -> Run:
        """Writes a run directory that `report`, `replay` and `compare` read. UsageError if the folder has a run, unless `force`."""
        if not self.recorders:
            raise UsageError(f"recording {self.name}: nothing was recorded", "Run the model inside the block.")
        recipe = self.recipe()
        record = RunRecord(
            command="record",
            recipe=recipe,
            variants=[{"label": OWN.label, "dispatch": OWN.dispatch}],
            environment=environment(recipe.measure.device),
        )
        writer = RunWriter(Path(folder), record, force=force, derive=derive, salvage=salvage)
        with writer.guarded():
            for phase, recorder in self.recorders.items():
                writer.add_trace(self.trace(phase))
                steps, calls = step_rows(phase, OWN.label, recorder, {}), call_rows(phase, OWN.label, recorder)
                for table, rows in ((STEPS, steps), (EXPERT_CALLS, calls)):
                    writer.append(table, pa.Table.from_pylist([{**row, "rank": 0} for row in rows], schema=table.schema))
            return writer.finish()


def record(model: "PreTrainedModel", *, name: str = "", keep_tokens: bool = False) -> Recording:
    """Records what is routed to the experts of a model in a `with` block."""
    return Recording(model, name=name, keep_tokens=keep_tokens)
