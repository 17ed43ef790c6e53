"""Two sides in interleaved rounds, with worker processes that need no model: order, pairs, and every way in which one can fail."""

from collections.abc import Callable
from pathlib import Path

import pytest

from moeprof.instrument.load import LoadMeter, Usage
from moeprof.records.errors import MoeprofError, UsageError
from moeprof.records.run.machine_load import MachineLoad
from moeprof.studies import ab_test
from moeprof.studies.ab_test import Side, measure_interleaved, sides_of
from moeprof.studies.progress import Silent

WORKER = """
import json, os, pathlib, sys, time
here = pathlib.Path(__file__).resolve().parents[2]
first = json.loads(sys.stdin.readline())
speed = float(first["settings"][0])
log = (here.parent / "log").open("a", buffering=1)
log.write(f"{os.getpid()} starts\\n")
handshake = {"code": str(here), "recipe": "plain", "workload": "lm", "settings": {"speed": speed}, "machine": {"cpu": "x"},
             "packages": {}, "texts": {}, "weights": "w", "warmup": 1, "rounds": 2, "turns": CASES}
print(json.dumps(handshake), flush=True)
for index, line in enumerate(sys.stdin):
    case = json.loads(line)
    log.write(f"{speed:g} {case['phase']}/{case['variant']}\\n")
    FAULT
    print(json.dumps({"throughput": 1000 * speed + index, "seconds": SECONDS}), flush=True)
"""
CASES = [["score", "static"], ["decode", "static"]]

Checkout = Callable[..., Path]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """Writes a package whose worker answers at once, at 1,000 times the speed that its first setting names."""

    def write(
        name: str = "code",
        fault: str = "pass",
        cases: list[list[str]] = CASES,
        seconds: float = 5.0,
        module: str = "ab_worker",
    ) -> Path:
        folder = tmp_path / name / "moeprof" / "studies"
        folder.mkdir(parents=True)
        for package in (folder, folder.parent):
            (package / "__init__.py").touch()
        (folder / f"{module}.py").write_text(
            WORKER.replace("FAULT", fault).replace("CASES", repr(cases)).replace("SECONDS", str(seconds))
        )
        return tmp_path / name

    return write


def sides(a: Path, b: Path) -> tuple[Side, Side]:
    return (Side("A", "plain", ["1"], ["static"], a), Side("B", "plain", ["0.5"], ["static"], b))


def log_of(tmp_path: Path) -> list[str]:
    return (tmp_path / "log").read_text().splitlines()


def gone(tmp_path: Path) -> bool:
    """Whether every process that started has ended."""
    pids = [int(line.split()[0]) for line in log_of(tmp_path) if line.endswith(" starts")]
    return bool(pids) and not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_every_pair_of_processes_interleaves_the_rounds_of_each_case_after_its_warm_up(
    checkout: Checkout, tmp_path: Path
) -> None:
    """The second pair begins with the other side."""
    code = checkout()
    readings = iter([Usage(10 * number, 5 * number, 0, number) for number in range(4)])
    meter = LoadMeter(lambda: next(readings), before=lambda: 0.5)
    before, after = measure_interleaved(sides(code, code), 3, Silent(), meter)
    assert before.machine_load == after.machine_load == MachineLoad(before=0.5, others=0.4, stolen=0)
    assert next(readings, None) is None, "the load is read before the first pair and after every one"
    log = log_of(tmp_path)
    assert len({line for line in log if line.endswith(" starts")}) == 6
    rounds = [line for line in log if not line.endswith(" starts")]
    assert rounds[:12] == [
        f"{speed} {phase}/static" for phase in ("score", "decode") for speed in ("1", "0.5", "1", "0.5", "0.5", "1")
    ]
    assert rounds[12:16] == ["0.5 score/static", "1 score/static", "0.5 score/static", "1 score/static"]
    assert gone(tmp_path)
    assert (before.turns, before.command, before.settings) == (after.turns, "turns", {"speed": 1})
    assert after.settings == {"speed": 0.5}
    assert [number.samples for number in before.numbers] == [((1001, 1002),) * 3, ((1004, 1005),) * 3]
    assert [number.samples for number in after.numbers] == [((501, 502),) * 3, ((504, 505),) * 3]
    assert [number.value for number in before.numbers] == [1001.5, 1004.5]
    assert before.numbers[0].address == ("lm", "score", "", "static", "", "", "", "", "", "throughput")


def test_short_rounds_are_repeated_until_each_side_has_run_for_two_seconds(checkout: Checkout) -> None:
    for seconds, rounds in ((0.3, 7), (0.001, 200), (1.5, 2)):
        code = checkout(f"code-{seconds}", seconds=seconds)
        for measurement in measure_interleaved(sides(code, code), 1, Silent()):
            assert [len(number.samples[0]) for number in measurement.numbers] == [rounds, rounds]


def test_two_measurements_have_two_names(checkout: Checkout) -> None:
    code = checkout()
    assert (
        measure_interleaved(sides(code, code), 1, Silent())[0].turns
        != measure_interleaved(sides(code, code), 1, Silent())[0].turns
    )


def test_only_cases_that_both_sides_have_are_run(checkout: Checkout) -> None:
    both = sides(checkout("new"), checkout("old", cases=[["score", "static"]]))
    phases = [[number.address[1] for number in side.numbers] for side in measure_interleaved(both, 1, Silent())]
    assert phases == [["score"], ["score"]]


@pytest.mark.parametrize(
    ("fault", "what"),
    [
        ("raise SystemExit('out of luck')", "side B: its process ended: out of luck"),
        ("os.kill(os.getpid(), 9)", "side B: its process ended: exit status -9"),
        ("print(json.dumps({'what': 'no memory', 'remedy': 'less', 'usage': False}), flush=True)", "side B: no memory"),
        ("time.sleep(60)", "side B: no answer for 1 s"),
    ],
)
def test_a_process_that_fails_ends_the_measurement_and_leaves_none_behind(
    checkout: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, what: str
) -> None:
    monkeypatch.setattr(ab_test, "ANSWER_TIMEOUT_S", 1.0)
    with pytest.raises(MoeprofError) as caught:
        measure_interleaved(sides(checkout("good"), checkout("bad", fault)), 3, Silent())
    assert (caught.value.what, caught.value.exit_code) == (what, 1)
    assert gone(tmp_path)


def test_a_usage_error_of_a_side_stays_a_usage_error(checkout: Checkout) -> None:
    fault = "print(json.dumps({'what': 'recipe: no', 'remedy': 'another', 'usage': True}), flush=True)"
    with pytest.raises(UsageError) as caught:
        measure_interleaved(sides(checkout("good"), checkout("bad", fault)), 1, Silent())
    assert (caught.value.what, caught.value.remedy) == ("side B: recipe: no", "another")


def test_code_that_is_not_the_checkouts_own_is_refused(checkout: Checkout, tmp_path: Path) -> None:
    code, empty = checkout(), tmp_path / "empty"
    link = tmp_path / "moved"
    link.mkdir()
    (link / "moeprof").symlink_to(code / "moeprof")  # resolves to the first one's code
    with pytest.raises(UsageError) as caught:
        measure_interleaved(sides(code, link), 1, Silent())
    assert caught.value.what == f"checkout {link}: the code of {code} ran instead"
    with pytest.raises(UsageError) as caught:
        sides_of("lm-tiny", [], [], [], ["static"], empty)
    assert caught.value.what.startswith(f"checkout {empty}: it contains no moeprof")


def test_an_older_checkout_is_run_through_the_worker_module_that_it_has(checkout: Checkout, tmp_path: Path) -> None:
    old, new = checkout("old", module="worker"), checkout("new")
    before, after = measure_interleaved(sides(old, new), 1, Silent())
    assert [number.value for number in before.numbers] == [1001.5, 1004.5]
    assert [number.value for number in after.numbers] == [501.5, 504.5]
    assert sides_of("lm-tiny", [], [], [], ["static"], old)[0].checkout == old
    assert gone(tmp_path)


def test_sides_are_named_after_what_is_theirs_alone(tmp_path: Path) -> None:
    a, b = sides_of("lm-tiny", ["measure.rounds=5"], ["load.batch_size=8"], ["load.batch_size=16"], ["static"], None)
    assert (a.name, b.name) == ("A (load.batch_size=8)", "B (load.batch_size=16)")
    assert (a.settings, b.settings) == (["measure.rounds=5", "load.batch_size=8"], ["measure.rounds=5", "load.batch_size=16"])
    assert [side.name for side in sides_of("lm-tiny", [], [], [], ["static"], None)] == ["A", "B"]
