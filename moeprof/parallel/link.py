"""Measures what lies between ranks: the shortest time of a message, there and back, by its size."""

import hashlib
import socket
from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from moeprof.parallel.collectives import all_gather_json, answered
from moeprof.parallel.group import Group
from moeprof.records.link import BETWEEN, WITHIN, Link, Links, link_file

ReadClock = Callable[[], int]
RankPair = tuple[int, int]

SIZES_BYTES = [8 * 4**power for power in range(11)]
"""8 bytes to 8 MiB."""

BUDGET_BYTES = 16 * 2**20
"""What one size may send in each direction."""

MIN_TURNS, MAX_TURNS = 5, 50
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def measured_links(group: Group, about: Mapping[str, str], device: str, clock: ReadClock) -> Links:
    """What lies between the ranks; to be called on all of them alike.

    `about` says what else than the machines' names a measurement depends on; what rank 0 kept of the same is used again.
    `clock` waits for the device.
    """
    names = ", ".join(sorted(set(all_gather_json(group, socket.gethostname()))))
    hosts = numbered(all_gather_json(group, machine()))
    found = {}
    for kind, pair in pairs_by_kind(hosts).items():
        found[kind] = link(group, {**about, "machines": names, "link": kind}, pair, device, clock)
    return Links(hosts, found)


def machine() -> str:
    """The same for all processes of a machine that runs, and for no others."""
    boot = BOOT_ID.read_text() if BOOT_ID.exists() else ""
    return hashlib.sha256(f"{socket.gethostname()} {boot}".encode()).hexdigest()


def numbered(names: list[str]) -> list[int]:
    """A number for each name, from 0, in order of appearance."""
    order = list(dict.fromkeys(names))
    return [order.index(name) for name in names]


def pairs_by_kind(hosts: list[int]) -> dict[str, RankPair]:
    """The first two ranks that share a machine, and the first two that do not."""
    pairs: dict[str, RankPair] = {}
    for one, other in combinations(range(len(hosts)), 2):
        pairs.setdefault(WITHIN if hosts[one] == hosts[other] else BETWEEN, (one, other))
    return pairs


def link(group: Group, about: Mapping[str, str], pair: RankPair, device: str, clock: ReadClock) -> Link:
    """Between two ranks: kept from before, or measured now while all others wait."""
    kept = Link.kept(about) if group.first else None
    times = all_gather_json(group, kept.times_ns if kept and kept.sizes_bytes == SIZES_BYTES else None)[0]
    if times is not None:
        return Link(about=dict(about), sizes_bytes=SIZES_BYTES, times_ns=times)
    mine = [there_and_back_ns(group, pair, size, device, clock) / 2 for size in SIZES_BYTES if group.rank in pair]
    found = Link(about=dict(about), sizes_bytes=SIZES_BYTES, times_ns=all_gather_json(group, mine)[pair[0]])
    if group.first:
        keep(found)
    return found


def keep(found: Link) -> None:
    """For the next run; a user who has no place for it has it measured every time."""
    try:
        found.write(link_file(found.about))
    except OSError:
        return


def there_and_back_ns(group: Group, pair: RankPair, size_bytes: int, device: str, clock: ReadClock) -> int:
    """The shortest of several turns, as one rank of the pair sees it."""
    message = torch.zeros(size_bytes, dtype=torch.uint8, device=device)
    turns = max(MIN_TURNS, min(MAX_TURNS, BUDGET_BYTES // size_bytes))
    with answered():
        return min(turn_ns(group, pair, message, clock) for _ in range(turns))


def turn_ns(group: Group, pair: RankPair, message: Tensor, clock: ReadClock) -> int:
    """One message from the pair's first rank to the other and back."""
    started = clock()
    if group.rank == pair[0]:
        dist.send(message, pair[1])
        dist.recv(message, pair[1])
    else:
        dist.recv(message, pair[0])
        dist.send(message, pair[0])
    return clock() - started
