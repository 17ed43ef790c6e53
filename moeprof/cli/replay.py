"""`moeprof replay`: what a recorded routing trace says about caches and placements of experts, without a model and without torch."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from moeprof.records.errors import UsageError
from moeprof.records.units import parse_bandwidth, parse_bytes, parse_duration

if TYPE_CHECKING:
    from moeprof.cli.progress import Bar
    from moeprof.records.run.replay import TraceSource
    from moeprof.records.run.run import Run

Value = TypeVar("Value")

OWN = {
    "cache": ("policies", "slots", "budget", "access", "overlap"),
    "balance": ("balancers", "nodes", "replicas", "node_bandwidth", "token_bytes", "save_placement"),
}
"""Options that only one kind of replay knows."""


@click.command(name="replay", short_help="Replay a routing trace without a model.")
@click.argument("trace", type=click.Path(path_type=Path))
@click.option("--cache", is_flag=True, help="Replay eviction policies of expert caches.")
@click.option("--policy", "policies", metavar="NAME,...", help="Eviction policies; default: all of them.")
@click.option("--slots", metavar="N,...", help="Expert slots of each layer on each device; default: 1 to all experts.")
@click.option("--budget", metavar="SIZE,...", help="Instead of slots: bytes of each device for all layers together.")
@click.option(
    "--access",
    type=click.Choice(["sequential", "batch"]),
    default="sequential",
    show_default=True,
    help="Experts of a batch one after another, or all of them protected until all are there.",
)
@click.option("--overlap", default="0ms", metavar="TIME", help="Of each layer's step, behind which its copies hide.")
@click.option("--balance", is_flag=True, help="Make placements of experts from the first half, judge them on the second.")
@click.option("--balancer", "balancers", metavar="NAME,...", help="Beside contiguous placement; default: all of them.")
@click.option("--nodes", type=click.IntRange(min=1), default=1, metavar="N", help="Spread the devices over N nodes.")
@click.option(
    "--replicas",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    metavar="N",
    help="Slots of each device for copies of hot experts, for balancers that replicate.",
)
@click.option("--node-bandwidth", metavar="RATE", help="Of a device's link to other nodes; default: as --bandwidth.")
@click.option("--token-bytes", metavar="SIZE", help="Of one token's hidden state, where the trace does not say it.")
@click.option(
    "--save-placement", type=click.Path(path_type=Path), metavar="FILE", help="Of one balancer and one number of devices."
)
@click.option(
    "--devices",
    metavar="N,...",
    help="Spread each layer's experts over N devices. Default: 1 (--cache), 2 to 64 (--balance).",
)
@click.option(
    "--phase",
    type=click.Choice(["all", "prefill", "decode"]),
    default="all",
    show_default=True,
    help="Replay these rows alone, from a cold cache.",
)
@click.option("--bandwidth", default="12GB/s", show_default=True, metavar="RATE", help="Of the link of a device.")
@click.option("--expert-bytes", metavar="SIZE", help="Of one expert, where the trace does not say it.")
@click.option("--variant", metavar="NAME", help="Which of a run's traces; default: static gating's.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Run directory.")
@click.option("--force", is_flag=True, help="Replace an older run in the output folder.")
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON document.")
@click.pass_context
def command(
    context: click.Context,
    /,
    trace: Path,
    cache: bool,
    balance: bool,
    out: Path | None,
    force: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Replay TRACE: a run directory, a file of its routing/ folder, or a *.route.csv (plain or gzipped).

    --cache tells which eviction policy and how many expert slots are worth it for this routing. --balance tells whether
    moving or copying experts would even out the devices; for it TRACE may be a *.json of expert counts. Times are
    modelled from the links' bandwidths, never measured.
    """
    if cache == balance:
        problem = "two things to replay" if cache else "nothing to replay"
        remedy = "Give --cache, for eviction policies of expert caches, or --balance, for placements of experts."
        raise UsageError(f"replay {trace}: {problem}", remedy)
    refuse_foreign(context, "balance" if cache else "cache")
    from moeprof.cli.output import default_format, show
    from moeprof.cli.running import reported
    from moeprof.records.run.writer import default_folder

    source, make = (caches if cache else placements)(trace, given)
    folder = out or default_folder(source.name, "replay")
    argv = ["moeprof", *sys.argv[1:]]
    run = reported(source.name, folder, lambda bar: make(folder, force, argv, bar), quiet=context.obj["quiet"])
    show([run], "json" if as_json else default_format())


Made = tuple["TraceSource", "Callable[[Path, bool, Sequence[str], Bar], Run]"]
"""What is replayed, and who does it: (folder, force, argv, progress)."""


def caches(trace: Path, given: dict[str, Any]) -> Made:
    """`--cache`."""
    if given["slots"] and given["budget"]:
        raise UsageError("--slots and --budget: both are given", "Give slots of each layer, or bytes of all of them.")
    from moeprof.studies.replay.source import read_source
    from moeprof.studies.replay.study import Asked, replay_caches

    devices = listed("--devices", given["devices"], natural) or [1]
    if len(devices) > 1:
        raise UsageError(f"--devices {given['devices']}: caches are replayed on one number of devices", "Give one number.")
    asked = Asked(
        policies=listed("--policy", given["policies"], str),
        slots=listed("--slots", given["slots"], int),
        budgets=listed("--budget", given["budget"], parse_bytes),
        access="batch" if given["access"] == "batch" else "sequential",
        phase=given["phase"],
        devices=devices[0],
        bandwidth=one("--bandwidth", given["bandwidth"], parse_bandwidth),
        overlap_ns=one("--overlap", given["overlap"], parse_duration),
    )
    source = read_source(trace, asked.phase, given["variant"], optional("--expert-bytes", given["expert_bytes"], parse_bytes))
    return source.trace, lambda folder, force, argv, bar: replay_caches(
        source, asked, folder, force=force, argv=argv, progress=bar
    )


def placements(trace: Path, given: dict[str, Any]) -> Made:
    """`--balance`."""
    from moeprof.studies.replay.loads import read_loads
    from moeprof.studies.replay.placements import AskedPlacements, replay_placements

    asked = AskedPlacements(
        balancers=listed("--balancer", given["balancers"], str),
        devices=listed("--devices", given["devices"], natural),
        nodes=given["nodes"],
        replicas=given["replicas"],
        phase=given["phase"],
        bandwidth=one("--bandwidth", given["bandwidth"], parse_bandwidth),
        node_bandwidth=optional("--node-bandwidth", given["node_bandwidth"], parse_bandwidth),
        save=given["save_placement"],
    )
    sizes = (optional(f"--{name}-bytes", given[f"{name}_bytes"], parse_bytes) for name in ("expert", "token"))
    loads = read_loads(trace, asked.phase, given["variant"], *sizes)
    return loads.trace, lambda folder, force, argv, bar: replay_placements(
        loads, asked, folder, force=force, argv=argv, progress=bar
    )


def refuse_foreign(context: click.Context, other: str) -> None:
    """UsageError for an option that the other kind of replay has."""
    for parameter in context.command.params:
        chosen = context.get_parameter_source(parameter.name or "") == ParameterSource.COMMANDLINE
        if chosen and parameter.name in OWN[other]:
            raise UsageError(f"{parameter.opts[0]}: it belongs to --{other}", "Leave it away; see moeprof replay --help.")


def natural(text: str) -> int:
    """1 or more."""
    if (number := int(text)) < 1:
        raise ValueError("less than 1")
    return number


def optional(option: str, text: str | None, parse: Callable[[str], Value]) -> Value | None:
    """A single value, or None where it is not given."""
    return None if text is None else one(option, text, parse)


def listed(option: str, text: str | None, parse: Callable[[str], Value]) -> Sequence[Value]:
    """Values between commas; () where the option is not given."""
    return () if text is None else [one(option, part, parse) for part in text.split(",")]


def one(option: str, text: str, parse: Callable[[str], Value]) -> Value:
    """A single value; UsageError where it is none."""
    try:
        if not text.strip():
            raise ValueError("an empty value")
        return parse(text.strip())
    except ValueError as error:
        raise UsageError(f"{option} {text}: {error}", "See moeprof replay --help.") from error
