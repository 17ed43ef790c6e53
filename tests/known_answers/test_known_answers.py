"""Deceptive inputs get their right answers, and those that have none are refused in two lines."""

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moeprof.records.errors import UsageError
from moeprof.records.run.run import Run
from moeprof.records.system.inputs import reported
from moeprof.records.traces.counting import counted
from moeprof.records.traces.formats import read_recording
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.layer_map import LayerMap
from moeprof.studies.replay.loads import read_loads
from moeprof.studies.replay.placements import PlacementOptions, replay_placements
from moeprof.studies.replay.source import read_source, selected
from moeprof.studies.replay.study import CacheOptions, replay_caches
from tests.records.run.runs import value_of

HERE = Path(__file__).parent
QUESTIONS: list[dict[str, Any]] = json.loads((HERE / "answers.json").read_text())
Given = Mapping[str, Any]


def options_of(given: Given) -> ImportOptions:
    """What is given beside the file, as options of an import."""
    layers = LayerMap.parse(given["layers"]) if "layers" in given else None
    return ImportOptions(layers=layers, top_k=given.get("top_k"), experts=given.get("experts"))


def counts(path: Path, given: Given, out: Path, domain: str = "") -> dict[str, list[int]]:
    """Choices that were computed, by layer and expert, over all domains or in one."""
    file = read_recording([path], loads_only=True, options=options_of(given))
    if file.counts is None:
        chosen = selected(file, None, path, "all", None, options_of(given))
        with reported(f"trace {path}", "Give a trace with choices."):
            found = counted([trace for traces in chosen.traces.values() for trace in traces])
    else:
        found = file.counts
    total_LE = np.sum([found.totals(name) for name in found.counts if domain in ("", name)], axis=0)
    return {str(layer): row.tolist() for layer, row in zip(found.layers, total_LE, strict=True)}


def tokens(path: Path, given: Given, out: Path) -> int:
    """Tokens of all phases."""
    traces = read_recording([path], options=options_of(given)).traces
    return sum(
        len({tuple(row.values()) for row in trace.table.select(["step", "sequence", "position"]).to_pylist()})
        for trace in traces
    )


def replayed(path: Path, given: Given, out: Path) -> Run:
    """The replay of one policy and size."""
    chosen = CacheOptions(policies=[given.get("policy", "lru")], slots=[given.get("slots", 1)])
    return replay_caches(read_source(path), chosen, out)


def misses(path: Path, given: Given, out: Path) -> dict[str, int]:
    """Misses by layer, over all phases."""
    run, point = replayed(path, given, out), f"policy={given['policy']};slots={given['slots']}"
    found = {
        layer: value_of(run, "misses", phase="all", variant="imported", layer=layer, point=point)
        for layer in run.record.trace.layers
    }
    return {layer: int(value) for layer, value in found.items() if value is not None}


def accesses(path: Path, given: Given, out: Path) -> int:
    """Accesses of all layers and phases."""
    return int(value_of(replayed(path, given, out), "expert_accesses", phase="all", variant="imported") or 0)


def busiest_share(path: Path, given: Given, out: Path) -> float:
    """The share of the busiest device under contiguous placement."""
    options = PlacementOptions(balancers=["contiguous"], devices=[given["devices"]])
    run = replay_placements(read_loads(path), options, out)
    rows = run.metrics.query("metric == 'avg_max_load' and layer == ''")
    return float(rows["value"].iloc[0])


ASKED: dict[str, Callable[[Path, Given, Path], Any]] = {
    "counts": counts,
    "counts of a": lambda path, given, out: counts(path, given, out, "a"),
    "tokens": tokens,
    "misses": misses,
    "accesses": accesses,
    "busiest share": busiest_share,
}


def title(question: dict[str, Any]) -> str:
    """The name of a test."""
    given = ",".join(f"{name}={value}" for name, value in question.get("given", {}).items())
    return f"{question['file']}-{question['ask']}-{given}"


@pytest.mark.parametrize("question", [one for one in QUESTIONS if "answer" in one], ids=title)
def test_a_question_gets_its_right_answer(question: dict[str, Any], tmp_path: Path) -> None:
    found = ASKED[question["ask"]](HERE / "traces" / question["file"], question.get("given", {}), tmp_path / "run")
    expected = question["answer"]
    assert found == (pytest.approx(expected) if isinstance(expected, float) else expected), question["why"]


@pytest.mark.parametrize("question", [one for one in QUESTIONS if "refused" in one], ids=title)
def test_what_has_no_answer_is_refused_in_two_lines(question: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        ASKED[question["ask"]](HERE / "traces" / question["file"], question.get("given", {}), tmp_path / "run")
    first, *rest = str(caught.value).splitlines()
    assert question["refused"] in first, question["why"]
    assert len(rest) == 1


def test_every_file_is_asked_about_and_there_are_a_hundred() -> None:
    files = {path.name for path in (HERE / "traces").iterdir()}
    assert files == {question["file"] for question in QUESTIONS}
    assert len(files) >= 100


NEXT = 10**9
"""The time of a use that never comes."""


def simulated(sequence: list[int], policy: str, slots: int) -> int:
    """Misses of one cache, by looking at every resident expert at each miss."""
    resident: dict[int, dict[str, int]] = {}
    uses: dict[int, int] = {}
    count = 0
    for now, expert in enumerate(sequence):
        uses[expert] = uses.get(expert, 0) + 1
        if expert not in resident:
            count += 1
            if len(resident) == slots:
                del resident[victim(resident, uses, sequence[now:], policy)]
            resident[expert] = {"loaded": now}
        resident[expert]["used"] = now
    return count


def victim(resident: dict[int, dict[str, int]], uses: dict[int, int], future: list[int], policy: str) -> int:
    """The expert that a policy evicts."""
    keys: dict[str, Callable[[int], Any]] = {
        "fifo": lambda one: resident[one]["loaded"],
        "lifo": lambda one: -resident[one]["loaded"],
        "lru": lambda one: resident[one]["used"],
        "mru": lambda one: -resident[one]["used"],
        "lfu": lambda one: (uses[one], resident[one]["used"]),
        "min": lambda one: -(future.index(one) if one in future else NEXT),
    }
    return min(resident, key=keys[policy])


OTHER_ORDER = ("dropped.route.csv", "passes_of_two_requests.route.csv")
"""Files in which not every row is an access, or prompts are not first."""


@pytest.mark.parametrize(
    "question", [one for one in QUESTIONS if one["ask"] == "misses" and one["file"] not in OTHER_ORDER], ids=title
)
def test_the_answers_about_caches_are_those_of_a_plain_simulation(question: dict[str, Any]) -> None:
    lines = (HERE / "traces" / question["file"]).read_text().splitlines()
    rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    for layer, misses in question["answer"].items():
        used = [(row["phase"], int(row["expert"])) for row in rows if row["layer"] == layer]
        prompt = list(dict.fromkeys(expert for phase, expert in used if phase == "0"))
        sequence = prompt + [expert for phase, expert in used if phase == "1"]
        assert simulated(sequence, question["given"]["policy"], question["given"]["slots"]) == misses
