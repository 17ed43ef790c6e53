"""`moeprof replay`: what a recorded routing trace says about caches of experts, without a model and without torch."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import click

from moeprof.records.errors import UsageError
from moeprof.records.units import parse_bandwidth, parse_bytes, parse_duration

Value = TypeVar("Value")


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
@click.option(
    "--phase",
    type=click.Choice(["all", "prefill", "decode"]),
    default="all",
    show_default=True,
    help="Replay these rows alone, from a cold cache.",
)
@click.option(
    "--devices", type=click.IntRange(min=1), default=1, metavar="N", help="Spread each layer's experts over N devices."
)
@click.option("--bandwidth", default="12GB/s", show_default=True, metavar="RATE", help="Of the link that experts come over.")
@click.option("--overlap", default="0ms", metavar="TIME", help="Of each layer's step, behind which its copies hide.")
@click.option("--expert-bytes", metavar="SIZE", help="Of one expert, where the trace does not say it.")
@click.option("--variant", metavar="NAME", help="Which of a run's traces; default: static gating's.")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Run directory.")
@click.option("--force", is_flag=True, help="Replace an older run in the output folder.")
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON document.")
@click.pass_obj
def command(
    settings: dict[str, bool],
    /,
    trace: Path,
    cache: bool,
    policies: str | None,
    slots: str | None,
    budget: str | None,
    access: str,
    phase: str,
    devices: int,
    bandwidth: str,
    overlap: str,
    expert_bytes: str | None,
    variant: str | None,
    out: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Replay TRACE: a run directory, a file of its routing/ folder, or a *.route.csv (plain or gzipped).

    --cache tells which eviction policy and how many expert slots are worth it for this routing. Times are modelled from the
    link's bandwidth, never measured.
    """
    if not cache:
        raise UsageError(f"replay {trace}: nothing to replay", "Add --cache, for eviction policies of expert caches.")
    if slots and budget:
        raise UsageError("--slots and --budget: both are given", "Give slots of each layer, or bytes of all of them.")
    from moeprof.cli.output import default_format, show
    from moeprof.cli.running import reported
    from moeprof.records.run import default_folder
    from moeprof.studies.replay.source import read_source
    from moeprof.studies.replay.study import Asked, replay_caches

    asked = Asked(
        policies=listed("--policy", policies, str),
        slots=listed("--slots", slots, int),
        budgets=listed("--budget", budget, parse_bytes),
        access="batch" if access == "batch" else "sequential",
        phase=phase,  # type: ignore[arg-type]  # click has checked it
        devices=devices,
        bandwidth=one("--bandwidth", bandwidth, parse_bandwidth),
        overlap_ns=one("--overlap", overlap, parse_duration),
    )
    size = None if expert_bytes is None else one("--expert-bytes", expert_bytes, parse_bytes)
    source = read_source(trace, asked.phase, variant, size)
    folder = out or default_folder(source.trace.name, "replay")
    argv = ["moeprof", *sys.argv[1:]]
    run = reported(
        source.trace.name,
        folder,
        lambda bar: replay_caches(source, asked, folder, force=force, argv=argv, progress=bar),
        quiet=settings["quiet"],
    )
    show([run], "json" if as_json else default_format())


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
