"""Whether all ranks were started with the same command, recipe, text and weights, checked before anything is allocated."""

from collections.abc import Iterator, Mapping
from typing import Any

from moeprof.parallel.collectives import all_gather_json
from moeprof.parallel.group import Group
from moeprof.records.errors import UsageError
from moeprof.records.run.run import RunRecord


def agree(group: Group, record: RunRecord) -> list[str]:
    """Remarks on libraries that differ; UsageError, on every rank alike, if recipe, command, text or weights differ."""
    whole = record.model_dump(mode="json", by_alias=True)
    asked = {name: whole[name] for name in ("command", "variants", "recipe", "text_hashes", "weights_hash")}
    software = {"python": record.environment.python} | record.environment.packages
    documents = all_gather_json(group, [dict(leaves(asked)), software])
    for rank, (theirs, _) in enumerate(documents):
        if what := first_difference(documents[0][0], theirs, rank):
            raise UsageError(what, "Give all ranks the same command, recipe, text and checkpoint.")
    differences = (first_difference(documents[0][1], theirs, rank) for rank, (_, theirs) in enumerate(documents))
    return [f"libraries differ: {what}" for what in differences if what]


def leaves(document: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value under its dotted name; the keys of the recipe stand without `recipe.`."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield from leaves(value, f"{path}.{key}".removeprefix(".").removeprefix("recipe."))
    else:
        yield path, document


def first_difference(ours: Mapping[str, Any], theirs: Mapping[str, Any], rank: int) -> str:
    """The first value in which rank `rank` differs from rank 0, in words; empty if none does."""
    differing = [name for name in [*ours, *theirs] if ours.get(name) != theirs.get(name)]
    if not differing:
        return ""
    name = differing[0]
    return f"rank {rank} has {name} {theirs.get(name, 'none')}, rank 0 has {ours.get(name, 'none')}"
