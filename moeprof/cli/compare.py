"""`moeprof compare`: what got better or worse between two runs, for people and for a pipeline's exit code."""

import sys
from pathlib import Path
from typing import Any

import click

from moeprof.cli.turns import asked_for, measured, turn_options
from moeprof.records.errors import UsageError


@click.command(name="compare", short_help="Decide what got better or worse.")
@click.argument("baseline", required=False, type=click.Path(path_type=Path))
@click.argument("candidate", required=False, type=click.Path(path_type=Path))
@turn_options
@click.option(
    "--threshold", "thresholds", multiple=True, metavar="METRIC=5%", help="Change that a metric may show. Repeatable."
)
@click.option("--only", multiple=True, metavar="METRIC", help="Look at this metric only. Repeatable.")
@click.option("--strict", is_flag=True, help="Exit with 4 where anything gated is undecided or cannot be compared.")
@click.option("--allow-machine-mismatch", is_flag=True, help="Compare times of different machines all the same.")
@click.option("--format", "form", help="What to print; default: terminal, or markdown into a pipe.")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option("--write", "files", multiple=True, metavar="FORMAT=PATH", help="Also write a file in this format. Repeatable.")
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
    as_json: bool,
    files: tuple[str, ...],
    **turns: Any,
) -> int:
    """Compare CANDIDATE with BASELINE, metric by metric: runs, folders of runs, or baseline files.

    Exact numbers are compared as they are, routed ones where the routing is the same, throughput by tests over its rounds and
    its processes, and a size that must be exceeded. With --run-both RECIPE, A and B are measured now, in turns, each in fresh
    processes: the only honest way on a shared machine. Exit codes: 0 nothing got worse, 3 something did, 4 nothing could be
    compared (or, with --strict, something is undecided).
    """
    from moeprof.analysis.comparison.compare import compare
    from moeprof.analysis.comparison.measurement import read_measurements
    from moeprof.analysis.comparison.verdicts import Rules
    from moeprof.reporters.comparison_formats.registry import render

    chosen = known_format("json" if as_json else form or ("terminal" if sys.stdout.isatty() else "markdown"))
    targets = [written_file(option) for option in files]
    rules = Rules(dict(map(parsed_threshold, thresholds)), tuple(map(known_metric, only)), allow_machine_mismatch)
    sides = (baseline, candidate)
    if asked_for(turns["recipes"], turns["checkout"], sides, [*turns["a"], *turns["b"], *turns["shared"]]):
        before, after = measured(**turns, quiet=settings["quiet"])
    else:
        before, after = ((str(side), read_measurements(side)) for side in sides if side is not None)
    comparison = compare(*before, *after, rules)
    for name, path in targets:
        try:
            path.write_text(render(comparison, name), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--write {name}={path}: {error.strerror}", "Give a path that can be written.") from error
    click.echo(render(comparison, chosen), nl=False)
    return comparison.exit_code(strict=strict)


def parsed_threshold(option: str) -> tuple[str, float]:
    """`throughput=5%` as a metric and a fraction."""
    metric, _, size = option.partition("=")
    try:
        fraction = float(size.removesuffix("%")) / (100 if size.endswith("%") else 1)
    except ValueError:
        fraction = -1.0
    if not 0 <= fraction < float("inf"):
        raise UsageError(f"--threshold {option}: not a metric and a size", "Write it as throughput=5% or throughput=0.05.")
    return known_metric(metric), fraction


def known_metric(name: str) -> str:
    """The name; UsageError where no metric has it."""
    from difflib import get_close_matches

    from moeprof.records.metrics.registry import METRICS

    if name not in METRICS:
        near = get_close_matches(name, METRICS, n=1)
        raise UsageError(
            f"metric {name!r}: there is none of that name", f"Did you mean {near[0]}?" if near else "See docs/runs.md."
        )
    return name


def known_format(name: str) -> str:
    """The name; UsageError where no format has it."""
    from moeprof.reporters.comparison_formats.registry import FORMATS

    if name not in FORMATS:
        raise UsageError(f"format {name!r}: there is none of that name", f"There are {', '.join(FORMATS)}.")
    return name


def written_file(option: str) -> tuple[str, Path]:
    """`junit=report.xml` as a format and a path."""
    name, _, path = option.partition("=")
    if not path:
        raise UsageError(f"--write {option}: not a format and a path", "Write it as junit=report.xml.")
    return known_format(name), Path(path)
