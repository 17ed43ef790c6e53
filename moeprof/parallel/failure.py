"""How a rank tells its launcher why it ended, and which of several endings was the cause of the others."""

import json
import os
import signal
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from moeprof.records.errors import MoeprofError, described

FILE = "failure.json"
REMEDY = "This is a bug in moeprof; the log of the rank has a traceback."


class LostRankError(MoeprofError):
    """Another rank is gone: it knows why, and this one does not."""


class LateRankError(MoeprofError):
    """Another rank did not answer in time."""


class RankError(MoeprofError):
    """A rank failed; the exit code is its own, and so is the place of a defect."""

    def __init__(self, what: str, remedy: str, exit_code: int, trace: str = "") -> None:
        super().__init__(what, remedy)
        self.exit_code, self.trace = exit_code, trace


@dataclass(frozen=True)
class Failure:
    """Why a rank ended."""

    what: str
    remedy: str
    exit_code: int
    follows: bool
    """Whether another rank's failure is the cause."""
    time_ns: int
    trace: str = ""


def failure_of(error: BaseException) -> Failure:
    """What a rank has to say of the error that ends it."""
    trace = "".join(traceback.format_exception(error))
    found = described(error, REMEDY)
    return Failure(found.what, found.remedy, found.exit_code, isinstance(error, LostRankError), time.time_ns(), trace)


def tell(failure: Failure, folder: Path) -> None:
    """Leaves it where the launcher looks."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps(asdict(failure)), encoding="utf-8")


def told(folder: Path) -> Failure | None:
    """What a rank left there; None where it had no time to, or left something else."""
    try:
        return Failure(**json.loads((folder / FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def cause(failures: Mapping[int, Failure], exit_codes: Mapping[int, int]) -> RankError:
    """The error that ended a run: the first that a rank had by itself, else a death by a signal, else whatever there is.

    `exit_codes` are those of ranks that did not end well; negative where a signal ended one.
    """
    own = {rank: failure for rank, failure in failures.items() if not failure.follows}
    if own:
        rank, failure = min(own.items(), key=lambda item: item[1].time_ns)
        trace = failure.trace if failure.remedy == REMEDY else ""
        return RankError(f"rank {rank}: {failure.what}", failure.remedy, failure.exit_code, trace)
    killed = {rank: -code for rank, code in exit_codes.items() if code < 0}
    for rank, number in sorted(killed.items(), key=lambda item: item[1] == signal.SIGTERM):
        name = signal.Signals(number).name
        return RankError(f"rank {rank} was killed by {name}", "Look for what killed it, such as a lack of memory.", 1)
    for rank, failure in failures.items():
        return RankError(f"rank {rank}: {failure.what}", failure.remedy, failure.exit_code)
    rank, code = next(iter(exit_codes.items()), (0, 1))
    return RankError(f"rank {rank} ended with exit code {code}", "See its log.", code)


def end_now(exit_code: int) -> None:
    """Leaves this process without waiting for collectives that nobody will answer."""
    os._exit(exit_code)
