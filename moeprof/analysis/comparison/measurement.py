"""One side of a comparison: the numbers of one recipe, their raw samples, and what decides whether they are comparable."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import moeprof
from moeprof.analysis.run_metrics import RunMetrics, missing_wholes
from moeprof.records.errors import UsageError
from moeprof.records.metrics.metric import Kind
from moeprof.records.metrics.registry import KEYS
from moeprof.records.metrics.row import RecordedRow, RowKey
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.run.machine_load import MachineLoad, busiest
from moeprof.records.run.run import Environment, Run, RunRecord
from moeprof.records.system.files import reason, refuse_newer, write_text
from moeprof.records.system.inputs import InputFile, reported
from moeprof.records.traces.routing_trace import RoutingTrace

SCHEMA = 1
MACHINE = ("cpu", "cores", "threads", "gpu", "driver")
"""Properties of a machine that timings depend on; differing packages are reported as remarks."""

GATED = "throughput"
"""The metric whose raw samples are kept and tested."""

PARTS = ("domain", "point", "rank", "layer", "region")
"""Keys that are empty for a gated throughput: parts of a workload, phase and variant are reported but not gated."""

SWEPT = ("policies", "slots", "budgets", "balancers", "devices", "every", "replica_numbers")
"""Swept options of a replay, which the address of a number contains."""

Finite = Annotated[float, Field(allow_inf_nan=False)]

Rate = Annotated[float, Field(ge=1e-12, le=1e18)]
"""A throughput; the ratio of any two is a number far from the limits of a float."""

ProcessSamples = Annotated[tuple[Rate, ...], Field(min_length=1)]
"""The rates of the rounds of one process."""


REMEDY = "Pass a run directory, a folder of runs, or a baseline file (`moeprof baseline list`)."


class Number(BaseModel):
    """One row of `metrics.csv`, with its raw samples per process if it is gated."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: RowKey
    unit: str
    kind: Kind
    value: Finite
    samples: tuple[ProcessSamples, ...] = ()


class Measurement(BaseModel):
    """The numbers of one recipe under one command, from one run or from several processes of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: str
    command: str
    settings: dict[str, Any]
    """The resolved recipe without paths, or the request of a replay; hashes identify texts and weights."""
    machine: dict[str, str]
    packages: dict[str, str] = {}
    texts: dict[str, str] = {}
    weights: str = ""
    routing: dict[str, str] = {}
    """Hashes of the routing decisions, by phase and variant."""
    valid: bool = True
    reasons: tuple[str, ...] = ()
    turns: str = ""
    """The name of an A/B test whose sides ran interleaved rounds; differences between its sides are what it tests."""
    machine_load: MachineLoad | None = None
    """What else the machine did, of several runs in the busiest one."""
    numbers: tuple[Number, ...]

    @model_validator(mode="after")
    def addresses_are_distinct(self) -> "Measurement":
        if len(self.by_address) != len(self.numbers):
            raise ValueError("a metric is recorded twice at one address")
        return self

    @property
    def subject(self) -> tuple[str, str, bool]:
        """What is paired with the same one of another side: recipe, command, and whether it is a replay of placements."""
        return self.recipe, self.command, self.command == "replay" and "nodes" in self.settings

    @property
    def by_address(self) -> dict[RowKey, Number]:
        """Every number by its key."""
        return {number.address: number for number in self.numbers}


class Baseline(BaseModel):
    """A baseline file: measurements, in a form small enough to review."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA
    moeprof_version: str = moeprof.__version__
    subjects: list[Measurement]


def measurement_of(runs: Sequence[Run]) -> Measurement:
    """Runs of one recipe, one per process: timed numbers are medians over processes, exact ones must be equal in all."""
    first = runs[0].record
    numbers = [numbers_of(run) for run in runs]
    for run, others in zip(runs[1:], numbers[1:], strict=True):
        if what := difference(run, runs[0]):
            raise UsageError(f"run {run.path}: different {what} than {runs[0].path}", "Compare runs of one recipe at a time.")
        if differing := [a for a, n in numbers[0].items() if n.kind == "exact" and a in others and others[a].value != n.value]:
            raise UsageError(
                f"run {run.path}: {differing[0].metric} differs from {runs[0].path}", "Compare these two runs first."
            )
    return Measurement(
        recipe=first.name,
        command=first.command,
        settings=run_settings(first),
        machine=machine_of(first.environment),
        packages=first.environment.packages,
        texts=first.text_hashes,
        weights=first.weights_hash,
        routing=routing_of(runs),
        valid=all(run.record.valid for run in runs),
        reasons=tuple(reason for run in runs for reason in run.record.reasons),
        machine_load=busiest(run.record.machine_load for run in runs),
        numbers=tuple(
            merged([each[address] for each in numbers if address in each])
            for address in dict.fromkeys(address for each in numbers for address in each)
        ),
    )


def difference(run: Run, first: Run) -> str:
    """What makes two runs different measurements; empty if they are processes of one."""
    ours, theirs = run.record, first.record
    same = {
        "recipe": run_settings(ours) == run_settings(theirs),
        "text": ours.text_hashes == theirs.text_hashes,
        "checkpoint": ours.weights_hash == theirs.weights_hash,
        "machine": machine_of(ours.environment) == machine_of(theirs.environment),
    }
    return next((name for name, alike in same.items() if not alike), "")


def machine_of(environment: Environment) -> dict[str, str]:
    """The properties that timings depend on."""
    return {name: str(getattr(environment, name)) for name in MACHINE}


def routing_of(runs: Sequence[Run]) -> dict[str, str]:
    """Hashes by phase and variant over all ranks, and over all processes if these disagree."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        replayed = None if run.record.recipe else run.record.trace
        for name, digest in (replayed.decisions if replayed else decisions_of(run.traces)).items():
            found.setdefault(name, {})[digest] = None
    return {name: joint(list(digests)) for name, digests in found.items()}


def decisions_of(traces: Iterable[RoutingTrace]) -> dict[str, str]:
    """Hashes by phase and variant, each over all ranks."""
    ranks: dict[str, list[str]] = {}
    for trace in traces:
        ranks.setdefault(f"{trace.header.phase}/{trace.header.variant}", []).append(decisions_hash(trace))
    return {name: joint(digests) for name, digests in ranks.items()}


def joint(digests: Sequence[str]) -> str:
    """One hash for several; a single one stays as it is."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def numbers_of(run: Run) -> dict[RowKey, Number]:
    """The rows of one run; UsageError if one of them breaks a rule of the format."""
    try:
        raw = gated_samples(run)
        return {row.key: number_of(row, raw.get(row.key, ())) for row in RunMetrics.of(run).by_key.values()}
    except (ValidationError, ValueError, TypeError) as error:
        raise UsageError(f"run {run.path}: {reason(error)}", "Repeat the run.") from error


def gated_samples(run: Run) -> dict[RowKey, tuple[float, ...]]:
    """The rounds behind every gated number, in order."""
    found: dict[RowKey, list[float]] = {}
    samples = run.samples
    gated = samples[samples["metric"] == GATED].sort_values("round", kind="stable")
    for *cells, value in gated[[*KEYS, "value"]].itertuples(index=False, name=None):
        found.setdefault(RowKey(*map(str, cells)), []).append(float(value))
    wholes = {whole: found[part] for whole, part in missing_wholes(found).items()}
    return {key: tuple(values) for key, values in (found | wholes).items() if is_gated(key)}


def number_of(row: RecordedRow, rounds: tuple[float, ...]) -> Number:
    """A row as a baseline keeps it; ValidationError for an unknown kind."""
    document = {"address": row.key, "unit": row.unit, "kind": row.kind, "value": row.value}
    return Number.model_validate(document | {"samples": (rounds,) if rounds else ()})


def is_gated(key: RowKey) -> bool:
    """Whether the rounds behind a number are tested."""
    return key.metric == GATED and not any(getattr(key, name) for name in PARTS)


def merged(numbers: Sequence[Number]) -> Number:
    """One number from several processes: the median value, and all samples."""
    if len(numbers) == 1 or numbers[0].kind != "timed":
        return numbers[0]
    samples = tuple(rounds for number in numbers for rounds in number.samples)
    return numbers[0].model_copy(update={"value": median(number.value for number in numbers), "samples": samples})


def run_settings(record: RunRecord) -> dict[str, Any]:
    """The settings that numbers depend on, besides texts, weights and routing."""
    if record.recipe:
        return settings_of(record.recipe)
    asked = record.request.model_dump(mode="json", exclude={*SWEPT, "trace"})
    return asked | record.trace.model_dump(mode="json", include={"num_experts", "layers", "expert_bytes", "weight_bytes"})


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """A recipe without file names and descriptions."""
    document: dict[str, Any] = recipe.model_dump(mode="json", by_alias=True)
    document.pop("description", None)
    document["model"].pop("checkpoint")
    for section, keys in recipe.unset_later_keys.items():
        for key in keys:
            document[section].pop(key)
    document["data"]["files"] = sorted(document["data"]["files"])
    if document["routing"]["source"].startswith("trace:"):
        document["routing"]["source"] = "trace"  # the hash of the decisions identifies the trace
    document.pop("train", None)
    document["measure"].pop("rounds")  # more rounds do not make it a different measurement
    document["parallel"].pop("timeout_s")
    return document


def decisions_hash(trace: RoutingTrace) -> str:
    """SHA-256 of which token chose which experts, without drops and weights."""
    digest = hashlib.sha256()
    codes, names = trace.codes("layer")
    layers = trace.names("layer")  # the dictionary of the column may contain more names in a different order
    digest.update(json.dumps(layers).encode())
    order = np.array([layers.index(name) if name in layers else -1 for name in names], np.int32)
    for column in (order[codes], *(trace.column(name) for name in ("step", "sequence", "position", "slot", "expert"))):
        digest.update(column.astype("<i4").tobytes())
    return digest.hexdigest()


def read_measurements(path: Path) -> list[Measurement]:
    """Measurements in a baseline file, a run, or a folder of runs; runs of one recipe (or trace) and command are processes of one."""
    if path.exists() and not path.is_dir():
        return read_baseline(path).subjects
    if (path / "run.json").is_file():
        return [measurement_of([Run.open(path)])]
    runs = [Run.open(folder.parent) for folder in sorted(path.rglob("run.json"))] if path.is_dir() else []
    if not runs:
        raise UsageError(f"{path}: not a run directory, folder of runs, or baseline file", REMEDY)
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:  # replays of caches, of placements and of offloading systems are different subjects
        groups.setdefault((run.record.name, run.record.command, run.record.origin), []).append(run)
    return [measurement_of(group) for group in groups.values()]


def read_baseline(path: Path) -> Baseline:
    """A baseline file; UsageError if it is damaged, not a valid baseline, or from a newer moeprof."""
    with reported(f"baseline {path}", "Create it again with `moeprof baseline save`; do not edit it.", made_again=True):
        document = InputFile(path).json()
        refuse_newer(f"baseline {path}", document, SCHEMA)
        json.dumps(document, ensure_ascii=False).encode()  # half a surrogate pair can be escaped but not printed
        return Baseline.model_validate(document)


def write_baseline(path: Path, subjects: Iterable[Measurement]) -> None:
    """Writes one line per number, so that a diff shows what changed."""
    write_text(path, baseline_text(Baseline(subjects=list(subjects))))


def baseline_text(baseline: Baseline) -> str:
    """A baseline as JSON with one line per number."""
    document = baseline.model_dump(mode="json")
    heads, bodies = [], []
    for subject in document["subjects"]:
        if subject["machine_load"] is None:
            del subject["machine_load"]
        bodies.append(
            ",\n    ".join(json.dumps({k: v for k, v in number.items() if v != []}) for number in subject.pop("numbers"))
        )
        heads.append(json.dumps(subject, indent=1).removesuffix("\n}"))
    parts = [f'{head},\n "numbers": [\n    {body}\n ]\n}}' for head, body in zip(heads, bodies, strict=True)]
    top = {key: value for key, value in document.items() if key != "subjects"}
    return f'{json.dumps(top)[:-1]}, "subjects": [\n' + ",\n".join(parts) + "\n]}\n"
