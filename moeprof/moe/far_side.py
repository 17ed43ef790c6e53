"""MoNDE on one machine: a second process on a core of its own has all experts in its memory and computes the rows that it is sent.

It stands for a device that computes where its memory is (arXiv 2405.18832): rows and outputs move, weights do not. N rows, D width.
"""

import multiprocessing
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from moeprof.moe.experts import make_ffn
from moeprof.moe.reference import run_expert
from moeprof.records.errors import MoeprofError
from moeprof.records.ffn.registry import FFN_FORMS
from moeprof.store.entry import EntryLayout
from moeprof.store.tier import Tier

if TYPE_CHECKING:
    from moeprof.store.resident import ExpertWeights

PATIENCE_S = 60.0
"""How long an answer may take."""


@dataclass(frozen=True)
class FarFFN:
    """What the process computes, by names, since functions do not travel."""

    form: str
    activation: str


class FarSide:
    """The process; it ends with this one, or when it is closed. Used from one thread."""

    def __init__(self, layouts: Mapping[str, EntryLayout], num_experts: Mapping[str, int], tier: Tier, ffn: FarFFN) -> None:
        """Copies the experts of these layers from the tier into the process. MoeprofError if it does not start."""
        context = multiprocessing.get_context("spawn")
        self.near, far = context.Pipe()
        self.process = context.Process(target=serve, args=(far, dict(layouts), ffn, own_core()), daemon=True)
        self.process.start()
        far.close()
        for layer, layout in layouts.items():
            entry_B = layout.slab(1, "cpu")[0]
            for expert in range(num_experts[layer]):
                tier.read(layer, expert, entry_B)
                self.send((layer, expert), entry_B)
        self.send(None)
        self.answer()
        self.kept = torch.empty(0)
        """The rows that were sent last."""

    def begin(self, layer: str, experts: Sequence[int], rows_ND: Tensor, counts: Sequence[int]) -> None:
        """Sends the rows of some experts, `counts` of each, one expert after another."""
        self.kept = rows_ND
        dtype = str(rows_ND.dtype).removeprefix("torch.")
        self.send((layer, list(experts), list(counts), rows_ND.shape[1], dtype), rows_ND.contiguous().cpu())

    def outputs(self) -> Tensor:
        """Waits for the outputs of the rows that were sent last, (N, D)."""
        found = torch.frombuffer(bytearray(self.answer()), dtype=torch.uint8).view(self.kept.dtype)
        return found.view(self.kept.shape).to(self.kept.device)

    def send(self, header: object, content: Tensor | None = None) -> None:
        """Sends a header, and the bytes of a tensor after it."""
        try:
            self.near.send(header)
            if content is not None:
                self.near.send_bytes(content.view(-1).view(torch.uint8).numpy().data)
        except OSError as error:
            raise self.gone() from error

    def answer(self) -> bytes:
        """The next answer of the process; MoeprofError if it has ended or takes too long."""
        try:
            if self.near.poll(PATIENCE_S):
                return self.near.recv_bytes()
        except (EOFError, OSError) as error:
            raise self.gone() from error
        raise MoeprofError(
            f"the process that computes cold experts has not answered for {PATIENCE_S:.0f} s",
            "Run it again on a quiet machine.",
        )

    def gone(self) -> MoeprofError:
        """The error for a process that has ended."""
        self.process.join(1)
        code = self.process.exitcode
        how = "is unreachable" if code is None else f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return MoeprofError(
            f"the process that computes cold experts {how}", "Free memory if the system ended it, and run it again."
        )

    def close(self) -> None:
        """Ends the process, by force if it does not end by itself."""
        self.near.close()
        self.process.join(1)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def own_core() -> int:
    """The last core that this process may use: schedulers fill the first ones first."""
    return max(os.sched_getaffinity(0))


def serve(near: Connection, layouts: Mapping[str, EntryLayout], ffn: FarFFN, core: int) -> None:
    """The loop of the process, until the other end is closed."""
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    compute = make_ffn(FFN_FORMS[ffn.form], ffn.activation)
    weights: dict[tuple[str, int], ExpertWeights] = {}
    try:
        with torch.inference_mode():
            while (key := near.recv()) is not None:
                layer, expert = key
                weights[layer, expert] = layouts[layer].entry(received(near, torch.uint8))
            near.send_bytes(b"ready")
            while True:
                layer, experts, lengths, dim, dtype = near.recv()
                rows_ND = received(near, getattr(torch, dtype)).view(-1, dim)
                parts = torch.split(rows_ND, lengths)
                outputs = [run_expert(part, weights[layer, one], compute) for one, part in zip(experts, parts, strict=True)]
                near.send_bytes(torch.cat(outputs).view(-1).view(torch.uint8).numpy().data)
    except (EOFError, OSError, KeyboardInterrupt):
        return


def received(near: Connection, dtype: torch.dtype) -> Tensor:
    """The next bytes as numbers of a type."""
    return torch.frombuffer(bytearray(near.recv_bytes()), dtype=torch.uint8).view(dtype)
