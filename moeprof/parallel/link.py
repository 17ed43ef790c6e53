"""Measures the link between ranks: half of the shortest round trip of a message, by its size."""

import hashlib
import socket
from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from moeprof.parallel.collectives import all_gather_json, rank_errors
from moeprof.parallel.group import Group
from moeprof.records.errors import MoeprofError
from moeprof.records.link import BETWEEN, WITHIN, Link, Links, link_file

ReadClock = Callable[[], int]
RankPair = tuple[int, int]

SIZES_BYTES = [8 * 4**power for power in range(11)]
"""Message sizes, from 8 bytes to 8 MiB."""

BUDGET_BYTES = 16 * 2**20
"""Bytes that the messages of one size may add up to in each direction."""

MIN_ROUND_TRIPS, MAX_ROUND_TRIPS = 5, 50
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def measured_links(group: Group, about: Mapping[str, str], device: str, clock: ReadClock) -> Links:
    """The links between the ranks; all ranks must call it.

    `about` describes what a measurement depends on besides the names of the machines; rank 0 reuses a kept measurement with the
    same description. `clock` must wait for the device.
    """
    names = ", ".join(sorted(set(all_gather_json(group, socket.gethostname()))))
    hosts = numbered(all_gather_json(group, machine()))
    found = {}
    for kind, pair in pairs_by_kind(hosts).items():
        found[kind] = link(group, {**about, "machines": names, "link": kind}, pair, device, clock)
    return Links(hosts, found)


def machine() -> str:
    """An identifier that is equal for all processes of one machine since its boot, and differs between machines."""
    boot = BOOT_ID.read_text() if BOOT_ID.exists() else ""
    return hashlib.sha256(f"{socket.gethostname()} {boot}".encode()).hexdigest()


def numbered(names: list[str]) -> list[int]:
    """Numbers from 0 for the names, in order of first appearance."""
    order = list(dict.fromkeys(names))
    return [order.index(name) for name in names]


def pairs_by_kind(hosts: list[int]) -> dict[str, RankPair]:
    """The first two ranks on one machine, and the first two on different machines."""
    pairs: dict[str, RankPair] = {}
    for one, other in combinations(range(len(hosts)), 2):
        pairs.setdefault(WITHIN if hosts[one] == hosts[other] else BETWEEN, (one, other))
    return pairs


def link(group: Group, about: Mapping[str, str], pair: RankPair, device: str, clock: ReadClock) -> Link:
    """The link between two ranks: a kept measurement, or a new one while all other ranks wait."""
    kept = Link.kept(about) if group.first else None
    times = all_gather_json(group, kept.times_ns if kept and kept.sizes_bytes == SIZES_BYTES else None)[0]
    if times is not None:
        return Link(about=dict(about), sizes_bytes=SIZES_BYTES, times_ns=times)
    mine = [shortest_round_trip_ns(group, pair, size, device, clock) / 2 for size in SIZES_BYTES if group.rank in pair]
    found = Link(about=dict(about), sizes_bytes=SIZES_BYTES, times_ns=all_gather_json(group, mine)[pair[0]])
    if group.first:
        keep(found)
    return found


def keep(found: Link) -> None:
    """Keeps a measurement for later runs; if the folder cannot be written, every run measures again."""
    try:
        found.write(link_file(found.about))
    except (OSError, MoeprofError):
        return


def shortest_round_trip_ns(group: Group, pair: RankPair, size_bytes: int, device: str, clock: ReadClock) -> int:
    """The shortest of several round trips, measured on one rank of the pair."""
    message = torch.zeros(size_bytes, dtype=torch.uint8, device=device)
    repeats = max(MIN_ROUND_TRIPS, min(MAX_ROUND_TRIPS, BUDGET_BYTES // size_bytes))
    with rank_errors():
        return min(round_trip_ns(group, pair, message, clock) for _ in range(repeats))


def round_trip_ns(group: Group, pair: RankPair, message: Tensor, clock: ReadClock) -> int:
    """The time of one message from the first rank of the pair to the other and back."""
    started = clock()
    if group.rank == pair[0]:
        dist.send(message, pair[1])
        dist.recv(message, pair[1])
    else:
        dist.recv(message, pair[0])
        dist.send(message, pair[0])
    return clock() - started
