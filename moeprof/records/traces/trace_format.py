"""What a trace format is: how a file of it is recognised and read, and what such a file holds."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from moeprof.records.system.inputs import InputFile
from moeprof.records.traces.count_table import CountTable
from moeprof.records.traces.routing_trace import RoutingTrace


@dataclass(frozen=True)
class TraceFile:
    """The content of one file: routing traces, or a count table."""

    name: str
    """What to call the trace in reports and folder names."""
    traces: list[RoutingTrace] = field(default_factory=list)
    """One per phase, variant and rank; empty for a count table."""
    counts: CountTable | None = None
    expert_bytes: dict[str, int] = field(default_factory=dict)
    """Bytes of one expert in each layer; {} if the file does not say."""
    experts_guessed: bool = False
    """Whether the number of experts is one more than the highest id, because the file does not state it."""
    as_logged: bool = False
    """Whether every token has a step number of its own, and experts come in the order of their use."""


@dataclass(frozen=True)
class TraceFormat:
    """One entry of the registry; everything that the rest of moeprof asks about a format is here."""

    name: str
    title: str
    """For the list of accepted formats in an error, such as `route log (*.route.csv)`."""
    recognise: Callable[[InputFile], bool]
    """Whether a file has this format, from its first bytes, decompressed (`head`), and its path."""
    read: Callable[[InputFile], TraceFile]
    """The content of a file; UsageError if it is damaged. The choices of tokens are checked afterwards, for all formats alike."""
    write: Callable[[RoutingTrace, Path], None] | None = None
    """Writes one trace; None if moeprof only reads this format."""
    loads_only: bool = False
    """Whether it holds total loads instead of choices, so that it can place experts but not drive a cache or a router."""
