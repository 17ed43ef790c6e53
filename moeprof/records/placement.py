"""Which rank holds which expert of which layer: a plain JSON file that people can read, edit and diff."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from moeprof.records.errors import UsageError
from moeprof.records.files import reason, replacing
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.weights import weights_hash

SCHEMA = 1


class PlacementFile(BaseModel):
    """The file's form: per layer one list of experts for every rank."""

    model_config = ConfigDict(extra="forbid", strict=True)

    schema_version: int
    model_hash: str
    num_experts: int
    layers: dict[str, list[list[int]]]


class Move(NamedTuple):
    """An expert that two placements have on different ranks."""

    layer: str
    expert: int
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class Placement:
    """Physical slots of every layer, rank by rank.

    `layers[layer][rank]` lists the experts in that rank's slots. Physical expert ids count through the ranks in order, so
    there are P = sum of the lengths >= E of them; an expert that stands on several ranks is replicated.
    """

    num_experts: int
    layers: dict[str, tuple[tuple[int, ...], ...]]
    model_hash: str = ""

    def __post_init__(self) -> None:
        for layer, ranks in self.layers.items():
            placed = {expert for rank in ranks for expert in rank}
            missing = sorted(set(range(self.num_experts)) - placed)
            foreign = sorted(placed - set(range(self.num_experts)))
            if missing:
                raise ValueError(f"layer {layer}: expert {missing[0]} is on no rank")
            if foreign:
                raise ValueError(f"layer {layer}: expert {foreign[0]} is not one of the {self.num_experts}")
            for number, rank in enumerate(ranks):
                if twice := sorted(expert for expert, times in Counter(rank).items() if times > 1):
                    raise ValueError(f"layer {layer}: expert {twice[0]} stands twice on rank {number}")

    @classmethod
    def contiguous(cls, layers: list[str], num_experts: int, num_ranks: int) -> "Placement":
        """E/N consecutive experts on every rank, as fairseq places them."""
        if num_experts % num_ranks:
            raise ValueError(f"{num_experts} experts do not divide over {num_ranks} ranks")
        share = num_experts // num_ranks
        ranks = tuple(tuple(range(rank * share, (rank + 1) * share)) for rank in range(num_ranks))
        return cls(num_experts, dict.fromkeys(layers, ranks))

    @property
    def num_ranks(self) -> int:
        """Of the layer that has most; 0 without layers."""
        return max(map(len, self.layers.values()), default=0)

    def logical(self, layer: str) -> tuple[int, ...]:
        """The expert behind each physical id of `layer`, (P,)."""
        return tuple(expert for rank in self.layers[layer] for expert in rank)

    def homes(self, layer: str) -> dict[int, tuple[int, ...]]:
        """The ranks of every expert of `layer`, ascending."""
        found: dict[int, tuple[int, ...]] = dict.fromkeys(range(self.num_experts), ())
        for number, rank in enumerate(self.layers[layer]):
            for expert in rank:
                found[expert] += (number,)
        return found

    def moves(self, other: "Placement") -> Iterator[Move]:
        """What differs in `other`, layer by layer and expert by expert; a layer that one of them lacks has no ranks there."""
        for layer in dict.fromkeys([*self.layers, *other.layers]):
            before, after = (one.homes(layer) if layer in one.layers else {} for one in (self, other))
            for expert in range(max(self.num_experts, other.num_experts)):
                old, new = before.get(expert, ()), after.get(expert, ())
                if old != new:
                    yield Move(layer, expert, old, new)

    def check(self, layers: Sequence[str], num_experts: int, num_ranks: int, model_hash: str = "") -> None:
        """ValueError where this model cannot run with it on so many ranks; a hash that one side lacks is not compared."""
        if self.model_hash and model_hash and self.model_hash != model_hash:
            raise ValueError(f"it is for another model: weights {self.model_hash[:12]}, not {model_hash[:12]}")
        if self.num_experts != num_experts:
            raise ValueError(f"it is for {self.num_experts} experts, the model has {num_experts}")
        for layer in layers:
            if layer not in self.layers:
                raise ValueError(f"it leaves out layer {layer}")
            if len(self.layers[layer]) != num_ranks:
                raise ValueError(f"layer {layer}: it is for {len(self.layers[layer])} ranks, not {num_ranks}")
            sizes = [len(rank) for rank in self.layers[layer]]
            if len(set(sizes)) > 1:
                raise ValueError(f"layer {layer}: its ranks hold {min(sizes)} to {max(sizes)} experts, not equally many")

    def fits(self, path: Path, recipe: Recipe) -> None:
        """UsageError where the placement, which came from `path`, is not for this recipe and its weights."""
        model, ranks = recipe.model, recipe.parallel.ranks
        known = self.model_hash and (not model.checkpoint or Path(model.checkpoint).is_file())  # a lost one is told elsewhere
        try:
            self.check(recipe.model.moe_layers_of("all"), model.experts, ranks, weights_hash(recipe) if known else "")
        except ValueError as error:
            raise UsageError(
                f"placement {path}: {error}", f"Give one that was made for recipe {recipe.name} on {ranks} ranks."
            ) from error

    def write(self, path: Path) -> None:
        """Writes the JSON file, one rank per line."""
        head = {"schema_version": SCHEMA, "model_hash": self.model_hash, "num_experts": self.num_experts}
        layers = ",\n".join(
            f"  {json.dumps(layer)}: [\n" + ",\n".join(f"   {[int(expert) for expert in rank]}" for rank in ranks) + "\n  ]"
            for layer, ranks in self.layers.items()
        )
        with replacing(path) as partial:
            partial.write_text(json.dumps(head, indent=1)[:-2] + ',\n "layers": {\n' + layers + "\n }\n}\n")

    @classmethod
    def read(cls, path: Path) -> "Placement":
        """UsageError where the file is missing, is no placement, or leaves out an expert."""
        try:
            document = PlacementFile.model_validate_json(path.read_bytes())
            if document.schema_version > SCHEMA:
                raise ValueError(f"schema {document.schema_version} is newer than {SCHEMA}")
            layers = {layer: tuple(tuple(rank) for rank in ranks) for layer, ranks in document.layers.items()}
            return cls(document.num_experts, layers, document.model_hash)
        except (OSError, ValidationError, ValueError) as error:
            raise UsageError(
                f"placement {path}: {reason(error)}",
                "Save a new placement, or mend the file: every expert of every layer belongs to at least one rank, and to none twice.",
            ) from error
