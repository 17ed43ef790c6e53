"""What ranks say to each other: rows to the ranks of their experts, and numbers and documents that all agree on.

Every rank calls the same functions in the same order. Alone, nothing is sent. R rows, N ranks.
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


@dataclass(frozen=True, eq=False)
class Arriving:
    """Rows on their way here."""

    rows: Tensor
    work: Any

    def wait(self) -> Tensor:
        """The rows, source by source. LostRankError or LateRankError where they never come."""
        with answered():
            self.work.wait()
        return self.rows

    def when_done(self, tell: Callable[[], object]) -> None:
        """Calls `tell` as soon as the rows are here, whatever this rank does meanwhile; from another thread, and on a CPU only."""
        self.work.get_future().add_done_callback(lambda _: tell())


def start_all_to_all(rows: Tensor, sent: Sequence[int] | None = None, received: Sequence[int] | None = None) -> Arriving:
    """Sends rank n its `sent[n]` rows, in order, and receives `received[n]` from it; without numbers every rank gets as many."""
    arriving = torch.empty_like(rows) if received is None else rows.new_empty(sum(received), *rows.shape[1:])
    with answered():
        work = dist.all_to_all_single(
            arriving, rows.contiguous(), received and list(received), sent and list(sent), async_op=True
        )
    return Arriving(arriving, work)


@contextmanager
def answered() -> Iterator[None]:
    """Says what it means where a collective inside fails."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0].rpartition("] ")[2]  # gloo puts its source file in front
        if "timed out" in reason.lower() or "timeout" in reason.lower():
            raise LateRankError(
                f"another rank did not answer in time ({reason})",
                "See its log; where it is only slow, raise [parallel] timeout_s.",
            ) from error
        raise LostRankError(f"another rank is gone ({reason})", "See its log.") from error


def barrier(group: Group) -> None:
    """Returns when every rank has come here."""
    if not group.alone:
        with answered():
            dist.barrier()


def largest(group: Group, values: Sequence[int]) -> list[int]:
    """Elementwise over ranks, on every rank."""
    return reduced(group, values, dist.ReduceOp.MAX)


def total(group: Group, values: Sequence[int]) -> list[int]:
    """Elementwise over ranks, on every rank."""
    return reduced(group, values, dist.ReduceOp.SUM)


def anyone(group: Group, flag: bool) -> bool:
    """Whether it is so on any rank."""
    return bool(largest(group, [int(flag)])[0])


def reduced(group: Group, values: Sequence[int], operation: Any) -> list[int]:
    """The same whole numbers on every rank."""
    if group.alone:
        return list(values)
    numbers = torch.tensor(values, dtype=torch.int64)
    with answered():
        dist.all_reduce(numbers, operation)
    reduced_values: list[int] = numbers.tolist()
    return reduced_values


def all_gather_json(group: Group, document: Any) -> list[Any]:
    """Every rank's JSON document, in the order of the ranks, on every rank."""
    return [json.loads(found) for found in exchanged(group, json.dumps(document).encode(), gather_everywhere)]


def gathered(group: Group, payload: bytes) -> list[bytes]:
    """Every rank's bytes, in the order of the ranks, on rank 0; nothing elsewhere."""
    return exchanged(group, payload, gather_at_first)


def exchanged(group: Group, payload: bytes, gather: Callable[[Group, Tensor], list[Tensor]]) -> list[bytes]:
    """Payloads of different lengths by a collective of equal ones: padded, and cut to the lengths that went ahead."""
    if group.alone:
        return [payload]
    lengths = [int(length) for length in torch.cat(gather_everywhere(group, torch.tensor([len(payload)])))]
    padded = torch.zeros(max(lengths), dtype=torch.uint8)
    padded[: len(payload)] = torch.frombuffer(bytearray(payload), dtype=torch.uint8) if payload else 0
    return [bytes(found[:length].numpy()) for found, length in zip(gather(group, padded), lengths, strict=False)]


def gather_everywhere(group: Group, numbers: Tensor) -> list[Tensor]:
    """Every rank's tensor on every rank."""
    found = [torch.empty_like(numbers) for _ in range(group.size)]
    with answered():
        dist.all_gather(found, numbers)
    return found


def gather_at_first(group: Group, numbers: Tensor) -> list[Tensor]:
    """Every rank's tensor on rank 0; nothing elsewhere."""
    found = [torch.empty_like(numbers) for _ in range(group.size)] if group.first else []
    with answered():
        dist.gather(numbers, found if group.first else None)
    return found
