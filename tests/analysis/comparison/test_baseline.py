"""A baseline file: small, reviewed line by line, read back byte for byte, and refused where it is anything else."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import moeprof
from moeprof.analysis.comparison.measurement import (
    Measurement,
    Number,
    measurement_of,
    read_baseline,
    read_measurements,
    settings_of,
    write_baseline,
)
from moeprof.records.metrics.registry import METRICS
from moeprof.records.metrics.row import row_key
from moeprof.records.recipe.files import load_recipe
from moeprof.records.system.inputs import MAX_BYTES
from tests.records.run.runs import fault, run_of


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A baseline of one run."""
    path = tmp_path / "main.json"
    write_baseline(path, [measurement_of([run_of(tmp_path / "run")])])
    return path


def edited(path: Path, change: Any) -> Path:
    """The file after something was done to its document, or to its first subject and number."""
    document = json.loads(path.read_text())
    change(document, document["subjects"][0], document["subjects"][0]["numbers"][0])
    path.write_text(json.dumps(document))
    return path


def synthetic(numbers: int, gated: int, rounds: int) -> Measurement:
    """As many numbers as a large run has, of which some are throughputs with their rounds."""
    generator = np.random.default_rng(0)
    exact = [metric for metric in METRICS.values() if metric.kind == "routed"]
    rows = []
    for index in range(numbers - gated):
        metric = exact[index % len(exact)]
        key = row_key(metric.name, workload="lm", phase="decode", variant="dynamic", layer=str(index))
        rows.append(Number(address=key, unit=metric.unit, kind="routed", value=float(generator.random() * 100)))
    for index in range(gated):
        key = row_key("throughput", workload="lm", phase="decode", variant=f"variant-{index}")
        samples = (tuple((1e5 * generator.random(rounds)).tolist()),)
        rows.append(Number(address=key, unit="tokens/s", kind="timed", value=samples[0][0], samples=samples))
    return Measurement(
        recipe="lm-tiny",
        command="optimize",
        settings=settings_of(load_recipe("lm-tiny")),
        machine={"cpu": "Example 9000"},
        numbers=tuple(rows),
    )


# What it holds


def test_it_reads_back_as_it_was_and_writes_the_same_bytes_again(tmp_path: Path, saved: Path) -> None:
    subjects = read_measurements(saved)
    assert subjects == [measurement_of([run_of(tmp_path / "again")])]
    write_baseline(tmp_path / "copy.json", subjects)
    assert (tmp_path / "copy.json").read_bytes() == saved.read_bytes()
    assert [path.name for path in tmp_path.glob("*.partial")] == []


def test_several_subjects_and_none_read_back_too(tmp_path: Path) -> None:
    subjects = [measurement_of([run_of(tmp_path / name, recipe=name)]) for name in ("mt-tiny", "lm-tiny")]
    for some in (subjects, []):
        write_baseline(tmp_path / "main.json", some)
        assert read_measurements(tmp_path / "main.json") == some


def test_every_number_has_a_line_of_its_own(saved: Path) -> None:
    lines = saved.read_text().splitlines()
    numbers = [json.loads(line.strip().rstrip(",")) for line in lines if '"address"' in line]
    assert [number["address"][-1] for number in numbers] == ["throughput", "memory_static", "dropped_fraction", "step_latency"]
    assert [number.get("samples") for number in numbers] == [[[900, 1000, 1100]], None, None, None]
    assert lines[0] == f'{{"schema_version": 1, "moeprof_version": "{moeprof.__version__}", "subjects": ['


def test_a_thousand_numbers_with_ten_rounds_of_the_gated_ones_take_less_than_200_kb(tmp_path: Path) -> None:
    subject = synthetic(1000, 30, 10)
    write_baseline(tmp_path / "main.json", [subject])
    assert (tmp_path / "main.json").stat().st_size < 200_000
    assert read_measurements(tmp_path / "main.json") == [subject]


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "../../x", 'a"b\\c\n}', "Größe", "\u202e\x1b[31m", "}\n"])
def test_a_hostile_name_is_only_a_name(tmp_path: Path, name: str) -> None:
    number = Number(address=("lm", "score", name, *[""] * 6, "throughput"), unit="tokens/s", kind="timed", value=1)
    subject = Measurement(
        recipe=name,
        command=name,
        settings={name: name},
        machine={name: name},
        texts={name: name},
        reasons=(name,),
        numbers=(number,),
    )
    folder = tmp_path / "baselines"
    folder.mkdir()
    write_baseline(folder / "main.json", [subject])
    assert read_measurements(folder / "main.json") == [subject]
    assert folder.joinpath("main.json").read_bytes().isascii()
    assert [path.name for path in tmp_path.rglob("*")] == ["baselines", "main.json"]


# What is refused


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"7", b"\xff\xfe", b"{}", b"PAR1", b"[" * 100_000])
def test_a_damaged_file_is_refused_in_two_lines(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "main.json").write_bytes(content)
    assert fault(lambda: read_measurements(tmp_path / "main.json")).startswith(f"baseline {tmp_path}/main.json: ")


def test_every_beginning_of_a_file_is_refused(saved: Path) -> None:
    whole = saved.read_bytes()
    for length in range(0, len(whole.rstrip()), 97):
        saved.write_bytes(whole[:length])
        assert fault(lambda: read_baseline(saved)).startswith(f"baseline {saved}: ")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda _, subject, number: subject["numbers"].append(number), "subjects.0: a metric is recorded twice"),
        (lambda _, subject, number: number.update(value=float("nan")), "subjects.0.numbers.0.value: must be a finite"),
        (lambda _, subject, number: number.update(value=10**400), "subjects.0.numbers.0.value: "),
        (lambda _, subject, number: number.update(value=None), "subjects.0.numbers.0.value: "),
        (
            lambda _, subject, number: number.update(samples=[[5, -1]]),
            "subjects.0.numbers.0.samples.0.1: must be greater",
        ),
        (lambda _, subject, number: number.update(samples=[[0]]), "subjects.0.numbers.0.samples.0.0: must be greater"),
        (lambda _, subject, number: number.update(samples=[[float("inf")]]), "subjects.0.numbers.0.samples.0.0: "),
        (
            lambda _, subject, number: number.update(samples=[[5], []]),
            "subjects.0.numbers.0.samples.1: tuple should have at least 1",
        ),
        (lambda _, subject, number: number.update(samples=[[1e-320]]), "subjects.0.numbers.0.samples.0.0: must be greater"),
        (lambda _, subject, number: number.update(samples=[[1e308]]), "subjects.0.numbers.0.samples.0.0: must be less"),
        (lambda _, subject, number: number.update(samples=[5, 6]), "subjects.0.numbers.0.samples.0: "),
        (lambda _, subject, number: number["address"].pop(), "subjects.0.numbers.0.address."),
        (lambda _, subject, number: number["address"].append(""), "subjects.0.numbers.0.address"),
        (lambda _, subject, number: number.update(address="abcdefghij"), "subjects.0.numbers.0.address: "),
        (lambda _, subject, number: number.update(address=None), "subjects.0.numbers.0.address: "),
        (lambda _, subject, number: number.update(address=7), "subjects.0.numbers.0.address: "),
        (lambda _, subject, number: number.update(kind="guessed"), "subjects.0.numbers.0.kind: "),
        (lambda _, subject, number: number.update(note="lowered"), "subjects.0.numbers.0.note: extra inputs"),
        (lambda _, subject, number: subject.update(threshold=9), "subjects.0.threshold: extra inputs"),
        (lambda document, *_: document.update(exec="rm"), "exec: extra inputs"),
        (lambda _, subject, number: subject.pop("settings"), "subjects.0.settings: field required"),
        (lambda _, subject, number: subject.update(machine={"cores": 2}), "subjects.0.machine.cores: "),
        (lambda _, subject, number: subject.update(recipe="\ud800"), ""),
        (lambda document, *_: document.update(subjects={}), "subjects: "),
    ],
)
def test_a_file_that_was_edited_into_something_else_is_refused_with_the_place(saved: Path, change: Any, what: str) -> None:
    assert fault(lambda: read_measurements(edited(saved, change))).startswith(f"baseline {saved}: {what}")


def test_a_newer_schema_asks_for_a_newer_moeprof(saved: Path) -> None:
    edited(saved, lambda document, *_: document.update(schema_version=2, moeprof_version="9.0", news=1))
    assert fault(lambda: read_baseline(saved)) == (
        f"baseline {saved}: written by moeprof 9.0 with schema 2; moeprof {moeprof.__version__} reads up to schema 1"
    )


def test_a_file_that_is_too_large_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MAX_BYTES, str(saved.stat().st_size))
    assert len(read_measurements(saved)) == 1
    monkeypatch.setenv(MAX_BYTES, "1KiB")
    assert fault(lambda: read_measurements(saved)) == f"baseline {saved}: more than 1 KiB"


def test_a_file_with_a_byte_order_mark_and_windows_line_ends_is_the_same(saved: Path) -> None:
    expected = read_baseline(saved)
    saved.write_bytes(b"\xef\xbb\xbf" + saved.read_bytes().replace(b"\n", b"\r\n"))
    assert read_baseline(saved) == expected


def test_a_value_edited_by_hand_that_is_still_a_number_is_read(saved: Path) -> None:
    """A review sees its line change; nothing else protects it."""
    edited(saved, lambda _, subject, number: number.update(value=1))
    assert read_measurements(saved)[0].numbers[0].value == 1
