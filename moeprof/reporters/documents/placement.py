"""What a placement file says, and what differs between two."""

from collections.abc import Iterator, Sequence
from itertools import groupby

from moeprof.records.placement import Move, Placement
from moeprof.reporters.documents.document import Block, Document, Paragraph, Table


def shown(placement: Placement) -> Document:
    """A line per layer and rank, with what the rank holds beyond contiguous placement."""
    rows = [
        [layer, str(number), str(len(held)), strangers(placement, number, held), listed(held)]
        for layer, ranks in placement.layers.items()
        for number, held in enumerate(ranks)
    ]
    copies = sum(len(placement.logical(layer)) for layer in placement.layers) - placement.num_experts * len(placement.layers)
    whose = f" for the model {placement.model_hash[:12]}" if placement.model_hash else ""
    sentence = (
        f"{placement.num_experts} experts in each of {len(placement.layers)} layers on {placement.num_ranks} ranks{whose}, "
        f"{copies} copies among them."
    )
    caption = "Moved: experts that contiguous placement, equally many neighbours on each rank, has elsewhere."
    columns = ["layer", "rank", "slots", "moved", "experts"]
    return [Paragraph(sentence), Table(columns, rows, caption=caption)]


def strangers(placement: Placement, rank: int, held: Sequence[int]) -> str:
    """How many of a rank's experts contiguous placement has elsewhere."""
    return str(sum(expert * placement.num_ranks // placement.num_experts != rank for expert in held))


def told_apart(before: Placement, after: Placement) -> Document:
    """The experts that change their ranks, those with the same change in one line."""
    moves = list(before.moves(after))
    return [*foreign(before, after), *(moved(moves) if moves else [Paragraph("The same experts on the same ranks.")])]


def foreign(before: Placement, after: Placement) -> Iterator[Block]:
    """What makes two placements hard to compare."""
    hashes = before.model_hash, after.model_hash
    if all(hashes) and hashes[0] != hashes[1]:
        yield Paragraph(f"They are for different models: {hashes[0][:12]} and {hashes[1][:12]}.")
    for what, one, other in (
        ("experts", before.num_experts, after.num_experts),
        ("ranks", before.num_ranks, after.num_ranks),
    ):
        if one != other:
            yield Paragraph(f"The first one is for {one} {what}, the second one for {other}.")


def moved(moves: Sequence[Move]) -> Iterator[Block]:
    """Layer by layer."""

    def change(move: Move) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return move.before, move.after

    rows = [
        [layer, listed(before) or "none", listed(after) or "none", listed([move.expert for move in same])]
        for layer, of_layer in groupby(moves, key=lambda move: move.layer)
        for (before, after), same in groupby(sorted(of_layer, key=change), key=change)
    ]
    layers = len({move.layer for move in moves})
    yield Paragraph(f"{len(moves):,} experts of {layers} layers change their ranks.")
    yield Table(["layer", "from rank", "to rank", "experts"], rows, caption="All ranks that hold an expert, before and after.")


def listed(numbers: Sequence[int]) -> str:
    """`0-3 7 9-10`: rising, neighbours drawn together."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and found[-1][-1] == number - 1:
            found[-1].append(number)
        else:
            found.append([number])
    return " ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in found)
