"""`moeprof baseline`: a run's numbers, small enough to be reviewed and kept beside the code, to compare with later."""

from pathlib import Path

import click

from moeprof.records.errors import UsageError
from moeprof.records.units import format_bytes

FOLDER = Path("reports") / "baselines"
MAX_BYTES = 200_000
"""A file that nobody would read is no baseline."""


@click.group(name="baseline", short_help="Save, list and show baselines.")
def command() -> None:
    """Keep the numbers of runs as small files, by default under reports/baselines/."""


@command.command()
@click.argument("name")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--only", multiple=True, metavar="METRIC", help="Keep this metric only. Repeatable.")
@click.option("--force", is_flag=True, help="Replace an older baseline of this name.")
def save(name: str, runs: tuple[Path, ...], only: tuple[str, ...], force: bool) -> None:
    """Save the numbers of RUNS (runs, or folders of runs) as baseline NAME, or into a file where NAME ends with .json."""
    from moeprof.analysis.comparison.measurement import Baseline, baseline_text, read_measurements, write_baseline
    from moeprof.cli.compare import known_metric

    path, wanted = path_of(name), set(map(known_metric, only))
    if path.exists() and not force:
        raise UsageError(f"baseline {path}: it exists already", "Give another name, or --force to replace it.")
    subjects = [subject for run in runs for subject in read_measurements(run)]
    for subject in subjects:
        if not subject.valid:
            raise UsageError(f"run of {subject.recipe}: it is not valid: {'; '.join(subject.reasons)}", "Repeat the run.")
    if wanted:
        subjects = [
            subject.model_copy(update={"numbers": tuple(one for one in subject.numbers if one.address[-1] in wanted)})
            for subject in subjects
        ]
    size = len(baseline_text(Baseline(subjects=subjects)).encode())
    if size > MAX_BYTES:
        raise UsageError(
            f"baseline {path}: {format_bytes(size)} are more than {format_bytes(MAX_BYTES)}",
            "Keep fewer metrics, with --only, or fewer runs.",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_baseline(path, subjects)
    click.echo(f"{path}: {sum(len(subject.numbers) for subject in subjects):,} numbers, {format_bytes(size)}")


@command.command(name="list")
def list_() -> None:
    """List the baselines under reports/baselines/."""
    from moeprof.analysis.comparison.measurement import read_baseline

    for path in sorted(FOLDER.glob("*.json")):
        subjects = read_baseline(path).subjects
        told = ", ".join(f"{subject.recipe} ({subject.command}, {len(subject.numbers):,} numbers)" for subject in subjects)
        click.echo(f"{path.stem}: {told}")


@command.command()
@click.argument("name")
def show(name: str) -> None:
    """Print baseline NAME: what it was recorded from, and its numbers as a table."""
    from moeprof.analysis.comparison.measurement import read_baseline

    for subject in read_baseline(path_of(name)).subjects:
        click.echo(f"{subject.recipe}, {subject.command}: {', '.join(f'{k} {v}' for k, v in subject.machine.items() if v)}")
        for number in subject.numbers:
            click.echo("\t".join([*filter(None, number.address), f"{number.value:g}", number.unit, number.kind]))


def path_of(name: str) -> Path:
    """The file of a baseline; a name that is no plain word must be a path to a JSON file."""
    if name.endswith(".json"):
        return Path(name)
    if not name.replace("-", "").replace("_", "").replace(".", "").isalnum() or name.startswith("."):
        raise UsageError(
            f"baseline {name!r}: not a plain name", "Use letters, digits, dots and dashes, or a path to a .json file."
        )
    return FOLDER / f"{name}.json"
