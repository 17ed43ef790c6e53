"""How a rank reports its failure to the launcher, and which of several failures caused the others."""

import json
import os
import signal
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from moeprof.records.errors import MoeprofError
from moeprof.records.system.causes import described
from moeprof.records.system.files import write_text
from moeprof.records.system.inputs import InputFile
from moeprof.records.system.signals import exit_code

FILE = "failure.json"
REMEDY = "This is a bug in moeprof; the log of the rank has a traceback."


class LostRankError(MoeprofError):
    """Another rank has ended; only its own failure gives the cause."""


class LateRankError(MoeprofError):
    """Another rank did not answer within the timeout."""


class RankError(MoeprofError):
    """A rank failed; the exit code is that of the rank, and so is the traceback of a bug."""

    def __init__(self, what: str, remedy: str, exit_code: int, trace: str = "") -> None:
        super().__init__(what, remedy)
        self.exit_code, self.trace = exit_code, trace


@dataclass(frozen=True)
class Failure:
    """Why one rank ended, as it reported."""

    what: str
    remedy: str
    exit_code: int
    follows: bool
    """Whether the failure of another rank is the cause."""
    time_ns: int
    trace: str = ""


def failure_of(error: BaseException) -> Failure:
    """The report of the error that ends a rank."""
    trace = "".join(traceback.format_exception(error))
    found = described(error, REMEDY)
    code = exit_code(error) if isinstance(error, KeyboardInterrupt) else found.exit_code
    return Failure(found.what, found.remedy, code, isinstance(error, LostRankError), time.time_ns(), trace)


def write_failure(failure: Failure, folder: Path) -> None:
    """Writes the report into the folder that the launcher reads."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / FILE, json.dumps(asdict(failure)))


def read_failure(folder: Path) -> Failure | None:
    """The report of a rank; None if it is missing or damaged."""
    try:
        return Failure(**InputFile(folder / FILE).json())
    except (OSError, ValueError, TypeError):
        return None


def cause(failures: Mapping[int, Failure], exit_codes: Mapping[int, int]) -> RankError:
    """The error that ended a run: the earliest failure that no other rank caused, else a killed rank, else any failure.

    `exit_codes` are those of the ranks that failed.
    """
    own = {rank: failure for rank, failure in failures.items() if not failure.follows}
    if own:
        rank, failure = min(own.items(), key=lambda item: item[1].time_ns)
        trace = failure.trace if failure.remedy == REMEDY else ""
        return RankError(f"rank {rank}: {failure.what}", failure.remedy, failure.exit_code, trace)
    killed = {rank: name for rank, code in exit_codes.items() if (name := name_of_signal(code))}
    for rank, name in sorted(killed.items(), key=lambda item: item[1] == "SIGTERM"):
        return RankError(f"rank {rank} was killed by {name}", "Find out what killed it, for example a lack of memory.", 1)
    for rank, failure in failures.items():
        return RankError(f"rank {rank}: {failure.what}", failure.remedy, failure.exit_code)
    rank, code = next(iter(exit_codes.items()), (0, 1))
    return RankError(f"rank {rank} ended with exit code {code}", "See its log.", code)


def name_of_signal(exit_code: int) -> str:
    """The signal that ended a process: its number is negated, or 128 is added by a handler; empty for another exit code."""
    with suppress(ValueError):
        return signal.Signals(-exit_code if exit_code < 0 else exit_code - 128).name
    return ""


def end_now(exit_code: int) -> None:
    """Ends this process at once, without waiting for collectives that can no longer complete."""
    os._exit(exit_code)
