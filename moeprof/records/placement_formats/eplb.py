"""The format `eplb`: the three tensors that EPLB returns, in a file of torch.

L layers with experts, P physical experts, E logical ones, X copies of an expert at the most.
"""

from pathlib import Path
from typing import Any

import numpy as np

from moeprof.records.arrays import Ints
from moeprof.records.placement import Placement
from moeprof.records.placement_formats.placement_format import (
    PlacementFacts,
    PlacementFormat,
    checked_map,
    map_of,
    placement_of,
)
from moeprof.records.system import torch_file
from moeprof.records.system.inputs import InputFile

NO_COPY = -1


def is_eplb(file: InputFile) -> bool:
    """Whether the file is one of torch with the map of EPLB."""
    return torch_file.is_torch_file(file) and b"phy2log" in file.head


def read_eplb(file: InputFile, facts: PlacementFacts) -> Placement:
    """The placement; the number of ranks is `num_gpus`, if the file has it."""
    document = torch_file.load(file)
    if not isinstance(document, dict) or "phy2log" not in document:
        raise ValueError("it has no phy2log")
    map_LP = checked_map(torch_file.array(document["phy2log"]), "phy2log")
    check_others(document, map_LP)
    stated = document.get("num_gpus")
    ranks = stated if type(stated) is int else facts.ranks
    if facts.ranks not in (None, ranks):
        raise ValueError(f"num_gpus is {ranks}, but --ranks states {facts.ranks}")
    return placement_of(map_LP, ranks, facts.layers)


def check_others(document: dict[str, Any], map_LP: Ints) -> None:
    """ValueError if the other two tensors, where they are present, contradict the map."""
    if "logcnt" in document:
        count_LE = torch_file.array(document["logcnt"])
        if count_LE is None or not np.array_equal(count_LE, copies(map_LP)):
            raise ValueError("logcnt does not count the copies in phy2log")
    if "log2phy" in document:
        places = torch_file.array(document["log2phy"])
        wanted = copies_of(map_LP)
        if places is None or places.ndim != 3 or not same_copies(places, wanted):
            raise ValueError("log2phy does not list the copies in phy2log")


def same_copies(one_LEX: Any, other_LEX: Ints) -> bool:
    """Whether two lists have the same copies of every expert, in any order and with any width."""
    width = max(one_LEX.shape[2], other_LEX.shape[2])
    wide = [
        np.pad(found, ((0, 0), (0, 0), (0, width - found.shape[2])), constant_values=NO_COPY) for found in (one_LEX, other_LEX)
    ]
    return np.array_equal(np.sort(wide[0], axis=2), np.sort(wide[1], axis=2))


def copies(map_LP: Ints) -> Ints:
    """How many copies every expert has, (L, E)."""
    count_LE = np.zeros((len(map_LP), int(map_LP.max()) + 1), np.int64)
    np.add.at(count_LE, (np.arange(len(map_LP))[:, None], map_LP), 1)
    return count_LE


def copies_of(map_LP: Ints) -> Ints:
    """The physical experts that are copies of every expert, ascending, (L, E, X), and NO_COPY behind them."""
    count_LE = copies(map_LP)
    found_LEX = np.full((*count_LE.shape, int(count_LE.max())), NO_COPY)
    for layer, experts in enumerate(map_LP.tolist()):
        filled = [0] * count_LE.shape[1]
        for place, expert in enumerate(experts):
            found_LEX[layer, expert, filled[expert]] = place
            filled[expert] += 1
    return found_LEX


def write_eplb(placement: Placement, path: Path, facts: PlacementFacts) -> None:
    """Writes the tensors, and the numbers of replicas and devices."""
    map_LP = map_of(placement)
    torch_file.save(
        path,
        {
            "num_replicas": map_LP.shape[1],
            "num_gpus": placement.num_ranks,
            "phy2log": map_LP,
            "log2phy": copies_of(map_LP),
            "logcnt": copies(map_LP),
        },
    )


EPLB = PlacementFormat(
    "eplb",
    "the tensors of EPLB (*.pt)",
    recognise=is_eplb,
    read=read_eplb,
    write=write_eplb,
    keeps=frozenset({"ranks"}),
)
