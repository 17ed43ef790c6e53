"""A rank among the ranks of its run: its number, and how it joins and leaves the others."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from moeprof.records.errors import MoeprofError


@dataclass(frozen=True)
class Group:
    """A rank among the ranks of its run; plain data, so that code that depends on it can be tested in one process."""

    rank: int = 0
    size: int = 1
    neighbours: int = 1
    """Ranks on this machine, this one included."""

    @property
    def alone(self) -> bool:
        """Whether the run has a single rank, which sends nothing and waits for nothing."""
        return self.size == 1

    @property
    def first(self) -> bool:
        """Whether this rank prints, shows progress and writes the run."""
        return self.rank == 0


ALONE = Group()


def started_as() -> Group:
    """The group that the launcher of this process set; `ALONE` if there is no launcher."""
    return group_in(os.environ)


def group_in(environment: Mapping[str, str]) -> Group:
    """The rank and the numbers of ranks in torchrun's variables."""
    rank, size, neighbours = (
        int(environment.get(name, default)) for name, default in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_WORLD_SIZE", 1))
    )
    return Group(rank, size, neighbours)


@contextmanager
def joined(group: Group, device: str, timeout_s: float) -> Iterator[Group]:
    """Connects the ranks while the block runs; a collective that takes longer than `timeout_s` is an error.

    If the block fails, the ranks are not disconnected: that would wait for ranks that have ended.
    """
    if group.alone:
        yield group
        return
    import torch
    import torch.distributed as dist

    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", group.rank)))
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=timedelta(seconds=timeout_s))
    except (RuntimeError, ValueError) as error:
        raise MoeprofError(
            f"rank {group.rank}: the {group.size} ranks could not connect: {str(error).splitlines()[0]}",
            "Start all of them with the same MASTER_ADDR and MASTER_PORT, or let --ranks start them.",
        ) from error
    yield group
    dist.destroy_process_group()
