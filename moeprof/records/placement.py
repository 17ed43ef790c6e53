"""Which rank holds which expert of which layer: a plain JSON file that people can read, edit and diff."""

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from moeprof.records.errors import UsageError
from moeprof.records.files import reason

SCHEMA = 1


class PlacementFile(BaseModel):
    """The file's form: per layer one list of experts for every rank."""

    model_config = ConfigDict(extra="forbid", strict=True)

    schema_version: int
    model_hash: str
    num_experts: int
    layers: dict[str, list[list[int]]]


@dataclass(frozen=True)
class Placement:
    """Physical slots of every layer, rank by rank.

    `layers[layer][rank]` lists the experts in that rank's slots. Physical expert ids count through the ranks in order, so
    there are P = sum of the lengths >= E of them; an expert that stands more than once is replicated.
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

    @classmethod
    def contiguous(cls, layers: list[str], num_experts: int, num_ranks: int) -> "Placement":
        """E/N consecutive experts on every rank, as fairseq places them."""
        if num_experts % num_ranks:
            raise ValueError(f"{num_experts} experts do not divide over {num_ranks} ranks")
        share = num_experts // num_ranks
        ranks = tuple(tuple(range(rank * share, (rank + 1) * share)) for rank in range(num_ranks))
        return cls(num_experts, dict.fromkeys(layers, ranks))

    def logical(self, layer: str) -> tuple[int, ...]:
        """The expert behind each physical id of `layer`, (P,)."""
        return tuple(expert for rank in self.layers[layer] for expert in rank)

    def write(self, path: Path) -> None:
        """Writes the JSON file, one rank per line."""
        head = {"schema_version": SCHEMA, "model_hash": self.model_hash, "num_experts": self.num_experts}
        layers = ",\n".join(
            f"  {json.dumps(layer)}: [\n" + ",\n".join(f"   {[int(expert) for expert in rank]}" for rank in ranks) + "\n  ]"
            for layer, ranks in self.layers.items()
        )
        path.write_text(json.dumps(head, indent=1)[:-2] + ',\n "layers": {\n' + layers + "\n }\n}\n")

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
                "Save a new placement, or mend the file: every expert of every layer belongs to at least one rank.",
            ) from error
