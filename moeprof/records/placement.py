"""Placements: which rank holds which experts of each layer, as a JSON file that can be read, edited and diffed."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from moeprof.records.errors import UsageError
from moeprof.records.limits import MAX_RANKS, ExpertCount
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.weights import weights_hash
from moeprof.records.system.files import write_text
from moeprof.records.system.inputs import InputFile, reported

SCHEMA = 1
REMEDY = "Save a new placement, or fix the file: each layer must have every expert on at least one rank."


class PlacementFile(BaseModel):
    """The format of the file: for each layer, a list of experts for every rank."""

    model_config = ConfigDict(extra="forbid", strict=True)

    schema_version: int
    model_hash: str
    num_experts: ExpertCount
    layers: dict[str, Annotated[list[list[int]], Field(max_length=MAX_RANKS)]]


class Move(NamedTuple):
    """An expert that is on different ranks in two placements."""

    layer: str
    expert: int
    before: tuple[int, ...]
    after: tuple[int, ...]


@dataclass(frozen=True)
class Placement:
    """The physical experts of every layer, rank by rank.

    `layers[layer][rank]` lists the experts on that rank. Physical expert ids are numbered through the ranks in order, so there
    are P = sum of the lengths >= E of them; an expert on several ranks, or twice on one, is replicated. Example, E = 2:
    `((0, 1), (0,))` has the physical experts 0, 1 (rank 0) and 2 (rank 1), of which 0 and 2 are copies of expert 0.
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
                raise ValueError(f"layer {layer}: there is no expert {foreign[0]} among {self.num_experts}")

    def check_copies(self, layer: str) -> None:
        """ValueError if a rank holds an expert twice, which a server may do with its memory, but a model is not run with."""
        for number, rank in enumerate(self.layers[layer]):
            if twice := sorted(expert for expert, times in Counter(rank).items() if times > 1):
                raise ValueError(f"layer {layer}: expert {twice[0]} is listed twice on rank {number}")

    @classmethod
    def contiguous(cls, layers: list[str], num_experts: int, num_ranks: int) -> "Placement":
        """The placement of fairseq: E/N consecutive experts on every rank."""
        if num_experts % num_ranks:
            raise ValueError(f"{num_experts} experts cannot be divided evenly over {num_ranks} ranks")
        share = num_experts // num_ranks
        ranks = tuple(tuple(range(rank * share, (rank + 1) * share)) for rank in range(num_ranks))
        return cls(num_experts, dict.fromkeys(layers, ranks))

    @property
    def num_ranks(self) -> int:
        """The largest number of ranks of any layer; 0 without layers."""
        return max(map(len, self.layers.values()), default=0)

    def logical(self, layer: str) -> tuple[int, ...]:
        """The expert behind each physical id of `layer`, (P,)."""
        return tuple(expert for rank in self.layers[layer] for expert in rank)

    def homes(self, layer: str) -> dict[int, tuple[int, ...]]:
        """The ranks that hold each expert of `layer`, ascending."""
        found: dict[int, tuple[int, ...]] = dict.fromkeys(range(self.num_experts), ())
        for number, rank in enumerate(self.layers[layer]):
            for expert in rank:
                found[expert] += (number,)
        return found

    def moves(self, other: "Placement") -> Iterator[Move]:
        """The differences to `other` by layer and expert; a layer that one of them lacks has no ranks there."""
        for layer in dict.fromkeys([*self.layers, *other.layers]):
            before, after = (one.homes(layer) if layer in one.layers else {} for one in (self, other))
            for expert in range(max(self.num_experts, other.num_experts)):
                old, new = before.get(expert, ()), after.get(expert, ())
                if old != new:
                    yield Move(layer, expert, old, new)

    def check(self, layers: Sequence[str], num_experts: int, num_ranks: int, model_hash: str = "") -> None:
        """ValueError if a model cannot run with this placement; a hash that one side lacks is not compared."""
        if self.model_hash and model_hash and self.model_hash != model_hash:
            raise ValueError(f"made for another model: weights {self.model_hash[:12]}, not {model_hash[:12]}")
        if self.num_experts != num_experts:
            raise ValueError(f"made for {self.num_experts} experts, but the model has {num_experts}")
        for layer in layers:
            if layer not in self.layers:
                raise ValueError(f"layer {layer} is missing")
            self.check_copies(layer)
            if len(self.layers[layer]) != num_ranks:
                raise ValueError(f"layer {layer}: made for {len(self.layers[layer])} ranks, not {num_ranks}")
            sizes = [len(rank) for rank in self.layers[layer]]
            if len(set(sizes)) > 1:
                raise ValueError(
                    f"layer {layer}: its ranks hold between {min(sizes)} and {max(sizes)} experts, which must be equal"
                )

    def fits(self, path: Path, recipe: Recipe) -> None:
        """UsageError if the placement, read from `path`, does not match the recipe or its weights."""
        model, ranks = recipe.model, recipe.parallel.ranks
        known = self.model_hash and (
            not model.checkpoint or Path(model.checkpoint).exists()
        )  # a missing one is reported elsewhere
        try:
            self.check(recipe.model.moe_layers_of("all"), model.experts, ranks, weights_hash(recipe) if known else "")
        except ValueError as error:
            raise UsageError(
                f"placement {path}: {error}", f"Give a placement that was made for recipe {recipe.name} on {ranks} ranks."
            ) from error

    def write(self, path: Path) -> None:
        """Writes the JSON file with one line per rank."""
        head = {"schema_version": SCHEMA, "model_hash": self.model_hash, "num_experts": self.num_experts}
        layers = ",\n".join(
            f"  {json.dumps(layer)}: [\n" + ",\n".join(f"   {[int(expert) for expert in rank]}" for rank in ranks) + "\n  ]"
            for layer, ranks in self.layers.items()
        )
        write_text(path, json.dumps(head, indent=1)[:-2] + ',\n "layers": {\n' + layers + "\n }\n}\n")

    @classmethod
    def read(cls, path: Path) -> "Placement":
        """UsageError if the file is missing or not a valid placement."""
        with reported(f"placement {path}", REMEDY):
            return cls.parsed(InputFile(path).json())

    @classmethod
    def parsed(cls, content: Any) -> "Placement":
        """The placement in a JSON document; ValueError if it is none."""
        document = PlacementFile.model_validate(content)
        if document.schema_version > SCHEMA:
            raise ValueError(f"schema {document.schema_version} is newer than {SCHEMA}")
        layers = {layer: tuple(tuple(rank) for rank in ranks) for layer, ranks in document.layers.items()}
        return cls(document.num_experts, layers, document.model_hash)
