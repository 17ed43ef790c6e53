"""Two sides measured in turns, each in fresh processes: what a shared, noisy machine still lets one compare.

A pair of processes, one a side, plays every phase and variant round by round, A B, B A, A B ...; then both end, and the next pair
starts. Drift of the machine hits both sides alike, and what a process got by chance is drawn anew for every pair.
"""

import json
import os
import secrets
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import IO, Any, Self

from moeprof.analysis.comparison.measurement import GATED, Measurement, Number
from moeprof.records.errors import MoeprofError, UsageError
from moeprof.records.metrics.registry import KEYS, METRICS
from moeprof.studies.progress import Progress

COMMAND = "turns"
TURN_S = 2.0
"""For how long at least a process plays a turn: short rounds are many, so that what disturbs a few of them is outvoted."""

MOST_ROUNDS = 200
ANSWER_S = 600.0
"""A process that has not answered by then never will."""

Turn = tuple[str, str]
"""A phase and a variant."""


@dataclass(frozen=True)
class Side:
    """What one side runs."""

    name: str
    recipe: str
    settings: Sequence[str]
    """Overrides, `section.key=value`."""
    variants: Sequence[str]
    checkout: Path | None = None
    """Whose code runs; None is the code that is running now."""


@dataclass
class SideSamples:
    """What one side's processes have said so far."""

    introduction: dict[str, Any]
    samples: dict[Turn, list[list[float]]] = field(default_factory=dict)

    def subject(self, turns: str) -> Measurement:
        """As it would come from as many runs."""
        told = self.introduction
        kept = {name: told[name] for name in ("recipe", "settings", "machine", "packages", "texts", "weights")}
        numbers = [number(told["workload"], turn, processes) for turn, processes in self.samples.items()]
        return Measurement(command=COMMAND, turns=turns, numbers=tuple(numbers), **kept)


def in_turns(sides: tuple[Side, Side], pairs: int, progress: Progress) -> tuple[Measurement, Measurement]:
    """Both sides measured by `pairs` pairs of processes.

    UsageError where a side cannot run as asked; MoeprofError where one fails or falls silent. No process is left behind.
    """
    progress.stage("pairs of processes", pairs)
    tallies: list[SideSamples] = []
    for pair in range(pairs):
        with ExitStack() as stack:
            players = [stack.enter_context(WorkerProcess(side)) for side in sides]
            introductions = [player.introduction() for player in players]
            tallies = tallies or [SideSamples(introduction) for introduction in introductions]
            play(players, tallies, first=pair % 2)
        progress.advance()
    name = secrets.token_hex(8)
    before, after = (tally.subject(name) for tally in tallies)
    return before, after


def play(players: Sequence["WorkerProcess"], tallies: Sequence[SideSamples], first: int) -> None:
    """Every turn that both can play; side `first` begins."""
    told = [tally.introduction for tally in tallies]
    for turn in (tuple(turn) for turn in told[0]["turns"] if turn in told[1]["turns"]):
        order = [first, 1 - first]
        for _ in range(max(each["warmup"] for each in told)):
            for side in order:
                players[side].round(turn)
        kept = played(players, turn, order, min(each["rounds"] for each in told))
        for tally, samples in zip(tallies, kept, strict=True):
            tally.samples.setdefault(turn, []).append(samples)


def played(players: Sequence["WorkerProcess"], turn: Turn, order: Sequence[int], rounds: int) -> list[list[float]]:
    """Rounds of both sides, A B, B A, A B ...: as many as asked for, and more where these are short."""
    kept: list[list[float]] = [[], []]
    seconds = 0.0
    while len(kept[0]) < rounds or (seconds < 2 * TURN_S and len(kept[0]) < MOST_ROUNDS):
        for side in order if len(kept[0]) % 2 == 0 else order[::-1]:
            throughput, lasted = players[side].round(turn)
            kept[side].append(throughput)
            seconds += lasted
    return kept


def number(workload: str, turn: Turn, processes: list[list[float]]) -> Number:
    """A throughput with the rounds of all processes."""
    cells = {"workload": workload, "phase": turn[0], "variant": turn[1], "metric": GATED}
    return Number(
        address=tuple(cells.get(key, "") for key in KEYS),
        unit=METRICS[GATED].unit,
        kind=METRICS[GATED].kind,
        value=median(median(rounds) for rounds in processes),
        samples=tuple(map(tuple, processes)),
    )


class WorkerProcess:
    """A process that plays one side's rounds, from the `with` to its end."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        environment = os.environ | ({"PYTHONPATH": str(side.checkout)} if side.checkout else {})
        # -P: what lies in the current folder must not hide the code that is meant
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "moeprof.studies.ab_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=environment,
            text=True,
            bufsize=1,
        )

    def __enter__(self) -> Self:
        self.say({"recipe": self.side.recipe, "settings": list(self.side.settings), "variants": list(self.side.variants)})
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.errors):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def introduction(self) -> dict[str, Any]:
        """What the process says of itself, once it is ready; UsageError where it runs other code than was asked for."""
        told = self.heard()
        if self.side.checkout is not None and Path(told["code"]).resolve() != self.side.checkout.resolve():
            raise UsageError(
                f"checkout {self.side.checkout}: {told['code']} ran in its place", "Give the folder that holds moeprof/."
            )
        return told

    def round(self, turn: Turn) -> tuple[float, float]:
        """Tokens per second of one round, and the seconds it took."""
        self.say({"phase": turn[0], "variant": turn[1]})
        told = self.heard()
        return float(told["throughput"]), float(told["seconds"])

    def say(self, line: dict[str, Any]) -> None:
        """A process that is gone is noticed when its answer is missing."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(line) + "\n")

    def heard(self) -> dict[str, Any]:
        """The next answer; an error of the other process is raised here."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], ANSWER_S)[0]:
            raise MoeprofError(f"side {self.side.name}: no answer for {ANSWER_S:.0f} s", "Try a smaller load.")
        line = self.process.stdout.readline()
        if not line:
            raise MoeprofError(
                f"side {self.side.name}: its process ended: {self.last_words()}", "Run that side alone to see why."
            )
        told: dict[str, Any] = json.loads(line)
        if "what" in told:
            kind = UsageError if told["usage"] else MoeprofError
            raise kind(f"side {self.side.name}: {told['what']}", told["remedy"])
        return told

    def last_words(self) -> str:
        """The last line on stderr."""
        self.process.wait()
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), f"exit status {self.process.returncode}")


def sides_of(
    recipe: str, shared: Iterable[str], a: Iterable[str], b: Iterable[str], variants: Sequence[str], checkout: Path | None
) -> tuple[Side, Side]:
    """A, of `checkout` where there is one, and B, always of the code that is running."""
    common, ours, theirs = list(shared), list(a), list(b)
    if checkout is not None and not (checkout / "moeprof" / "studies" / "ab_worker.py").is_file():
        raise UsageError(
            f"checkout {checkout}: no moeprof that can measure in turns lies in it", "Give the root of a checkout."
        )
    return (
        Side(named("A", checkout, ours), recipe, common + ours, variants, checkout),
        Side(named("B", None, theirs), recipe, common + theirs, variants),
    )


def named(letter: str, checkout: Path | None, settings: Sequence[str]) -> str:
    """`A (load.batch_size=8)`."""
    told = ", ".join([*([str(checkout)] if checkout else []), *settings])
    return f"{letter} ({told})" if told else letter
