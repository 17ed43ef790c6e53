"""What a trace format is: how a file of it is recognised and read, and what such a file holds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from moeprof.records.errors import UsageError
from moeprof.records.system.inputs import InputFile
from moeprof.records.traces.choice_counts import ChoiceCounts
from moeprof.records.traces.import_options import ImportOptions, ImportReport
from moeprof.records.traces.routing_trace import RoutingTrace


@dataclass(frozen=True)
class TraceFile:
    """The content of a file, or of the files of one recording: routing traces, or counts of experts."""

    name: str
    """What to call the trace in reports and folder names."""
    traces: list[RoutingTrace] = field(default_factory=list)
    """One per phase, variant and rank; empty if there are only counts."""
    counts: ChoiceCounts | None = None
    expert_bytes: dict[str, int] = field(default_factory=dict)
    """Bytes of one expert in each layer; {} if the file does not say."""
    experts_guessed: bool = False
    """Whether the number of experts is one more than the highest id, because the file does not state it."""
    report: ImportReport | None = None
    """What was kept and left out; None for a format of moeprof."""

    @property
    def as_logged(self) -> bool:
        """Whether every token has a step number of its own, and experts come in the order of their use."""
        return any(trace.header.clock == "token" for trace in self.traces)

    @property
    def shared_steps(self) -> bool:
        """Whether the numbers of steps say in which order the phases ran."""
        return any(trace.header.clock for trace in self.traces)


TraceReader = Callable[[Sequence[InputFile], ImportOptions], TraceFile]
"""Reads the files of one recording; UsageError if they are damaged or do not belong together."""

TraceWriter = Callable[[TraceFile, Path], None]
"""Writes all traces of a file, or its counts, into one file; UsageError if the format cannot hold them."""


def only(files: Sequence[InputFile]) -> InputFile:
    """The one file of a recording; UsageError if there are several."""
    if len(files) > 1:
        raise UsageError(
            f"trace {files[1].path}: a second file beside {files[0].path}", "Give one file; these are not ranks of a recording."
        )
    return files[0]


@dataclass(frozen=True)
class TraceFormat:
    """One entry of the registry; everything that the rest of moeprof asks about a format is here."""

    name: str
    title: str
    """For the list of accepted formats in an error, such as `route log (*.route.csv)`."""
    recognise: Callable[[InputFile], bool]
    """Whether a file has this format, from its first bytes, decompressed (`head`), and its path."""
    read: TraceReader
    """The choices of tokens are checked afterwards, for all formats alike."""
    write: TraceWriter | None = None
    """None if moeprof only reads this format."""
    unwritten: str = ""
    """Why moeprof cannot write it."""
    keeps: frozenset[str] = frozenset()
    """Columns of a routing trace that `write` keeps, beside layer, slot and expert, and `expert_bytes`; a conversion loses the others."""
    derives: frozenset[str] = frozenset()
    """Columns that are not in it, and that its reader makes of the order of the tokens: only others than these are lost."""
    omits: frozenset[str] = frozenset()
    """Facts of the model that it has no field for: `top_k` beside loads, `experts` beside choices, `layers`."""
    stacks: bool = False
    """Whether its layers may be those of two stacks, such as `enc.3` and `dec.3`."""
    repeats: bool = False
    """Whether a token may have two copies of one expert among its choices."""
    endings: tuple[str, ...] = ()
    """Endings of file names that mean this format where a file is written; reading goes by the content."""
    either: bool = False
    """Whether it holds choices in one file and loads in another."""
    loads_only: bool = False
    """Whether it holds total loads instead of choices, so that it can place experts but not drive a cache or a router."""
