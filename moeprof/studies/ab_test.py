"""An A/B measurement: two sides in interleaved rounds, each in fresh processes, so that a shared, noisy machine can compare them.

A pair of processes, one per side, runs every phase and variant round by round (A B, B A, A B, ...). Then both end, and the next pair
starts. Drift of the machine affects both sides alike, and properties of a single process (memory layout, chosen kernel) vary over pairs.
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
from moeprof.instrument.load import LoadMeter
from moeprof.records.errors import MoeprofError, UsageError
from moeprof.records.metrics.registry import METRICS
from moeprof.records.metrics.row import row_key
from moeprof.records.run.machine_load import MachineLoad
from moeprof.records.system.inputs import READERS
from moeprof.records.system.parsing import parsed_json
from moeprof.records.system.signals import delayed
from moeprof.studies.progress import Progress

COMMAND = "turns"
"""How baseline files name this kind of measurement."""

WORKERS = ("ab_worker", "worker")
"""Names of the worker module in moeprof/studies/, newest first: an older checkout has an older one."""

MIN_SIDE_S = 2.0
"""Each side runs a case for at least this long: short rounds are repeated, so that a few disturbed ones do not decide."""

MAX_ROUNDS = 200
ANSWER_TIMEOUT_S = 600.0

Case = tuple[str, str]
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
    """Root of the checkout whose code runs; None is the code that is running now."""


@dataclass
class SideSamples:
    """What the processes of one side have answered so far."""

    handshake: dict[str, Any]
    samples: dict[Case, list[list[float]]] = field(default_factory=dict)
    """Tokens per second, by case and process."""

    def measurement(self, pairing: str, load: MachineLoad) -> Measurement:
        """One measurement whose processes count as separate runs; `pairing` is equal for two sides that were interleaved."""
        kept = {name: self.handshake[name] for name in ("recipe", "settings", "machine", "packages", "texts", "weights")}
        numbers = [throughput(self.handshake["workload"], case, processes) for case, processes in self.samples.items()]
        return Measurement(command=COMMAND, turns=pairing, machine_load=load, numbers=tuple(numbers), **kept)


def measure_interleaved(
    sides: tuple[Side, Side], pairs: int, progress: Progress, meter: LoadMeter | None = None
) -> tuple[Measurement, Measurement]:
    """Measures both sides with `pairs` pairs of processes; every process has ended when this returns or raises.

    UsageError if a side cannot run as requested; MoeprofError if a process fails or does not answer.
    """
    progress.stage("pairs of processes", pairs)
    meter = meter or LoadMeter()
    load = meter.sample()
    collected: list[SideSamples] = []
    for pair in range(pairs):
        with ExitStack() as stack:
            with delayed():  # every process that starts is also ended
                workers = [stack.enter_context(WorkerProcess(side)) for side in sides]
            handshakes = [worker.handshake() for worker in workers]
            collected = collected or [SideSamples(handshake) for handshake in handshakes]
            run_cases(workers, collected, first=pair % 2)
        load = meter.sample()  # after the processes have ended, because only then the system counts what they used as ours
        progress.advance()
    pairing = secrets.token_hex(8)
    before, after = (side.measurement(pairing, load) for side in collected)
    return before, after


def run_cases(workers: Sequence["WorkerProcess"], collected: Sequence[SideSamples], first: int) -> None:
    """Runs every case that both sides have; side `first` begins."""
    ours, theirs = (side.handshake for side in collected)
    order = [first, 1 - first]
    for case in (tuple(case) for case in ours["turns"] if case in theirs["turns"]):
        for _ in range(max(ours["warmup"], theirs["warmup"])):
            for side in order:
                workers[side].run_round(case)
        samples = run_rounds(workers, case, order, min(ours["rounds"], theirs["rounds"]))
        for side_samples, throughputs in zip(collected, samples, strict=True):
            side_samples.samples.setdefault(case, []).append(throughputs)


def run_rounds(workers: Sequence["WorkerProcess"], case: Case, order: Sequence[int], rounds: int) -> list[list[float]]:
    """Throughputs of both sides in the order A B, B A, A B, ...: `rounds` per side, and more if rounds are short."""
    samples: list[list[float]] = [[], []]
    seconds = 0.0
    while len(samples[0]) < rounds or (seconds < 2 * MIN_SIDE_S and len(samples[0]) < MAX_ROUNDS):
        for side in order if len(samples[0]) % 2 == 0 else order[::-1]:
            tokens_per_s, round_s = workers[side].run_round(case)
            samples[side].append(tokens_per_s)
            seconds += round_s
    return samples


def throughput(workload: str, case: Case, processes: list[list[float]]) -> Number:
    """The throughput of a case with the rounds of all processes; its value is the median of the processes' medians."""
    return Number(
        address=row_key(GATED, workload=workload, phase=case[0], variant=case[1]),
        unit=METRICS[GATED].unit,
        kind=METRICS[GATED].kind,
        value=median(median(rounds) for rounds in processes),
        samples=tuple(map(tuple, processes)),
    )


class WorkerProcess:
    """A process that runs the rounds of one side; it starts with the `with` block and is killed at its end."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        environment = os.environ | {READERS: "2"} | ({"PYTHONPATH": str(side.checkout)} if side.checkout else {})
        # -P: a moeprof/ in the current folder must not shadow the requested code
        self.process = subprocess.Popen(  # noqa: S603  the arguments are our own
            [sys.executable, "-P", "-m", f"moeprof.studies.{worker_module(side.checkout)}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=environment,
            text=True,
            bufsize=1,
        )

    def __enter__(self) -> Self:
        self.send({"recipe": self.side.recipe, "settings": list(self.side.settings), "variants": list(self.side.variants)})
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.errors):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def handshake(self) -> dict[str, Any]:
        """What the process runs, received once it is ready; UsageError if it runs other code than the checkout's."""
        answer = self.receive()
        if self.side.checkout is not None and Path(answer["code"]).resolve() != self.side.checkout.resolve():
            raise UsageError(
                f"checkout {self.side.checkout}: the code of {answer['code']} ran instead",
                "Give the folder that contains moeprof/.",
            )
        return answer

    def run_round(self, case: Case) -> tuple[float, float]:
        """Tokens per second of one round, and its duration in seconds."""
        self.send({"phase": case[0], "variant": case[1]})
        answer = self.receive()
        return float(answer["throughput"]), float(answer["seconds"])

    def send(self, message: dict[str, Any]) -> None:
        """Writes one line of JSON; `receive` reports a process that has ended."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(message) + "\n")

    def receive(self) -> dict[str, Any]:
        """The next answer; an error of the other process is raised here."""
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], ANSWER_TIMEOUT_S)[0]:
            raise MoeprofError(f"side {self.side.name}: no answer for {ANSWER_TIMEOUT_S:.0f} s", "Try a smaller load.")
        line = self.process.stdout.readline()
        if not line:
            raise MoeprofError(
                f"side {self.side.name}: its process ended: {self.last_error_line()}",
                "Run that side alone (`moeprof characterize`) to see the whole error.",
            )
        answer: dict[str, Any] = parsed_json(line)
        if "what" in answer:
            kind = UsageError if answer["usage"] else MoeprofError
            raise kind(f"side {self.side.name}: {answer['what']}", answer["remedy"])
        return answer

    def last_error_line(self) -> str:
        """The last line on stderr, or the exit status if there is none."""
        self.process.wait()
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), f"exit status {self.process.returncode}")


def worker_module(checkout: Path | None) -> str:
    """The name of the worker module in a checkout; UsageError if it has none."""
    if checkout is None:
        return WORKERS[0]
    for name in WORKERS:
        if (checkout / "moeprof" / "studies" / f"{name}.py").is_file():
            return name
    raise UsageError(
        f"checkout {checkout}: it contains no moeprof with interleaved measurements", "Give the root of a checkout of moeprof."
    )


def sides_of(
    recipe: str, shared: Iterable[str], a: Iterable[str], b: Iterable[str], variants: Sequence[str], checkout: Path | None
) -> tuple[Side, Side]:
    """Side A, which runs the code of `checkout` if one is given, and side B, which runs the current code."""
    common, ours, theirs = list(shared), list(a), list(b)
    worker_module(checkout)
    return (
        Side(side_name("A", checkout, ours), recipe, common + ours, variants, checkout),
        Side(side_name("B", None, theirs), recipe, common + theirs, variants),
    )


def side_name(letter: str, checkout: Path | None, settings: Sequence[str]) -> str:
    """The letter with what is particular to this side: `A (load.batch_size=8)`."""
    details = ", ".join([*([str(checkout)] if checkout else []), *settings])
    return f"{letter} ({details})" if details else letter
