"""`moeprof replay`: replays a recorded routing trace through expert caches or placements, without a model and without torch."""

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from moeprof.cli.options import full_option, named_systems
from moeprof.cli.trace_options import import_options, trace_options
from moeprof.records.errors import UsageError
from moeprof.records.limits import MAX_EXPERTS, MAX_RANKS, MAX_SIZE
from moeprof.records.units import parse_bandwidth, parse_bytes, parse_duration

if TYPE_CHECKING:
    from moeprof.cli.progress import Bar
    from moeprof.records.run.replay import TraceSource
    from moeprof.records.run.run import Run
    from moeprof.records.traces.trace_format import TraceFile
    from moeprof.studies.replay.source import Content

log = logging.getLogger(__name__)

Parsed = TypeVar("Parsed")

OWN = {
    "cache": ("policies", "slots", "budget", "access", "overlap", "devices"),
    "presets": ("presets", "changed", "slots", "weight_bits"),
    "balance": (
        "devices",
        "balancers",
        "nodes",
        "groups",
        "replicas",
        "node_bandwidth",
        "token_bytes",
        "save_placement",
        "tokens_per_step",
        "every",
        "window",
        "moves",
        "expert_time",
    ),
}
"""The options of a kind of replay that not all kinds have."""


@click.command(name="replay")
@click.argument("trace", type=click.Path(path_type=Path))
@click.option("--cache", is_flag=True, help="Replay expert caches: eviction policies and numbers of slots.")
@click.option(
    "--presets",
    metavar="NAME,...",
    help="Replay offloading systems instead, at equal fast memory: on-demand, hobbit, m2cache, infmoe, paper. See also --slots.",
)
@click.option(
    "--preset",
    "changed",
    multiple=True,
    metavar="NAME:KEY=VALUE,...",
    help="Add an offloading system with other settings, such as hobbit:t1=0.5; repeatable.",
)
@click.option(
    "--weight-bits",
    type=click.IntRange(1, 64),
    metavar="N",
    help="With --presets: bits of a weight at the model's own precision.  [default: those of the run; for other traces 16 is assumed]",
)
@click.option("--policy", "policies", metavar="NAME,...", help="Eviction policies to replay.  [default: all]")
@click.option(
    "--slots",
    metavar="N,...",
    help="Cache slots per layer and device.  [default: every number from 1 to all experts; with --presets a quarter of the experts]",
)
@click.option("--budget", metavar="SIZE,...", help="Instead of --slots: cache bytes per device for all layers together.")
@click.option(
    "--access",
    type=click.Choice(["sequential", "batch"]),
    default="sequential",
    show_default=True,
    help="Make room expert by expert, or once per batch with all its experts protected.",
)
@click.option(
    "--overlap",
    default="0ms",
    show_default=True,
    metavar="TIME",
    help="Compute time per layer and step that expert copies can overlap with.",
)
@click.option(
    "--balance",
    is_flag=True,
    help="Replay placements: compute them from the first half of the steps and test them on the second half.",
)
@click.option(
    "--balancer",
    "balancers",
    metavar="NAME,...",
    help="Placement algorithms to compare with `contiguous`.  [default: all]",
)
@click.option(
    "--nodes",
    type=click.IntRange(1, MAX_RANKS),
    default=1,
    show_default=True,
    metavar="N",
    help="Number of nodes that the devices are spread over.",
)
@click.option(
    "--groups",
    type=click.IntRange(1, MAX_EXPERTS),
    metavar="N",
    help="Groups of neighbouring experts that eplb-hierarchical keeps on one node.  [default: those of the model's router]",
)
@click.option(
    "--replicas",
    default="1",
    show_default=True,
    metavar="N,...",
    help="Extra slots per layer and device for copies of hot experts, for algorithms that replicate. The report is about the first "
    "number, and says which of several is the last that is worth its memory.",
)
@click.option("--node-bandwidth", metavar="RATE", help="Bandwidth of a device to other nodes.  [default: --bandwidth]")
@click.option("--token-bytes", metavar="SIZE", help="Size of one token's hidden state, if the trace lacks it.")
@click.option(
    "--save-placement",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the placement; needs one --balancer and one number of --devices.",
)
@click.option(
    "--tokens-per-step",
    metavar="N,...",
    help="Tokens that a server runs in one step: so many consecutive ones of the trace. The report is about the first number and "
    "compares the others.  [default: the steps of the trace]",
)
@click.option(
    "--every",
    metavar="N,...",
    help="Also place experts again after every N steps along the trace, and compare with placements that are made once.",
)
@click.option(
    "--window",
    metavar="W",
    help="With --every: steps before a placement that it is made from.  [default: the largest N]",
)
@click.option(
    "--moves",
    metavar="M",
    help="With --every: experts of a layer that a device receives at most in an incremental placement.  [default: 2]",
)
@click.option(
    "--expert-time",
    metavar="TIME",
    help="With --every: time that the experts of all layers take in a step under contiguous placement, to weigh gains against moves.",
)
@click.option(
    "--devices",
    metavar="N,...",
    help="Devices that the experts of a layer are spread over.  [default: 1 with --cache, 2 to 64 with --balance]",
)
@click.option(
    "--phase",
    type=click.Choice(["all", "prefill", "decode"]),
    default="all",
    show_default=True,
    help="Replay this phase only; its caches start empty.",
)
@click.option("--bandwidth", default="12GB/s", show_default=True, metavar="RATE", help="Link bandwidth of a device.")
@click.option("--expert-bytes", metavar="SIZE", help="Size of one expert, if the trace lacks it.")
@trace_options
@click.option("--variant", metavar="NAME", help="Variant of the run whose trace is replayed.  [default: static]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Run directory; if both are replayed, DIR/caches and DIR/placements.",
)
@click.option("--force", is_flag=True, help="Replace an earlier run in the output folder.")
@full_option
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
@click.pass_context
def command(
    context: click.Context,
    /,
    trace: Path,
    cache: bool,
    balance: bool,
    out: Path | None,
    force: bool,
    full: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Replay TRACE: a run directory, a file of its routing/ folder, a *.route.csv, or any other dump that `moeprof convert` reads.

    A file may be gzipped, and a folder that has a file of every rank is one trace.

    --cache recommends an eviction policy and a number of cache slots for this routing. --balance reports whether moving or
    copying experts would balance the devices; TRACE may then also be a file of loads without choices, such as a *.json of expert
    counts. Without either, or with both, both are replayed, and DIR holds two runs: caches and placements. --presets compares what
    offloading systems would load. Times are modelled from link bandwidths, not measured.
    """
    given["systems"] = named_systems(given["presets"], given["changed"])
    if given["systems"] and (cache or balance):
        raise UsageError("--presets: cannot be combined with --cache or --balance", "Run them one after another.")
    if cache != balance or given["systems"]:
        refuse_options_of_others(context, "cache" if cache else "balance" if balance else "presets")
    from moeprof.studies.replay.source import read

    content = read(trace, loads_only=not given["systems"] and (balance or not cache), options=import_options(given))
    kinds = ["systems"] if given["systems"] else wanted_kinds(trace, content[0], cache=cache, balance=balance)
    prepared = {name: KINDS[name](trace, given, content) for name in kinds}
    from moeprof.cli.output import run_format, show_complete

    runs, form = [], run_format(full=full, as_json=as_json)
    for name in kinds:
        part = name if len(kinds) > 1 else ""
        runs.append(replayed(prepared[name], out, part, force=force, quiet=context.obj["quiet"]))
        if not as_json:
            show_complete(runs[-1:], form)
    if as_json:
        show_complete(runs, form)


def wanted_kinds(trace: Path, file: "TraceFile", *, cache: bool, balance: bool) -> list[str]:
    """What is replayed: what was asked for, or else all that the file allows, which is said on stderr."""
    if cache != balance:
        return ["caches" if cache else "placements"]
    if file.counts is not None:
        log.warning("replay %s: placements only, because counts have no order of choices for caches", trace)
        return ["placements"]
    if not cache:
        log.warning("replay %s: caches and placements, because neither --cache nor --balance is given", trace)
    return ["caches", "placements"]


def replayed(prepared: "Prepared", out: Path | None, part: str, *, force: bool, quiet: bool) -> "Run":
    """The run of one kind of replay, in the folder of its name if there are several."""
    from moeprof.cli.running import reported
    from moeprof.records.run.folder import output_folder

    source, replay = prepared
    argv = ["moeprof", *sys.argv[1:]]
    with output_folder(source.name, "replay", out / part if out else None) as folder:
        return reported(f"{source.name} {part}".strip(), folder, lambda bar: replay(folder, force, argv, bar), quiet=quiet)


Prepared = tuple["TraceSource", "Callable[[Path, bool, Sequence[str], Bar], Run]"]
"""The trace, and the function (folder, force, argv, progress) that replays it."""


def prepare_caches(trace: Path, given: dict[str, Any], content: "Content") -> Prepared:
    """Checks the trace, and reads the options of `--cache`."""
    if given["slots"] and given["budget"]:
        raise UsageError("--slots and --budget: both are given", "Give slots per layer, or bytes for all layers.")
    from moeprof.studies.replay.source import read_source
    from moeprof.studies.replay.study import CacheOptions, replay_caches

    devices = listed("--devices", given["devices"], positive) or [1]
    if len(devices) > 1:
        raise UsageError(f"--devices {given['devices']}: --cache takes a single number of devices", "Give one number.")
    options = CacheOptions(
        policies=listed("--policy", given["policies"], str),
        slots=listed("--slots", given["slots"], positive),
        budgets=listed("--budget", given["budget"], parse_bytes),
        access="batch" if given["access"] == "batch" else "sequential",
        phase=given["phase"],
        devices=devices[0],
        bandwidth=one("--bandwidth", given["bandwidth"], parse_bandwidth),
        overlap_ns=one("--overlap", given["overlap"], parse_duration),
    )
    size = optional("--expert-bytes", given["expert_bytes"], parse_bytes)
    source = read_source(trace, options.phase, given["variant"], size, import_options(given), content)
    return source.trace, lambda folder, force, argv, bar: replay_caches(
        source, options, folder, force=force, argv=argv, progress=bar
    )


def prepare_placements(trace: Path, given: dict[str, Any], content: "Content") -> Prepared:
    """Makes the loads, and reads the options of `--balance`."""
    from moeprof.studies.replay.loads import read_loads
    from moeprof.studies.replay.placements import PlacementOptions, replay_placements

    replicas = listed("--replicas", given["replicas"], whole)
    options = PlacementOptions(
        balancers=listed("--balancer", given["balancers"], str),
        devices=listed("--devices", given["devices"], positive),
        nodes=given["nodes"],
        groups=given["groups"],
        replicas=replicas[0],
        replica_numbers=replicas if len(set(replicas)) > 1 else (),
        phase=given["phase"],
        bandwidth=one("--bandwidth", given["bandwidth"], parse_bandwidth),
        node_bandwidth=optional("--node-bandwidth", given["node_bandwidth"], parse_bandwidth),
        save=given["save_placement"],
        every=listed("--every", given["every"], positive),
        window=optional("--window", given["window"], positive),
        most_moves=optional("--moves", given["moves"], positive),
        expert_ns=optional("--expert-time", given["expert_time"], parse_duration),
    )
    expert_size, token_size = (optional(f"--{name}-bytes", given[f"{name}_bytes"], parse_bytes) for name in ("expert", "token"))
    tokens = listed("--tokens-per-step", given["tokens_per_step"], positive)
    loads = read_loads(trace, options.phase, given["variant"], expert_size, token_size, import_options(given), tokens, content)
    return loads.trace, lambda folder, force, argv, bar: replay_placements(
        loads, options, folder, force=force, argv=argv, progress=bar
    )


def prepare_systems(trace: Path, given: dict[str, Any], content: "Content") -> Prepared:
    """Checks the trace, and reads the options of `--presets`."""
    from moeprof.studies.replay.offloading import OffloadingOptions, replay_offloading
    from moeprof.studies.replay.source import read_source

    slots = listed("--slots", given["slots"], positive)
    if len(slots) > 1:
        raise UsageError(f"--slots {given['slots']}: --presets takes a single number of slots", "Give one number.")
    options = OffloadingOptions(
        systems=given["systems"],
        slots=slots[0] if slots else None,
        phase=given["phase"],
        bandwidth=one("--bandwidth", given["bandwidth"], parse_bandwidth),
        weight_bits=given["weight_bits"],
    )
    size = optional("--expert-bytes", given["expert_bytes"], parse_bytes)
    source = read_source(trace, options.phase, given["variant"], size, import_options(given), content)
    return source.trace, lambda folder, force, argv, bar: replay_offloading(
        source, options, folder, force=force, argv=argv, progress=bar
    )


KINDS = {"caches": prepare_caches, "placements": prepare_placements, "systems": prepare_systems}
"""All kinds of replay, by the name of their run if there are two."""


def refuse_options_of_others(context: click.Context, kind: str) -> None:
    """UsageError if an option is given that only other kinds of replay have."""
    owners = {name: owner for owner, names in reversed(OWN.items()) for name in names if name not in OWN[kind]}
    for parameter in context.command.params:
        chosen = context.get_parameter_source(parameter.name or "") == ParameterSource.COMMANDLINE
        if chosen and (owner := owners.get(parameter.name or "")):
            raise UsageError(f"{parameter.opts[0]}: an option of --{owner}", "Remove it; see `moeprof replay --help`.")


def positive(text: str) -> int:
    """A whole number of at least 1; ValueError otherwise."""
    return whole(text, least=1)


def whole(text: str, least: int = 0) -> int:
    """A whole number of at least `least` and at most MAX_EXPERTS; ValueError otherwise."""
    if not text.removeprefix("-").isdecimal():
        raise ValueError("not a whole number")
    if int(text) < least:
        raise ValueError(f"must be at least {least}")
    if int(text) > MAX_EXPERTS:
        raise ValueError(f"must be at most {MAX_EXPERTS}")
    return int(text)


def optional(option: str, text: str | None, parse: Callable[[str], Parsed]) -> Parsed | None:
    """The parsed value, or None if the option is not given."""
    return None if text is None else one(option, text, parse)


def listed(option: str, text: str | None, parse: Callable[[str], Parsed]) -> Sequence[Parsed]:
    """The comma-separated values; () if the option is not given."""
    return () if text is None else [one(option, part, parse) for part in text.split(",")]


def one(option: str, text: str, parse: Callable[[str], Parsed]) -> Parsed:
    """The parsed value; UsageError if it is not valid."""
    try:
        if not text.strip():
            raise ValueError("empty value")
        value = parse(text.strip())
        if isinstance(value, int) and value > MAX_SIZE:
            raise ValueError("too large")
        return value
    except ValueError as error:
        raise UsageError(f"{option} {text}: {error}", "See `moeprof replay --help`.") from error
