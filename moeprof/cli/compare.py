"""`moeprof compare`: which metrics got better or worse between two runs, with an exit code for CI."""

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprof.cli.interleaved import measure_sides, measuring_options, wants_measurement
from moeprof.cli.options import full_option
from moeprof.cli.output import run_format, write
from moeprof.records.errors import UsageError, suggestion
from moeprof.records.system.files import write_text

if TYPE_CHECKING:
    from moeprof.analysis.comparison.verdicts import Rules


@click.command(name="compare")
@click.argument("baseline", required=False, type=click.Path(path_type=Path))
@click.argument("candidate", required=False, type=click.Path(path_type=Path))
@measuring_options
@click.option(
    "--threshold",
    "thresholds",
    multiple=True,
    metavar="METRIC=5%",
    help="Largest change of a metric that is still accepted; repeatable.",
)
@click.option("--only", multiple=True, metavar="METRIC", help="Compare this metric only; repeatable.")
@click.option("--strict", is_flag=True, help="Exit with 4 if a gated metric is inconclusive, missing or not comparable.")
@click.option("--allow-machine-mismatch", is_flag=True, help="Compare times even if they were measured on different machines.")
@click.option("--format", "form", metavar="FORMAT", help="Output format.  [default: short]")
@full_option
@click.option("--json", "as_json", is_flag=True, help="Same as --format json.")
@click.option(
    "--write", "files", multiple=True, metavar="FORMAT=PATH", help="Also write the result to a file in this format; repeatable."
)
@click.pass_obj
def command(
    settings: dict[str, bool],
    /,
    baseline: Path | None,
    candidate: Path | None,
    thresholds: tuple[str, ...],
    only: tuple[str, ...],
    strict: bool,
    allow_machine_mismatch: bool,
    form: str | None,
    full: bool,
    as_json: bool,
    files: tuple[str, ...],
    **measuring: Any,
) -> int:
    """Compare CANDIDATE with BASELINE metric by metric. Each is a run directory, a folder of runs or a baseline file.

    Exact metrics are compared by value, and so are routed metrics if both sides made the same routing decisions. Throughput
    counts as changed only if tests over rounds and over processes agree and the change exceeds a threshold. --run-both RECIPE
    measures A and B now, in interleaved rounds and fresh processes: the only reliable way on a shared machine.

    Exit codes: 0 nothing got worse, 3 something got worse, 4 nothing could be compared (with --strict also: something is
    inconclusive, missing or not comparable).
    """
    from moeprof.analysis.comparison.compare import compare
    from moeprof.analysis.comparison.measurement import read_measurements
    from moeprof.analysis.comparison.verdicts import Rules
    from moeprof.reporters.comparison_formats.registry import render

    chosen = known_format(run_format(full=full, as_json=as_json) if as_json or form is None else form)
    targets = [written_file(option) for option in files]
    rules = Rules(dict(map(parsed_threshold, thresholds)), tuple(map(known_metric, only)), allow_machine_mismatch)
    if device := measuring.pop("device"):
        measuring["shared"] = [*measuring["shared"], f"measure.device={device}"]
    sides, overrides = (baseline, candidate), [*measuring["a"], *measuring["b"], *measuring["shared"]]
    if wants_measurement(measuring["recipes"], measuring["checkout"], sides, overrides):
        before, after, sides = measure_sides(**measuring, quiet=settings["quiet"])
    else:
        before, after = ((str(side), read_measurements(side)) for side in sides if side is not None)
    comparison = replace(compare(*before, *after, rules), repeat=repeated(sides, thresholds, rules))
    for name, path in targets:
        write_text(path, render(comparison, name))
    write(render(comparison, chosen), chosen)
    return comparison.exit_code(strict=strict)


def repeated(sides: Sequence[Path | None], thresholds: Sequence[str], rules: "Rules") -> str:
    """The command that prints the whole comparison of these sides."""
    options = [
        *(word for option in thresholds for word in ("--threshold", option)),
        *(word for metric in rules.only for word in ("--only", metric)),
        *(["--allow-machine-mismatch"] if rules.allow_machine_mismatch else []),
    ]
    return shlex.join(["moeprof", "compare", *map(str, sides), *options, "--full"])


def parsed_threshold(option: str) -> tuple[str, float]:
    """Splits `throughput=5%` into a metric and a fraction."""
    metric, _, size = option.partition("=")
    try:
        fraction = float(size.removesuffix("%")) / (100 if size.endswith("%") else 1)
    except ValueError:
        fraction = -1.0
    if not 0 <= fraction < float("inf"):
        raise UsageError(f"--threshold {option}: not of the form METRIC=SIZE", "Example: --threshold throughput=5%")
    return known_metric(metric), fraction


def known_metric(name: str) -> str:
    """The name, if it is that of a metric; UsageError otherwise."""
    from moeprof.records.metrics.registry import METRICS

    if name not in METRICS:
        raise UsageError(
            f"unknown metric {name!r}", suggestion(name, METRICS) or "`moeprof report RUN --format csv` lists them."
        )
    return name


def known_format(name: str) -> str:
    """The name, if it is that of a format; UsageError otherwise."""
    from moeprof.reporters.comparison_formats.registry import FORMATS

    if name not in FORMATS:
        raise UsageError(f"unknown format {name!r}", f"{suggestion(name, FORMATS)}Use one of {', '.join(FORMATS)}.")
    return name


def written_file(option: str) -> tuple[str, Path]:
    """Splits `junit=report.xml` into a format and a path."""
    name, _, path = option.partition("=")
    if not path:
        raise UsageError(f"--write {option}: not of the form FORMAT=PATH", "Example: --write junit=report.xml")
    return known_format(name), Path(path)
