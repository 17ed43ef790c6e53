"""Starts the ranks of one machine through torch's elastic launcher: each is a `moeprof` process that joins the group."""

import ctypes
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from moeprof.parallel.failure import Failure, cause, read_failure
from moeprof.records.errors import MoeprofError
from moeprof.records.files import replacing
from moeprof.records.resources import num_cores

FOLDERS = "MOEPROF_RUN_FOLDERS"
"""Environment variable of launched ranks: the output folders as JSON, one per recipe."""

ERROR_FILE = "TORCHELASTIC_ERROR_FILE"
"""Environment variable that torch's launcher sets for every rank; the report of a failure goes into the same folder."""

PR_SET_PDEATHSIG = 1
HOST = "127.0.0.1"
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
LOG_FILES = ("stdout.log", "stderr.log")


def launched_folders() -> list[Path]:
    """The output folders that the launcher chose; empty if `moeprof` did not launch this process."""
    return [Path(folder) for folder in json.loads(os.environ.get(FOLDERS, "[]"))]


def end_with_launcher() -> None:
    """On Linux, makes the kernel end this process when its launcher dies; other systems let it finish its work."""
    if launched_folders() and sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def folder_for_failures() -> Path:
    """The folder for the failure report of this launched rank."""
    return Path(os.environ[ERROR_FILE]).parent


def launch(arguments: Sequence[str], num_ranks: int, folders: Sequence[Path]) -> None:
    """Runs `moeprof` with `arguments` on `num_ranks` ranks, and keeps their logs in the `logs/` folder of each run.

    RankError if a rank fails, KeyboardInterrupt on Ctrl-C; all ranks have ended then.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    silence_launcher()
    scratch = Path(tempfile.mkdtemp(prefix="moeprof-"))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_ranks,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint=f"{HOST}:0",  # any free port
        local_addr=HOST,
        max_restarts=0,
        monitor_interval=0.1,
        logs_specs=DefaultLogsSpecs(str(scratch), redirects=dict.fromkeys(range(1, num_ranks), Std.ALL)),
    )
    try:
        with signals_kept(), environment_of_ranks(num_ranks, folders):
            elastic_launch(config, sys.executable)("-m", "moeprof", *arguments)
    except ChildFailedError as error:
        exit_codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
        raise cause(failures_in(scratch, num_ranks), exit_codes) from None
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise MoeprofError(f"ended by {error.sigval.name}", "Run it again.") from None
    finally:
        keep_logs(scratch, num_ranks, folders)
        shutil.rmtree(scratch, ignore_errors=True)


def silence_launcher() -> None:
    """Suppresses the failure messages of torch's launcher; each of its loggers has its own level."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


@contextmanager
def signals_kept() -> Iterator[None]:
    """Restores the signal handlers that the launcher replaces."""
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def environment_of_ranks(num_ranks: int, folders: Sequence[Path]) -> Iterator[None]:
    """Sets the environment that ranks started inside inherit: their share of the cores, and the loopback interface."""
    wanted = {"OMP_NUM_THREADS": str(max(num_cores() // num_ranks, 1)), "TORCH_CPP_LOG_LEVEL": "ERROR"}
    wanted |= {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform.startswith("linux") else {}
    before = dict(os.environ)
    os.environ.update(wanted | before | {FOLDERS: json.dumps([str(folder.absolute()) for folder in folders])})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def folder_of_rank(scratch: Path, rank: int) -> Path | None:
    """The folder in which torch's launcher keeps the output of a rank: <scratch>/<run>/attempt_0/<rank>."""
    return next(iter(sorted(scratch.glob(f"*/attempt_0/{rank}"))), None)


def failures_in(scratch: Path, num_ranks: int) -> dict[int, Failure]:
    """The failure reports of the ranks that wrote one, by rank."""
    folders = {rank: folder_of_rank(scratch, rank) for rank in range(num_ranks)}
    found = {rank: read_failure(folder) for rank, folder in folders.items() if folder is not None}
    return {rank: failure for rank, failure in found.items() if failure is not None}


def keep_logs(scratch: Path, num_ranks: int, folders: Sequence[Path]) -> None:
    """Writes `logs/rank<N>.log` in every run that has begun: the output of each rank (rank 0 prints it too) and its traceback."""
    failures = failures_in(scratch, num_ranks)
    for folder in folders:
        if not (folder / "run.json").is_file():
            continue
        (folder / "logs").mkdir(exist_ok=True)
        for rank in range(num_ranks):
            source = folder_of_rank(scratch, rank) or scratch
            said = [(source / name).read_bytes() for name in LOG_FILES if (source / name).is_file()]
            trace = failures[rank].trace.encode() if rank in failures else b""
            with replacing(folder / "logs" / f"rank{rank}.log") as partial:
                partial.write_bytes(b"".join([*said, trace]))
