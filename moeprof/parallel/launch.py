"""Starts the ranks of one machine: each is a `moeprof` process that joins the group. Watches and ends them."""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from moeprof.parallel.failure import Failure, RankError, cause, end_now, read_failure
from moeprof.parallel.scratch import scratch_folder
from moeprof.records.errors import MoeprofError
from moeprof.records.system.files import replacing
from moeprof.records.system.parsing import parsed_json
from moeprof.records.system.resources import num_cores
from moeprof.records.system.signals import delayed

FOLDERS = "MOEPROF_RUN_FOLDERS"
"""Environment variable of launched ranks: the output folders as JSON, one per recipe."""

REPORTS = "MOEPROF_RANK_FOLDER"
"""Environment variable of a launched rank: the folder for its log and the report of its failure."""

LAUNCHER = "MOEPROF_LAUNCHER"
"""Environment variable of a launched rank: the process that started it."""

PR_SET_PDEATHSIG = 1
HOST = "127.0.0.1"
LOG = "output.log"
POLL_S = 0.1
GRACE_S = 30.0
"""Time in which a rank that is asked to end can keep what it recorded; then it is killed."""

Processes = Sequence["subprocess.Popen[bytes]"]
"""The processes of all ranks, in order."""


def launched_folders() -> list[Path]:
    """The output folders that the launcher chose; empty if `moeprof` did not launch this process."""
    return [Path(folder) for folder in parsed_json(os.environ.get(FOLDERS, "[]"))]


def end_with_launcher() -> None:
    """On Linux, makes the kernel end this process when its launcher dies; other systems let it finish its work."""
    if launched_folders() and sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(os.environ[LAUNCHER]):  # it died earlier
            end_now(1)


def folder_for_failures() -> Path:
    """The folder for the failure report of this launched rank."""
    return Path(os.environ[REPORTS])


def launch(arguments: Sequence[str], num_ranks: int, folders: Sequence[Path], timeout_s: float) -> None:
    """Runs `moeprof` with `arguments` on `num_ranks` ranks, and keeps their logs in the `logs/` folder of each run.

    RankError if a rank fails or is stopped for `timeout_s`, KeyboardInterrupt if a signal ends this process; all ranks have ended
    then. If rank 0 has completed all runs, neither is raised.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store = TCPStore(HOST, 0, is_master=True, wait_for_workers=False)  # where ranks find each other, on any free port
    ranks: list[subprocess.Popen[bytes]] = []
    try:
        with ExitStack() as cleanup:
            with delayed():  # every process that starts is also ended
                scratch = cleanup.enter_context(scratch_folder())
                cleanup.callback(keep_logs, scratch, num_ranks, folders)
                cleanup.callback(end, ranks)
                ranks.extend(started(arguments, one) for one in environments(num_ranks, store.port, folders, scratch))
            stopped = wait(ranks, timeout_s)
            failed = end(ranks)
            if ranks[0].returncode:
                raise stopped or cause(failures_in(scratch, num_ranks), failed)
    except KeyboardInterrupt:
        if not ranks or ranks[0].returncode:
            raise


def environments(num_ranks: int, port: int, folders: Sequence[Path], scratch: Path) -> list[Mapping[str, str]]:
    """The environment of each rank: torchrun's variables, its share of the cores, the loopback interface and its folders."""
    wanted = {"OMP_NUM_THREADS": str(max(num_cores() // num_ranks, 1)), "TORCH_CPP_LOG_LEVEL": "ERROR"}
    wanted |= {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform.startswith("linux") else {}
    shared = wanted | os.environ | {"MASTER_ADDR": HOST, "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    shared |= {name: str(num_ranks) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")}
    shared |= {FOLDERS: json.dumps([str(folder.absolute()) for folder in folders]), LAUNCHER: str(os.getpid())}
    own = [{"RANK": str(rank), "LOCAL_RANK": str(rank), REPORTS: str(scratch / str(rank))} for rank in range(num_ranks)]
    return [shared | one for one in own]


def started(arguments: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    """Starts a rank; all but the first write their output to a log."""
    folder = Path(environment[REPORTS])
    folder.mkdir()
    command = [sys.executable, "-m", "moeprof", *arguments]
    if environment["RANK"] == "0":
        return subprocess.Popen(command, env=environment)  # noqa: S603  the arguments are our own
    with (folder / LOG).open("wb") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)  # noqa: S603


def wait(ranks: Processes, timeout_s: float) -> RankError | None:
    """Returns when all ranks have ended, or one has failed; the error if one is stopped, as by SIGSTOP, for `timeout_s`."""
    stopped_at: dict[int, float] = {}
    while None in (codes := [rank.poll() for rank in ranks]) and not any(codes):
        now = time.monotonic()
        stopped_at = {rank: stopped_at.get(rank, now) for rank, process in enumerate(ranks) if is_stopped(process)}
        for rank, since in stopped_at.items():
            if now - since >= timeout_s:
                return RankError(
                    f"rank {rank} was stopped by a signal for {timeout_s:g} s",
                    "Continue a stopped process (SIGCONT) earlier, or raise [parallel] timeout_s.",
                    1,
                )
        time.sleep(POLL_S)
    return None


def is_stopped(process: "subprocess.Popen[bytes]") -> bool:
    """Whether a child process is stopped and not ended; unknown, and False, on a system without waitid."""
    if process.returncode is not None or not hasattr(os, "waitid"):
        return False
    try:
        return os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # it has just ended
        return False


def end(ranks: Processes) -> dict[int, int]:
    """Ends all ranks, also stopped ones; returns the exit codes of those that had failed before, negative for a signal."""
    running = [rank for rank in ranks if rank.poll() is None]
    for rank in running:
        rank.send_signal(signal.SIGTERM)
        rank.send_signal(signal.SIGCONT)
    deadline = time.monotonic() + GRACE_S
    for rank in running:
        try:
            rank.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            rank.kill()
            rank.wait()
    return {number: rank.returncode for number, rank in enumerate(ranks) if rank.returncode and rank not in running}


def failures_in(scratch: Path, num_ranks: int) -> dict[int, Failure]:
    """The failure reports of the ranks that wrote one, by rank."""
    found = {rank: read_failure(scratch / str(rank)) for rank in range(num_ranks)}
    return {rank: failure for rank, failure in found.items() if failure is not None}


def keep_logs(scratch: Path, num_ranks: int, folders: Sequence[Path]) -> None:
    """Writes `logs/rank<N>.log` in every run that has begun: the output of each rank but the first, and its traceback."""
    failures = failures_in(scratch, num_ranks)
    for folder in folders:
        if not (folder / "run.json").is_file():
            continue
        (folder / "logs").mkdir(exist_ok=True)
        for rank in range(num_ranks):
            log = scratch / str(rank) / LOG
            trace = failures[rank].trace.encode() if rank in failures else b""
            with suppress(MoeprofError), replacing(folder / "logs" / f"rank{rank}.log") as partial:
                partial.write_bytes((log.read_bytes() if log.is_file() else b"") + trace)
