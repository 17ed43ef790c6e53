"""The content of a placement file, and the differences between two."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from moeprof.records.placement import Move, Placement
from moeprof.reporters.documents.document import Block, Document, Paragraph, Table


def content(placement: Placement) -> Document:
    """A table with a row per layer and rank: its experts, and how many contiguous placement has elsewhere."""
    rows = [
        [layer, str(number), str(len(held)), remote_experts(placement, number, held), listed(held)]
        for layer, ranks in placement.layers.items()
        for number, held in enumerate(ranks)
    ]
    copies = sum(len(placement.logical(layer)) for layer in placement.layers) - placement.num_experts * len(placement.layers)
    model = f" for the model {placement.model_hash[:12]}" if placement.model_hash else ""
    sentence = (
        f"{placement.num_experts} experts in each of {len(placement.layers)} layers on {placement.num_ranks} ranks{model}, "
        f"{copies} copies."
    )
    caption = "moved = different experts of the rank that contiguous placement (an equal block on each rank) has on a different rank only"
    columns = ["layer", "rank", "slots", "moved", "experts"]
    return [Paragraph(sentence), Table(columns, rows, caption=caption)]


def remote_experts(placement: Placement, rank: int, held: Sequence[int]) -> str:
    """The number of a rank's experts that contiguous placement has on a different rank."""
    return str(sum(expert * placement.num_ranks // placement.num_experts != rank for expert in {*held}))


def differences(before: Placement, after: Placement) -> Document:
    """The experts that change rank, grouped by the same change."""
    moves = list(before.moves(after))
    return [
        *mismatches(before, after),
        *(moved(moves) if moves else [Paragraph("Both placements have the same experts on the same ranks.")]),
    ]


def mismatches(before: Placement, after: Placement) -> Iterator[Block]:
    """Remarks if the placements are for different models or numbers of ranks."""
    hashes = before.model_hash, after.model_hash
    if all(hashes) and hashes[0] != hashes[1]:
        yield Paragraph(f"The placements are for different models: {hashes[0][:12]} and {hashes[1][:12]}.")
    if before.num_ranks != after.num_ranks:
        yield Paragraph(f"The first placement is for {before.num_ranks} ranks, the second for {after.num_ranks}.")


def moved(moves: Sequence[Move]) -> Iterator[Block]:
    """A table of moves, layer by layer."""

    def change(move: Move) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return move.before, move.after

    rows = [
        [layer, listed(before) or "none", listed(after) or "none", listed([move.expert for move in same])]
        for layer, of_layer in groupby(moves, key=lambda move: move.layer)
        for (before, after), same in groupby(sorted(of_layer, key=change), key=change)
    ]
    layers, changed = len({move.layer for move in moves}), sum({*move.before} != {*move.after} for move in moves)
    others = f" {len(moves) - changed:,} have another number of copies on the same ranks." if changed < len(moves) else ""
    yield Paragraph(f"{changed:,} experts in {layers} layers change rank.{others}")
    yield Table(["layer", "from rank", "to rank", "experts"], rows, caption="All ranks of an expert, before and after.")


def listed(numbers: Sequence[int]) -> str:
    """Sorted numbers with ranges: `0-3 7 9-10`."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and found[-1][-1] == number - 1:
            found[-1].append(number)
        else:
            found.append([number])
    return " ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in found)
