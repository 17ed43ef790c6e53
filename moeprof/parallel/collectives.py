"""Collectives: rows for the ranks of their experts, and numbers and documents that are equal on all ranks.

Every rank calls the same functions in the same order. A single rank sends nothing. R rows, N ranks.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from moeprof.parallel.failure import LateRankError, LostRankError
from moeprof.parallel.group import Group
from moeprof.records.system.parsing import parsed_json


@dataclass(frozen=True, eq=False)
class Arriving:
    """Rows that this rank is receiving."""

    rows: Tensor
    work: Any

    def wait(self) -> Tensor:
        """The rows, source by source; LostRankError or LateRankError if they do not arrive."""
        with rank_errors():
            self.work.wait()
        return self.rows

    def when_done(self, callback: Callable[[], object]) -> None:
        """Calls `callback` from another thread as soon as the rows have arrived; on a CPU only."""
        self.work.get_future().add_done_callback(lambda _: callback())


def start_all_to_all(rows: Tensor, sent: Sequence[int] | None = None, received: Sequence[int] | None = None) -> Arriving:
    """Starts to send `sent[n]` rows to rank n, in order, and to receive `received[n]` from it; None means equal shares."""
    arriving = torch.empty_like(rows) if received is None else rows.new_empty(sum(received), *rows.shape[1:])
    with rank_errors():
        work = dist.all_to_all_single(
            arriving, rows.contiguous(), received and list(received), sent and list(sent), async_op=True
        )
    return Arriving(arriving, work)


@contextmanager
def rank_errors() -> Iterator[None]:
    """Turns the RuntimeError of a failed collective inside into LateRankError or LostRankError."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0].rpartition("] ")[2]  # gloo puts its source file in front
        if "timed out" in reason.lower() or "timeout" in reason.lower():
            raise LateRankError(
                f"another rank did not answer in time ({reason})",
                "See its log; if it is only slow, raise [parallel] timeout_s.",
            ) from error
        raise LostRankError(f"another rank has ended ({reason})", "See its log.") from error


def barrier(group: Group) -> None:
    """Returns when all ranks have called it."""
    if not group.alone:
        with rank_errors():
            dist.barrier()


def largest(group: Group, values: Sequence[int]) -> list[int]:
    """The elementwise maximum over ranks, on every rank."""
    return reduced(group, values, dist.ReduceOp.MAX)


def total(group: Group, values: Sequence[int]) -> list[int]:
    """The elementwise sum over ranks, on every rank."""
    return reduced(group, values, dist.ReduceOp.SUM)


def anyone(group: Group, flag: bool) -> bool:
    """Whether the flag is set on any rank."""
    return bool(largest(group, [int(flag)])[0])


def reduced(group: Group, values: Sequence[int], operation: Any) -> list[int]:
    """The reduced whole numbers, equal on every rank."""
    if group.alone:
        return list(values)
    numbers = torch.tensor(values, dtype=torch.int64)
    with rank_errors():
        dist.all_reduce(numbers, operation)
    reduced_values: list[int] = numbers.tolist()
    return reduced_values


def all_gather_json(group: Group, document: Any) -> list[Any]:
    """The JSON documents of all ranks in their order, on every rank."""
    return [parsed_json(found) for found in exchanged(group, json.dumps(document).encode(), gather_everywhere)]


def gathered(group: Group, payload: bytes) -> list[bytes]:
    """The bytes of all ranks in their order on rank 0; an empty list on the others."""
    return exchanged(group, payload, gather_at_first)


def exchanged(group: Group, payload: bytes, gather: Callable[[Group, Tensor], list[Tensor]]) -> list[bytes]:
    """Exchanges payloads of different lengths with `gather`, which needs equal ones: lengths first, then padded payloads."""
    if group.alone:
        return [payload]
    lengths = [int(length) for length in torch.cat(gather_everywhere(group, torch.tensor([len(payload)])))]
    padded = torch.zeros(max(lengths), dtype=torch.uint8)
    padded[: len(payload)] = torch.frombuffer(bytearray(payload), dtype=torch.uint8) if payload else 0
    return [bytes(found[:length].numpy()) for found, length in zip(gather(group, padded), lengths, strict=False)]


def gather_everywhere(group: Group, numbers: Tensor) -> list[Tensor]:
    """The tensors of all ranks, on every rank."""
    found = [torch.empty_like(numbers) for _ in range(group.size)]
    with rank_errors():
        dist.all_gather(found, numbers)
    return found


def gather_at_first(group: Group, numbers: Tensor) -> list[Tensor]:
    """The tensors of all ranks on rank 0; an empty list on the others."""
    found = [torch.empty_like(numbers) for _ in range(group.size)] if group.first else []
    with rank_errors():
        dist.gather(numbers, found if group.first else None)
    return found
