"""The placement file of a replay: the placement that was tested, for every layer of the model."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from moeprof.analysis.placement.balance_rows import PhaseLoads
from moeprof.policies.balancing.balancer import History
from moeprof.policies.balancing.contiguous import CONTIGUOUS
from moeprof.policies.balancing.registry import placed
from moeprof.records.errors import UsageError
from moeprof.records.placement import Placement

log = logging.getLogger(__name__)


def placement_of(
    phases: Sequence[PhaseLoads], pairs: Sequence[tuple[str, int]], path: Path, notes: list[str], *, force: bool
) -> Placement:
    """The placement of all phases; UsageError if `pairs` names more than one, or none can be made."""
    name, devices = the_only(pairs, path)
    if path.exists() and not force:
        raise UsageError(f"--save-placement {path}: the file exists", "Give another name, or --force to replace it.")
    trace, cluster = phases[0].balance.trace, phases[0].cluster(name, devices)
    layers: dict[str, list[list[int]]] = {}
    for phase in phases:
        found = {layer: slots_DS.tolist() for layer, slots_DS in phase.trial.place(name, cluster).items()}
        if both := [layer for layer in found if layer in layers]:
            raise UsageError(
                f"--save-placement {path}: layer {both[0]} has loads in several phases", "Choose one with --phase."
            )
        layers |= found
    if not layers:
        raise UsageError(f"--save-placement {path}: no layer has a history to place by", "Give a trace of several steps.")
    listed = dict.fromkeys(layer for phase in phases for rank in phase.ranks for layer in rank.header.layers)
    if idle := [layer for layer in listed if layer not in layers]:
        even = placed(name, History.of_totals(np.zeros(trace.num_experts)), cluster).tolist()
        layers |= dict.fromkeys(idle, even)
        notes.append(f"layer {', '.join(idle)}: loads unknown, so it was saved as if all loads were equal")
    ordered = {layer: tuple(map(tuple, layers[layer])) for layer in [*listed, *(name for name in layers if name not in listed)]}
    saved = Placement(trace.num_experts, ordered, trace.weights_hash)
    for note in repeated_copies(saved, path):
        log.warning("%s", note)  # the file is used without the report, in which it is a note too
        notes.append(note)
    return saved


def repeated_copies(saved: Placement, path: Path) -> Iterator[str]:
    """A note if a rank holds an expert twice: servers may run such a placement, and a model of moeprof may not."""
    try:
        for layer in saved.layers:
            saved.check_copies(layer)
    except ValueError as error:
        yield (
            f"{path}: {error}. Formats of servers allow that (moeprof convert); moeprof optimize refuses it, for which eplb-distinct "
            "places no expert twice on a device"
        )


def the_only(possible: Sequence[tuple[str, int]], path: Path) -> tuple[str, int]:
    """The one balancer and number of devices; contiguous placement only if there is no other."""
    pairs = [pair for pair in possible if pair[0] != CONTIGUOUS.name] or list(possible)
    if len(pairs) != 1:
        what = f"--save-placement {path}: ambiguous, {len(pairs)} placements are replayed"
        raise UsageError(what, "Give one --balancer and one number of --devices.")
    return pairs[0]
