"""Every row of metrics.csv is derived from raw files, and from nothing else: again, in part, and of a run that was cut short."""

import csv
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import MICRO
from parallel.ranks import over_ranks

from moeprof.analysis.derive import DERIVATIONS, Derivation, derive, missing_files, salvage
from moeprof.parallel.group import Group
from moeprof.records.errors import UsageError
from moeprof.records.metrics.registry import COLUMNS, KEYS, RowKey, Samples
from moeprof.records.recipe.files import load_recipe
from moeprof.records.run.run import Run
from moeprof.records.run.writer import sample_rows
from moeprof.studies.characterize import characterization
from moeprof.studies.optimize import optimization

BUFFERING = {
    "kernel": "loop",
    "slots": 2,
    "fast-memory": None,
    "host-memory": None,
    "eviction": "lru",
    "buffer": "all",
    "sweep-slots": True,
}
FILES = sorted({name for one in DERIVATIONS for name in one.reads})


def recorded(folder: Path, workload: str, command: str, group: Group | None = None, *overrides: str) -> Path:
    """A run of a micro recipe with every pass of a command; on several ranks with the sweep over batches too."""
    recipe_file, group = folder / f"{workload}.toml", group or Group()
    recipe_file.write_text(MICRO[workload])
    recipe = load_recipe(str(recipe_file), ["budget.memory=100KiB", f"parallel.ranks={group.size}", *overrides])
    names = ("dynamic-gating", "expert-buffering")
    sweep = not group.alone
    study = characterization() if command == "characterize" else optimization(recipe, names, BUFFERING, sweep=sweep)
    return study.run(recipe, folder / "run", group=group).path


@pytest.fixture(scope="module", params=["characterize lm", "characterize mt", "optimize lm"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    command, workload = request.param.split()
    return Run.open(recorded(tmp_path_factory.mktemp("derive"), workload, command))


@pytest.fixture(scope="module")
def buffered(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of one text domain on two ranks, with slots."""
    folder = tmp_path_factory.mktemp("ranks")
    over_ranks(2, recorded_on_a_rank, str(folder), timeout_s=120)
    return Run.open(folder / "run")


def recorded_on_a_rank(group: Group, folder: str) -> None:
    recorded(Path(folder), "lm", "optimize", group, "data.domains=['prose']", "load.phases=['score']")


def lines(run: Run) -> list[list[str]]:
    """The table as it is on disk, without its header."""
    with (run.path / "metrics.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == list(COLUMNS)
    return rows


def addresses(samples: Iterable[Samples]) -> list[RowKey]:
    return [row.address for row, _ in samples]


def copy_of(run: Run, folder: Path) -> Run:
    shutil.copytree(run.path, folder / "copy")
    return Run.open(folder / "copy")


def remove(file: Path) -> None:
    """Removes a file or a folder, or nothing."""
    if file.is_dir():
        shutil.rmtree(file)
    else:
        file.unlink(missing_ok=True)


def reading(name: str) -> list[Derivation]:
    """The derivations that read a raw file."""
    return [one for one in DERIVATIONS if name in one.reads]


def test_every_row_of_a_run_is_derived_from_its_files(run: Run) -> None:
    derived = list(derive(Run.open(run.path)))
    assert [row.cells() for row, _ in derived] == lines(run)
    assert [line for row, values in derived for line in sample_rows(row, values)] == run.samples.to_dict("records")


def test_a_run_of_two_ranks_is_derived_from_its_files(buffered: Run) -> None:
    assert [row.cells() for row, _ in derive(Run.open(buffered.path))] == lines(buffered)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_takes_the_rows_of_its_derivations_and_no_others(buffered: Run, tmp_path: Path, name: str) -> None:
    whole = {one.name: addresses(derive(buffered, [one])) for one in DERIVATIONS}
    run = copy_of(buffered, tmp_path)
    remove(run.path / name)
    for one in reading(name):
        assert name in missing_files(run, one)
        assert list(derive(run, [one])) == []
    left = [address for one in DERIVATIONS if one not in reading(name) for address in whole[one.name]]
    assert addresses(derive(run)) == left


def metrics_without_point(run: Run) -> set[str]:
    """Metrics of the whole run, without those of points of a sweep."""
    return {row.metric for row, _ in derive(run) if not row.point}


@pytest.mark.parametrize(
    ("name", "lost", "kept"),
    [
        ("footprints.parquet", "memory_total_peak", "throughput"),
        ("regions.parquet", "region_time", "step_latency"),
        ("routing", "load_cv", "waste_factor"),
        ("steps.parquet", "waste_factor", "load_cv"),
        ("loads.parquet", "miss_rate", "load_time"),
        ("stalls.parquet", "load_time", "miss_rate"),
        ("links.json", "floor_time", "comm_time"),
        ("batches.parquet", "max_batch", "max_throughput"),
        ("agreement.parquet", "routing_flips", "throughput"),
        ("agreement.parquet", "speedup_equal_batch", "step_latency"),
        ("agreement.parquet", "speedup_max_throughput", "max_throughput"),
    ],
)
def test_what_a_file_is_needed_for(buffered: Run, tmp_path: Path, name: str, lost: str, kept: str) -> None:
    run = copy_of(buffered, tmp_path)
    before = metrics_without_point(run)
    remove(run.path / name)
    after = metrics_without_point(Run.open(run.path))
    assert {lost, kept} <= before
    assert lost not in after
    assert kept in after


@pytest.mark.parametrize("name", ["rounds.parquet", "regions.parquet", "stalls.parquet", "traffic.parquet"])
def test_of_a_run_whose_table_was_cut_the_rows_of_all_others_are_salvaged(buffered: Run, tmp_path: Path, name: str) -> None:
    run = copy_of(buffered, tmp_path)
    file = run.path / name
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(UsageError, match=re.escape(name)):
        list(derive(Run.open(run.path)))
    whole = [one for one in DERIVATIONS if one not in reading(name)]
    assert addresses(salvage(Run.open(run.path))) == addresses(derive(buffered, whole))


def test_of_a_run_that_stopped_between_two_files_complete_records_are_salvaged(buffered: Run, tmp_path: Path) -> None:
    """It recorded regions of a phase whose rounds it did not record any more: no breakdown, and everything else."""
    run = copy_of(buffered, tmp_path)
    rounds = pq.read_table(run.path / "rounds.parquet")
    pq.write_table(rounds.filter(pc.not_equal(rounds["pass"], "breakdown observed")), run.path / "rounds.parquet")
    salvaged = addresses(salvage(Run.open(run.path)))
    lost = {address.metric for address in set(addresses(derive(buffered))) - set(salvaged)}
    assert lost == {"region_time", "region_share", "overhead"}


def test_no_two_derivations_make_the_same_row(buffered: Run) -> None:
    found = addresses(derive(buffered))
    assert len(found) == len(set(found))


PER_DOMAIN = ("region_time", "region_share", "step_latency", "throughput", "speedup_equal_batch", "comm_time", "load_time")


@pytest.mark.parametrize("metric", PER_DOMAIN)
def test_a_single_domain_has_the_same_numbers_under_its_name_and_over_all_domains(buffered: Run, metric: str) -> None:
    rows = [(row.address, row.value) for row, _ in derive(buffered) if row.metric == metric and not row.point]
    named = {address: value for address, value in rows if address.domain == "prose"}
    over_all = {address: value for address, value in rows if address.domain == ""}
    assert named
    assert {address._replace(domain=""): value for address, value in named.items()} == over_all


def test_whatever_has_a_row_of_a_domain_has_one_over_all_domains(run: Run) -> None:
    table = run.metrics[[*KEYS]]
    everything = set(table.itertuples(index=False, name=None))
    at = KEYS.index("domain")
    without = {
        address[KEYS.index("metric")] for address in everything if (*address[:at], "", *address[at + 1 :]) not in everything
    }
    assert without == set()
