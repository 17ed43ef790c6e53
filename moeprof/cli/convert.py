"""`moeprof convert`: writes a trace, or a placement, in the format of another tool."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprof.cli.trace_options import import_options, trace_options
from moeprof.records.limits import MAX_RANKS

if TYPE_CHECKING:
    from moeprof.studies.convert import Conversion
    from moeprof.studies.convert_placement import ConvertedPlacement


@click.command(name="convert")
@click.argument("paths", nargs=-1, required=True, metavar="IN...", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--to", "target", metavar="FORMAT", help="Format of OUT.  [default: as the ending of its name says]")
@trace_options
@click.option("--variant", metavar="NAME", help="Variant of a run directory.  [default: static]")
@click.option("--strip-tokens", is_flag=True, help="Leave out token ids, from which the text could be read.")
@click.option(
    "--ranks", type=click.IntRange(1, MAX_RANKS), metavar="N", help="Ranks of a placement, if its file does not say how many."
)
@click.option("--force", is_flag=True, help="Replace OUT.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
def command(
    paths: tuple[Path, ...],
    out: Path,
    target: str | None,
    variant: str | None,
    *,
    strip_tokens: bool,
    ranks: int | None,
    force: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Write the trace, or the placement, in IN as OUT, in another format.

    IN is a run directory, a file of any format, or all files of one recording, such as those of its ranks. What OUT cannot hold
    is reported.
    """
    options = import_options(given, strip_tokens=strip_tokens)
    from moeprof.records.placement_formats.placement_format import PlacementFacts
    from moeprof.studies.convert import convert
    from moeprof.studies.convert_placement import convert_placement, is_of_placements

    if target and is_of_placements(paths, target):
        placed = convert_placement(paths[0], out, target, PlacementFacts(ranks, options.layers), force=force)
        click.echo(json.dumps(placement_document(placed), indent=1) if as_json else "\n".join(placement_lines(placed)))
        return
    done = convert(paths, out, target=target, variant=variant, options=options, force=force)
    click.echo(json.dumps(document(done), indent=1) if as_json else "\n".join(lines(done)))


def lines(done: "Conversion") -> list[str]:
    """What was written, what was left out, and what was lost."""
    return [f"{done.out}: {contents(done)}, as {done.target.name}", *done.remarks, *loss(done.target.name, done.lost)]


def placement_lines(done: "ConvertedPlacement") -> list[str]:
    """What was written, and what was lost."""
    placement = done.placement
    held = f"{placement.num_experts} experts in {len(placement.layers)} layers on {placement.num_ranks} ranks"
    return [f"{done.out}: {held}, as {done.target}", *loss(done.target, done.lost)]


def loss(target: str, lost: Sequence[str]) -> list[str]:
    """The line on what a format cannot hold; none if nothing was lost."""
    return [f"Lost, because {target} has no field for it: {', '.join(lost)}"] if lost else []


def placement_document(done: "ConvertedPlacement") -> dict[str, Any]:
    """The result as JSON."""
    held = {"experts": done.placement.num_experts, "ranks": done.placement.num_ranks, "layers": list(done.placement.layers)}
    return {"out": str(done.out), "format": done.target, **held, "lost": done.lost}


def contents(done: "Conversion") -> str:
    """What the file holds, in words."""
    counts = done.file.counts
    if counts is not None:
        total = sum(int(one.sum()) for one in counts.counts.values())
        return f"{total:,} choices of {counts.num_experts} experts in {len(counts.layers)} layers"
    rows = {trace.header.phase: 0 for trace in done.file.traces}
    for trace in done.file.traces:
        rows[trace.header.phase] += len(trace)
    listed = " and ".join(f"{count:,} of {phase}" for phase, count in rows.items())
    headers = [trace.header for trace in done.file.traces]
    layers = {layer for header in headers for layer in header.layers}
    return f"choices ({listed}) of {headers[0].num_experts} experts in {len(layers)} layers"


def document(done: "Conversion") -> dict[str, Any]:
    """The result as JSON."""
    counts = done.file.counts
    held: dict[str, Any] = {"traces": [{**trace.header.model_dump(), "rows": len(trace)} for trace in done.file.traces]}
    if counts is not None:
        held = {"layers": counts.layers, "experts": counts.num_experts, "top_k": counts.top_k, "domains": list(counts.counts)}
    return {"out": str(done.out), "format": done.target.name, **held, "lost": done.lost, "remarks": done.remarks}
