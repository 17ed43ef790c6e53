"""Commands on real ranks: one report of all of them, and an end for everybody when one of them fails."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from threading import Thread

import pytest
from conftest import MICRO

from moeprof.records.run.run import Run
from tests.records.run.runs import value_of

FAULTS = Path(__file__).resolve().parents[1] / "parallel" / "faults"
TIMEOUT_S = 10
PATIENCE_S = 300
"""For all of them at once on a slow machine."""

SETS = ("load.phases=['score']", "load.batches=1", "data.domains=['prose']", "measure.warmup=0")
SMALL = [word for key in SETS for word in ("--set", key)]


@dataclass
class Started:
    """A command in processes of its own."""

    folder: Path
    process: subprocess.Popen[str]
    ending: "Future[Ended]" = field(init=False)

    def __post_init__(self) -> None:
        self.ending = Future()
        Thread(target=self.watch, daemon=True).start()

    @property
    def out(self) -> Path:
        return self.folder / "run"

    @property
    def broke_at(self) -> float:
        """When a rank was broken, or a signal was sent, s."""
        return float((self.folder / "told").read_text())

    def signal(self, number: int) -> None:
        """Sends a signal to the launcher and all ranks, as a terminal does, and notes when."""
        (self.folder / "told").write_text(str(time.time()))
        for process in processes_of(self.folder):
            os.kill(process, number)

    def watch(self) -> None:
        """Waits for the end, and looks around at once."""
        stdout, stderr = self.process.communicate()
        ended_at = time.time()
        left = processes_of(self.folder)
        broke_at = self.broke_at if (self.folder / "told").exists() else 0.0
        self.ending.set_result(Ended(self.process.returncode, stdout, stderr, broke_at, ended_at, self.out, left))


@dataclass(frozen=True)
class Ended:
    """What came of it."""

    code: int
    stdout: str
    stderr: str
    broke_at: float
    """When a rank was broken, or a signal was sent, s."""
    ended_at: float
    """When the process of the launcher was gone, s."""
    out: Path
    left: list[int]
    """Processes that are still there."""

    @property
    def run(self) -> Run:
        return Run.open(self.out)

    @property
    def since_s(self) -> float:
        """From there to the end of the run, in whole seconds; its reports are still written behind it, from one process."""
        return datetime.fromisoformat(self.run.record.finished).timestamp() - int(self.broke_at)

    @property
    def lasted_s(self) -> float:
        """From there to the end of the launcher's process."""
        return self.ended_at - self.broke_at

    def failed_with(self, what: str) -> bool:
        """Two lines, exit code 1, and a partial run that says the same."""
        told = self.stderr.splitlines()[-2:]
        assert not self.run.record.valid
        assert self.run.record.finished
        assert (self.out / "report.md").is_file()
        assert {path.name for path in (self.out / "logs").iterdir()} == {"rank0.log", "rank1.log"}
        return (self.code, told[0], self.run.record.reasons) == (1, f"Error: {what}", [f"failed: {what}"]) and bool(told[1])


def processes_of(folder: Path) -> list[int]:
    """Those whose environment names the folder."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if str(folder).encode() in environment.read_bytes():
                found.append(int(environment.parent.name))
        except OSError:
            continue
    return found


def start(
    folder: Path, *arguments: str, launcher: tuple[str, ...] = (), broken: str = "", ignored: int | None = None
) -> Started:
    """`moeprof characterize` on the micro recipe, one rank broken as asked, with a signal ignored as by `nohup`."""
    folder.mkdir()
    (folder / "lm-micro.toml").write_text(MICRO["lm"])
    environment = dict(os.environ) | {"BREAK": broken, "BREAK_TOLD": str(folder / "told")}
    environment["PYTHONPATH"] = os.pathsep.join([str(FAULTS), os.environ.get("PYTHONPATH", "")])
    python = [] if launcher else [sys.executable]
    command = [*launcher, *python, "-m", "moeprof", "characterize", str(folder / "lm-micro.toml"), *SMALL]
    process = subprocess.Popen(
        [*command, "--out", str(folder / "run"), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: handle(ignored),
    )
    return Started(folder, process)


def handle(ignored: int | None) -> None:
    """Signals as in a terminal, although the tests may run in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if ignored is not None:
        signal.signal(ignored, signal.SIG_IGN)


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Ended]]:
    """Runs of two ranks, all of them at the same time."""
    folder = tmp_path_factory.mktemp("ranks")
    two, patience = ("--ranks", "2"), ("--set", f"parallel.timeout_s={TIMEOUT_S}")
    torchrun = (
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "--no-python",
        "bash",
        "-c",
    )
    started = {
        "hangs": start(folder / "hangs", *two, *patience, broken="hang:gate:1"),
        "frozen": start(folder / "frozen", *two, *patience, broken="stop:gate:1"),
        "interrupted": start(folder / "interrupted", *two, broken="hang:experts:1"),
        "terminated": start(folder / "terminated", *two, broken="hang:experts:1"),
        "killed": start(folder / "killed", *two, broken="kill:a2a_dispatch:1"),
        "raises": start(folder / "raises", *two, broken="raise:combine:1"),
        "whole": start(folder / "whole", *two, "--json", ignored=signal.SIGHUP),
        "apart": start(folder / "apart", launcher=(*torchrun, APART, "bash")),
    }
    try:
        await_file(started["whole"].out / "run.json")
        started["whole"].signal(signal.SIGHUP)
        await_file(started["interrupted"].folder / "told")
        started["interrupted"].signal(signal.SIGINT)
        await_file(started["terminated"].folder / "told")
        started["terminated"].signal(signal.SIGTERM)
        yield lambda name: started[name].ending.result(PATIENCE_S)
    finally:
        for one in started.values():
            one.process.kill()


APART = f'exec {sys.executable} "$@" --set load.batch_size=$((RANK + 2))'
"""What bash runs on every rank under torchrun; what follows are its arguments."""


def await_file(path: Path) -> None:
    """Waits until the ranks are at work."""
    deadline = time.monotonic() + PATIENCE_S
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.1)


def test_two_ranks_make_one_run_of_which_the_first_reports_although_an_ignored_signal_comes(
    ends: Callable[[str], Ended],
) -> None:
    ended = ends("whole")
    assert (ended.code, ended.stderr, ended.left) == (0, "", [])
    assert json.loads(ended.stdout)["run"]["valid"]
    assert ended.run.record.valid
    assert ended.run.record.recipe.parallel.ranks == 2
    assert [trace.header.rank for trace in ended.run.traces] == [0, 1]
    assert sorted(set(ended.run.metrics["rank"])) == ["", "0", "1"]
    assert {path.name for path in (ended.out / "logs").iterdir()} == {"rank0.log", "rank1.log"}


def test_throughput_counts_the_tokens_of_all_ranks_over_the_slowest(ends: Callable[[str], Ended]) -> None:
    run = ends("whole").run
    latency = value_of(run, "step_latency", phase="score", variant="static")
    throughput = value_of(run, "throughput", phase="score", variant="static")
    assert latency is not None
    assert throughput is not None
    assert throughput * latency / 1e9 == pytest.approx(2 * 2 * 12)  # ranks x sequences x tokens


def test_each_rank_holds_half_of_the_experts(ends: Callable[[str], Ended]) -> None:
    run = ends("whole").run
    whole = 4 * (2 * 16 * 24 + 24 + 16) * 4  # experts x parameters x bytes
    model = value_of(run, "num_parameters", variant="static")
    assert model is not None
    assert value_of(run, "memory_static", variant="static") == model * 4 - whole / 2


def test_regions_add_up_on_every_rank_and_over_them(ends: Callable[[str], Ended]) -> None:
    table = ends("whole").run.metrics
    shares = table[(table["metric"] == "region_share") & (table["variant"] == "static") & (table["domain"] == "prose")]
    assert set(shares["rank"]) == {"", "0", "1"}
    assert shares.groupby("rank")["value"].sum().tolist() == pytest.approx([1, 1, 1])
    assert {"a2a_dispatch", "a2a_combine"} <= set(shares["region"])


def test_a_rank_that_raises_ends_the_run_with_its_error(ends: Callable[[str], Ended]) -> None:
    ended = ends("raises")
    assert ended.failed_with("rank 1: ValueError: broken on purpose")
    assert ended.since_s < 20
    assert ended.left == []
    assert "broken on purpose" in (ended.out / "logs" / "rank1.log").read_text()


def test_a_rank_that_is_killed_ends_the_run(ends: Callable[[str], Ended]) -> None:
    ended = ends("killed")
    assert ended.failed_with("rank 1 was killed by SIGKILL")
    assert ended.since_s < 20
    assert ended.left == []


def test_a_rank_that_hangs_ends_the_run_when_the_others_have_waited_long_enough(ends: Callable[[str], Ended]) -> None:
    ended = ends("hangs")
    (reason,) = ended.run.record.reasons
    assert reason.startswith("failed: rank 0: another rank did not answer in time (")
    assert ended.failed_with(reason.removeprefix("failed: "))
    assert TIMEOUT_S <= ended.since_s < TIMEOUT_S + 20
    assert ended.left == []


def test_a_rank_that_is_stopped_ends_the_run_when_the_timeout_has_passed(ends: Callable[[str], Ended]) -> None:
    ended = ends("frozen")
    (reason,) = ended.run.record.reasons
    assert re.match(r"failed: rank (1 was stopped by a signal for 10 s|0: another rank did not answer in time \()", reason)
    assert ended.failed_with(reason.removeprefix("failed: "))
    assert ended.since_s >= TIMEOUT_S
    assert ended.left == []


@pytest.mark.slow
def test_a_run_of_which_a_rank_is_stopped_ends_within_5_s_after_the_timeout(tmp_path: Path) -> None:
    """No other run takes the cores meanwhile; a stopped rank is not given the time that others have to end."""
    patience = ("--set", f"parallel.timeout_s={TIMEOUT_S}")
    ended = start(tmp_path / "alone", "--ranks", "2", *patience, broken="stop:gate:1").ending.result(PATIENCE_S)
    assert ended.code == 1
    assert TIMEOUT_S <= ended.lasted_s < TIMEOUT_S + 5
    assert ended.left == []


@pytest.mark.parametrize(
    ("name", "reason", "code"), [("interrupted", "interrupted", 130), ("terminated", "ended by SIGTERM", 143)]
)
def test_a_signal_ends_all_ranks_and_keeps_the_partial_run(
    ends: Callable[[str], Ended], name: str, reason: str, code: int
) -> None:
    ended = ends(name)
    assert ended.code == code
    assert ended.stderr.splitlines()[-1] == f"moeprof: {reason}"
    assert ended.run.record.reasons == [reason]
    assert not ended.run.record.valid
    assert ended.left == []


def test_ranks_under_torchrun_that_disagree_stop_before_anything_is_written(ends: Callable[[str], Ended]) -> None:
    ended = ends("apart")
    assert ended.code
    assert "Error: rank 1 has load.batch_size 3, rank 0 has 2\nGive all ranks the same command" in ended.stderr
    assert not ended.out.exists()
    assert ended.left == []


@pytest.mark.parametrize("ranks", ["3", "8"])
def test_more_ranks_than_experts_or_a_number_that_does_not_divide_them_is_refused_at_once(
    moeprof: Callable[..., tuple[int, str, str]], micro: Callable[[str], Path], tmp_path: Path, ranks: str
) -> None:
    code, _, stderr = moeprof("characterize", micro("lm"), "--ranks", ranks, "--out", tmp_path / "run")
    assert code == 2
    assert f"model.experts 4 is not a multiple of parallel.ranks {ranks}" in stderr
    assert not (tmp_path / "run").exists()


def test_recipes_of_different_ranks_are_not_run_together(
    moeprof: Callable[..., tuple[int, str, str]], micro: Callable[[str], Path], tmp_path: Path
) -> None:
    mt = micro("mt")
    mt.write_text(mt.read_text() + "[parallel]\nranks = 2\n")
    code, _, stderr = moeprof("characterize", micro("lm"), mt, "--out", tmp_path / "run")
    assert code == 2
    assert stderr.startswith("Error: recipe lm-micro has 1 ranks, recipe mt-micro has 2\nSet the same number with --ranks")


def test_a_folder_that_is_taken_is_refused_before_any_rank_starts(
    moeprof: Callable[..., tuple[int, str, str]], micro: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "note.txt").write_text("mine")
    code, _, stderr = moeprof("characterize", micro("lm"), "--ranks", 2, "--out", tmp_path)
    assert code == 2
    assert stderr.startswith(f"Error: output folder {tmp_path}: it exists already\n")
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".txt"] == ["note.txt"]
