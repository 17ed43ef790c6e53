"""The wheel, installed into a fresh environment, does what the checkout does, with and without the extra."""

import json
import shutil
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch

from moeprof import __version__
from tests.installed import ROOT, built_wheel, environment, run

pytestmark = pytest.mark.slow

SMALL = [
    f"--set={change}"
    for change in (
        "load.batches=1",
        "load.batch_size=1",
        "load.sequence_length=64",
        "load.prompt_length=16",
        "load.decode_steps=4",
        "measure.rounds=5",
        "measure.warmup=0",
    )
]
EXTRA = "Install the extra: pip install --upgrade 'moeprof[hf]'"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """The programs of an environment without the extra."""
    return environment(tmp_path_factory.mktemp("installed") / "plain", wheel, ())


def test_the_wheel_has_the_modules_recipes_and_checkpoints_of_the_checkout(wheel: Path) -> None:
    sources = [path for path in (ROOT / "moeprof").rglob("*") if path.suffix in (".py", ".j2", ".js", ".css")]
    sources += (ROOT / "moeprof" / "reporters" / "page" / "vendor").iterdir()
    recipes = [ROOT / "recipes" / f"{name}.{kind}" for name in ("lm-tiny", "mt-tiny") for kind in ("toml", "safetensors", "md")]
    recipes += [*(ROOT / "recipes").glob("*.toml"), *(ROOT / "recipes" / "hf-tiny").iterdir()]
    wanted = {
        str(path.relative_to(ROOT)).replace("recipes/", "moeprof/recipes/", path in recipes): path
        for path in [*sources, *recipes]
    }
    with ZipFile(wheel) as found:
        assert set(wanted) <= set(found.namelist())
        assert all(found.read(name) == path.read_bytes() for name, path in wanted.items())
        assert not [name for name in found.namelist() if not name.startswith(("moeprof/", f"moeprof-{__version__}.dist-info/"))]


def test_the_package_that_is_imported_is_that_of_the_wheel_and_has_its_version(programs: Path, tmp_path: Path) -> None:
    where = run(programs / "python", "-c", "import moeprof; print(moeprof.__file__)", cwd=tmp_path)
    assert Path(where.stdout.strip()).is_relative_to(programs.parent), where.stderr
    assert run(programs / "moeprof", "--version", cwd=tmp_path).stdout.split()[-1] == __version__
    without = run(programs / "python", "-c", "import transformers", cwd=tmp_path)
    assert "No module named 'transformers'" in without.stderr


def test_a_recipe_is_characterized_and_reported_from_any_folder_without_the_extra(programs: Path, tmp_path: Path) -> None:
    ended = run(programs / "moeprof", "characterize", "lm-tiny", *SMALL, "--out", "run", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert json.loads((tmp_path / "run" / "run.json").read_text())["valid"]
    ended = run(programs / "moeprof", "report", "run", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "lm-tiny" in ended.stdout


@pytest.mark.parametrize("model", [("--model", "some/mixtral"), ("hf-tiny",)])
def test_a_model_of_hugging_face_names_the_extra_that_is_missing(
    programs: Path, tmp_path: Path, model: tuple[str, ...]
) -> None:
    ended = run(programs / "moeprof", "characterize", *model, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines() == ["Error: Hugging Face models need transformers, which is not installed", EXTRA]
    assert not list(tmp_path.iterdir())


def test_the_hugging_face_model_of_the_wheel_runs_with_the_extra(wheel: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="needs the extra moeprof[hf]")
    programs = environment(tmp_path / "extra", wheel, ("hf",))
    ended = run(programs / "moeprof", "characterize", "hf-tiny", *SMALL, "--out", "run", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["valid"]
    assert str(ROOT) not in json.dumps(record)


def test_the_wheel_runs_on_python_3_13_if_it_has_a_torch_for_cpus(wheel: Path, tmp_path: Path) -> None:
    python = shutil.which("python3.13")
    if python is None or (made := run(python, "-m", "venv", tmp_path / "new", cwd=tmp_path)).returncode:
        why = "python3.13 is not found" if python is None else made.stderr.strip().splitlines()[0]
        pytest.skip(f"no Python 3.13 that makes environments: {why}")
    programs, wanted = tmp_path / "new" / "bin", f"torch=={torch.__version__.partition('+')[0]}+cpu"
    ended = run(programs / "python", "-m", "pip", "install", "--only-binary", ":all:", wanted, wheel, cwd=tmp_path)
    if ended.returncode:
        pytest.skip(f"{wanted} cannot be installed on Python 3.13: {ended.stderr.strip().splitlines()[-1]}")
    ended = run(programs / "moeprof", "characterize", "lm-tiny", *SMALL, "--out", "run", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
