"""`moeprof baseline`: the numbers of runs as files that are small enough to review and commit, to compare with later."""

from pathlib import Path

import click

from moeprof.records.errors import UsageError
from moeprof.records.units import format_bytes

FOLDER = Path("reports") / "baselines"
MAX_BYTES = 200_000
"""A larger file could not be reviewed."""


@click.group(name="baseline")
def command() -> None:
    """Save the numbers of runs as small files, by default in reports/baselines/, to compare with later."""


@command.command()
@click.argument("name")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--only", multiple=True, metavar="METRIC", help="Save this metric only; repeatable.")
@click.option("--force", is_flag=True, help="Replace an existing baseline of this name.")
def save(name: str, runs: tuple[Path, ...], only: tuple[str, ...], force: bool) -> None:
    """Save the numbers of RUNS as baseline NAME.

    RUNS are run directories or folders of runs. NAME is a plain word, saved as reports/baselines/NAME.json, or a path that
    ends with .json.
    """
    from moeprof.analysis.comparison.measurement import Baseline, baseline_text, read_measurements, write_baseline
    from moeprof.cli.compare import known_metric

    path, wanted = path_of(name), set(map(known_metric, only))
    if path.exists() and not force:
        raise UsageError(f"baseline {path}: the file already exists", "Give another name, or --force to replace it.")
    measurements = [measurement for run in runs for measurement in read_measurements(run)]
    for each in measurements:
        if not each.valid:
            raise UsageError(f"run of {each.recipe}: the run is invalid: {'; '.join(each.reasons)}", "Repeat the run.")
    if wanted:
        measurements = [
            each.model_copy(update={"numbers": tuple(number for number in each.numbers if number.address[-1] in wanted)})
            for each in measurements
        ]
    size = len(baseline_text(Baseline(subjects=measurements)).encode())
    if size > MAX_BYTES:
        raise UsageError(
            f"baseline {path}: {format_bytes(size)}, more than the limit of {format_bytes(MAX_BYTES)}",
            "Save fewer metrics (--only METRIC) or fewer runs.",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_baseline(path, measurements)
    click.echo(f"{path}: {sum(len(each.numbers) for each in measurements):,} numbers, {format_bytes(size)}")


@command.command(name="list")
def list_() -> None:
    """List the baselines in reports/baselines/."""
    from moeprof.analysis.comparison.measurement import read_baseline

    for path in sorted(FOLDER.glob("*.json")):
        contents = (f"{one.recipe} ({one.command}, {len(one.numbers):,} numbers)" for one in read_baseline(path).subjects)
        click.echo(f"{path.stem}: {', '.join(contents)}")


@command.command()
@click.argument("name")
def show(name: str) -> None:
    """Print baseline NAME: the recipe, command and machine of each run, and its numbers as a table."""
    from moeprof.analysis.comparison.measurement import read_baseline

    for one in read_baseline(path_of(name)).subjects:
        click.echo(f"{one.recipe}, {one.command}: {', '.join(f'{key} {value}' for key, value in one.machine.items() if value)}")
        for number in one.numbers:
            click.echo("\t".join([*filter(None, number.address), f"{number.value:g}", number.unit, number.kind]))


def path_of(name: str) -> Path:
    """The file of a baseline; a name that is not a plain word must be the path of a .json file."""
    if name.endswith(".json"):
        return Path(name)
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or name.startswith("."):
        raise UsageError(
            f"baseline {name!r}: not a plain word", "Use letters, digits, dots and dashes, or the path of a .json file."
        )
    return FOLDER / f"{name}.json"
