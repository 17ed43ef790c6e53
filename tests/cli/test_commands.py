"""The commands as their users type them: output, exit codes, and errors in two lines."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from moeprof.cli.group import COMMANDS
from moeprof.records.recipe.files import builtin_names
from moeprof.records.run.run import Run
from moeprof.records.system.causes import MEMORY

Call = Callable[..., tuple[int, str, str]]
Micro = Callable[[str], Path]


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_help_imports_none_of_the_heavy_libraries() -> None:
    heavy = ("torch", "pandas", "rich", "pyarrow")
    code = f"import sys; from moeprof.cli import group; group.run(['--help']); print([m for m in {heavy} if m in sys.modules])"
    assert python(code).splitlines()[-1] == "[]"


def test_help_names_every_command(moeprof: Call) -> None:
    code, stdout, stderr = moeprof("--help")
    assert code == 0
    assert stderr == ""
    for command in ("characterize", "optimize", "report", "recipes", "doctor"):
        assert command in stdout
        assert moeprof(command, "--help")[0] == 0


def test_characterize_prints_the_full_report_into_a_pipe_as_markdown_and_leaves_the_same(
    moeprof: Call, micro: Micro, tmp_path: Path
) -> None:
    code, stdout, stderr = moeprof("characterize", micro("lm"), "--full", "--out", tmp_path / "run")
    assert code == 0
    assert stderr == ""
    assert stdout == (tmp_path / "run" / "report.md").read_text()
    assert stdout.startswith("# moeprof characterize: lm-micro\n")


def test_report_renders_a_run_again_without_torch(moeprof: Call, micro: Micro, tmp_path: Path) -> None:
    _, stdout, _ = moeprof("characterize", micro("mt"), "--out", tmp_path / "run")
    code = f"import sys; from moeprof.cli import group; group.run(['report', {str(tmp_path / 'run')!r}]); print('torch' in sys.modules)"
    assert python(code) == stdout.strip() + "\nFalse"


def test_json_is_one_document_with_every_metric(moeprof: Call, micro: Micro, tmp_path: Path) -> None:
    code, stdout, _ = moeprof("characterize", micro("lm"), "--out", tmp_path / "run", "--json")
    document = json.loads(stdout)
    run = Run.open(tmp_path / "run")
    assert code == 0
    assert len(document["metrics"]) == len(run.metrics)
    assert document["run"]["valid"] is True
    assert document["run"]["recipe"]["schema"] == 1


def test_several_recipes_get_a_folder_each(moeprof: Call, micro: Micro, tmp_path: Path) -> None:
    code, stdout, _ = moeprof("characterize", micro("lm"), micro("mt"), "--out", tmp_path / "runs", "--json")
    assert code == 0
    assert [Path(document["path"]).name for document in json.loads(stdout)] == ["lm-micro", "mt-micro"]


def test_an_older_run_is_replaced_only_with_force(moeprof: Call, micro: Micro, tmp_path: Path) -> None:
    recipe, out = micro("lm"), tmp_path / "run"
    assert moeprof("characterize", recipe, "--out", out)[0] == 0
    before = (out / "run.json").read_bytes()
    code, _, stderr = moeprof("characterize", recipe, "--out", out)
    assert (code, (out / "run.json").read_bytes()) == (2, before)
    assert "--force" in stderr
    assert moeprof("characterize", recipe, "--out", out, "--force")[0] == 0


def test_csv_of_a_report_is_the_table_itself(moeprof: Call, micro: Micro, tmp_path: Path) -> None:
    moeprof("characterize", micro("lm"), "--out", tmp_path / "run")
    _, stdout, _ = moeprof("report", tmp_path / "run", "--format", "csv")
    assert stdout.splitlines()[0] == "workload,phase,domain,variant,point,rank,layer,region,category,metric,unit,kind,value"
    assert len(stdout.splitlines()) == len(Run.open(tmp_path / "run").metrics) + 1


def test_several_runs_as_html_are_one_page_and_one_run_is_the_page_that_it_leaves(
    moeprof: Call, micro: Micro, tmp_path: Path
) -> None:
    moeprof("characterize", micro("lm"), "--out", tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert moeprof("report", tmp_path / "run", "--format", "html") == (0, page, "")
    _, both, _ = moeprof("report", tmp_path / "run", tmp_path / "run", "--format", "html")
    assert (both.count("</html>"), both.count('data-run="1"') > 3) == (1, True)


BAD = {
    "no such recipe": ("characterize", "lm-tny"),
    "unknown key": ("characterize", "lm-tiny", "--set", "gating.topk=1"),
    "wrong type": ("characterize", "lm-tiny", "--set", "gating.top_k=two"),
    "top_k above E": ("characterize", "lm-tiny", "--set", "gating.top_k=33"),
    "C above 1": ("characterize", "lm-tiny", "--set", "gating.capacity_fraction=1.5"),
    "C of 0": ("characterize", "lm-tiny", "--set", "gating.capacity_fraction=0"),
    "experts over ranks": ("characterize", "lm-tiny", "--ranks", "3"),
    "text that is missing": ("characterize", "lm-tiny", "--data", "a=/nonexistent.txt"),
    "text of two workloads": ("characterize", "--data", "a=b.txt"),
    "a name that leads out": ("characterize", "lm-tiny", "--data", "../x=b.txt"),
    "a checkpoint that is missing": ("characterize", "lm-tiny", "--set", "model.checkpoint=/nonexistent.safetensors"),
    "no run": ("report", "/nonexistent"),
    "a routing source": ("characterize", "lm-tiny", "--set", "routing.source=zipf"),
    "no such option": ("recipes", "validate", "--colour"),
    "no such command": ("characterise",),
    "no argument": ("replay", "--cache"),
    "one argument too many": ("doctor", "again"),
    "no such choice": ("characterize", "lm-tiny", "--device", "tpu"),
    "unknown default domain": ("characterize", "lm-tiny", "--set", 'data.domains=["poems"]'),
}


def test_a_wrong_option_is_named_with_the_command(moeprof: Call) -> None:
    said = moeprof("recipes", "validate", "lm-tiny", "--colour")[2].splitlines()
    assert said == [
        "Error: moeprof recipes validate: no such option '--colour'",
        "Run `moeprof recipes validate --help` to see its arguments and options.",
    ]


@pytest.mark.parametrize("arguments", BAD.values(), ids=BAD.keys())
def test_bad_input_gets_two_lines_and_exit_code_2(moeprof: Call, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    out = ("--out", tmp_path / "run") if arguments[0] == "characterize" else ()
    code, stdout, stderr = moeprof(*arguments, *out)
    assert code == 2
    assert stdout == ""
    assert stderr.startswith("Error: ")
    assert len(stderr.splitlines()) == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"", "holds no text"), (b"a\xff\x00", "not UTF-8"), (b"  \n", "holds no text")],
    ids=["empty", "not UTF-8", "blank"],
)
def test_a_text_that_cannot_be_used_is_refused(moeprof: Call, tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "text.txt").write_bytes(content)
    code, _, stderr = moeprof("characterize", "lm-tiny", "--data", f"a={tmp_path / 'text.txt'}", "--out", tmp_path / "run")
    assert code == 2
    assert complaint in stderr
    assert len(stderr.splitlines()) == 2


def test_files_with_unequal_line_counts_are_refused(moeprof: Call, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one\ntwo\n")
    (tmp_path / "b").write_text("one\n")
    code, _, stderr = moeprof("characterize", "mt-tiny", "--data", f"x={tmp_path / 'a'},{tmp_path / 'b'}")
    assert code == 2
    assert "2 lines" in stderr
    assert "1" in stderr


def test_long_sentences_are_split_and_counted_or_refused(moeprof: Call, micro: Micro, tmp_path: Path) -> None:
    (tmp_path / "news.ne-en.ne").write_text("one. two three four five six\nseven\n")
    (tmp_path / "news.ne-en.en").write_text("1 2 3 4 5 6\n7\n")
    data = ("--data", f"{tmp_path / 'news.ne-en.ne'},{tmp_path / 'news.ne-en.en'}", "--set", "load.batch_size=1")
    code, stdout, _ = moeprof(
        "characterize", micro("mt"), *data, "--set", "load.batches=9", "--full", "--out", tmp_path / "run"
    )
    assert code == 0
    assert "- Text: 1 of 2 sentences have more than 9 tokens and were split at sentence or word boundaries.\n" in stdout
    assert set(Run.open(tmp_path / "run").metrics["domain"]) == {"", "news.ne-en"}
    code, _, stderr = moeprof("characterize", micro("mt"), *data, "--too-long", "refuse", "--out", tmp_path / "refused")
    assert code == 2
    assert stderr.startswith("Error: data news.ne-en: 1 of 2 sources have more than 9 tokens; the longest has 13\n")
    assert not (tmp_path / "refused").exists()


def test_an_output_folder_that_cannot_be_written_is_refused(moeprof: Call, micro: Micro, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, stderr = moeprof("characterize", micro("lm"), "--out", tmp_path / "file" / "run")
    assert code == 2
    assert "output folder" in stderr


def test_debug_shows_the_traceback_wherever_it_stands(moeprof: Call) -> None:
    for arguments in (("--debug", "characterize", "nosuch"), ("characterize", "nosuch", "--debug")):
        code, _, stderr = moeprof(*arguments)
        assert code == 2
        assert "Traceback" in stderr


def test_a_bug_is_reported_as_one(moeprof: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moeprof.cli.recipes.builtin_names", lambda: 1 / 0)
    code, _, stderr = moeprof("recipes", "list")
    assert code == 1
    assert stderr.splitlines() == [
        "Error: ZeroDivisionError: division by zero",
        "This is a bug in moeprof; rerun with --debug for a traceback.",
    ]


def test_a_dependency_that_is_not_installed_is_named(moeprof: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    def show(_: object) -> None:
        raise ModuleNotFoundError("No module named 'rich.console'", name="rich.console")

    monkeypatch.setattr("moeprof.cli.output.show_document", show)
    code, _, stderr = moeprof("recipes", "list")
    assert (code, stderr.splitlines()[1]) == (1, "Install it: pip install rich")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_line_of_help_fits_80_columns(moeprof: Call, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, moeprof(*filter(None, [command]), "--help")[1].splitlines())) <= 80


def test_recipes_list_names_all_eight(moeprof: Call) -> None:
    _, stdout, _ = moeprof("recipes", "list", "--json")
    assert [recipe["name"] for recipe in json.loads(stdout)] == [
        *("hf-tiny", "lm-tiny", "lm-small", "lm-15b", "lm-52b"),
        *("mt-tiny", "mt-small", "mt-54b"),
    ]


def test_parameters_of_a_hugging_face_model_are_counted_in_its_files(moeprof: Call) -> None:
    embedding, attention = 260 * 128, 128 * 128 * 2 + 2 * 128 * 64 + 2 * 32
    experts, norms = 16 * (128 + 3 * 128 * 144), 2 * 128
    expected = embedding + 4 * (attention + experts + norms) + 128
    assert json.loads(moeprof("recipes", "show", "hf-tiny", "--json")[1])["num_parameters"] == expected
    assert json.loads(moeprof("recipes", "list", "--json")[1])[0]["num_parameters"] == expected


@pytest.mark.parametrize(("name", "billions"), [("lm-52b", 51.83), ("mt-54b", 54.50), ("lm-15b", 14.61)])
def test_show_counts_the_parameters_of_the_paper(moeprof: Call, name: str, billions: float) -> None:
    document = json.loads(moeprof("recipes", "show", name, "--json")[1])
    assert round(document["num_parameters"] / 1e9, 2) == billions


@pytest.mark.parametrize("name", builtin_names())
def test_what_show_prints_is_a_valid_recipe(moeprof: Call, tmp_path: Path, name: str) -> None:
    (tmp_path / "copy.toml").write_text(moeprof("recipes", "show", name)[1])
    code, stdout, _ = moeprof("recipes", "validate", tmp_path / "copy.toml")
    assert (code, stdout) == (0, f"{tmp_path / 'copy.toml'}: valid\n")
    again = moeprof("recipes", "show", tmp_path / "copy.toml")[1]
    assert again == (tmp_path / "copy.toml").read_text()


def test_the_schema_documents_every_key(moeprof: Call) -> None:
    schema = json.loads(moeprof("recipes", "schema")[1])
    for section in schema["$defs"].values():
        assert all("description" in key for key in section["properties"].values())


def test_doctor_says_what_is_missing_and_why(moeprof: Call) -> None:
    code, stdout, _ = moeprof("doctor", "--json")
    found = {item["name"]: item for item in json.loads(stdout)}
    assert code == 0
    assert found["torch"]["available"]
    assert all(item["detail"] for item in found.values())
    assert moeprof("doctor")[1].startswith("# moeprof doctor")


def test_a_timeline_is_recorded_only_when_asked_for(moeprof: Call, micro: Micro, tmp_path: Path) -> None:
    assert moeprof("characterize", micro("lm"), "--out", tmp_path / "without")[0] == 0
    assert not (tmp_path / "without" / "timeline").exists()
    assert moeprof("characterize", micro("lm"), "--out", tmp_path / "with", "--timeline")[0] == 0
    assert len(list((tmp_path / "with" / "timeline").glob("*.pt.trace.json.gz"))) == 4


# Disks


def test_a_full_disk_behind_stdout_is_no_bug() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "moeprof", "recipes", "list"]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[0] == "Error: output: no space left on device"
    assert len(ended.stderr.splitlines()) == 2


@pytest.mark.parametrize(("blocks", "file"), [(5, "routing/score-static-rank0.parquet"), (14, "metrics.csv")])
def test_a_limit_of_file_sizes_is_named_with_the_file_and_leaves_a_readable_run(
    micro: Micro, tmp_path: Path, blocks: int, file: str
) -> None:
    out = tmp_path / "run"
    words = [sys.executable, "-m", "moeprof", "characterize", micro("lm"), "--set", "load.phases=['score']", "--out", out]
    command = f"ulimit -f {blocks}; {shlex.join(map(str, words))}"  # in units of 1024 bytes
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.splitlines() == [
        f"moeprof: the partial run is kept in {out} and marked invalid",
        f"Error: {out / file}: cannot be written: file too large",
        "Raise the limit of file sizes (`ulimit -f`). Nothing was written.",
    ]
    assert Run.open(out).record.reasons == [f"failed: {out / file}: cannot be written: file too large"]
    assert (out / "report.md").is_file()
    for table in out.rglob("*.parquet"):
        pq.read_table(table)
    assert not list(out.rglob("*.partial"))


SHORT_OF_MEMORY = """
import resource, sys
from pathlib import Path
import torch
from moeprof.cli import group
from moeprof.records.run.writer import RunWriter

def fill_memory(*_):
    size_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size_bytes + 2**27, resource.RLIM_INFINITY))
    torch.empty(2**28, dtype=torch.uint8)

RunWriter.add_trace = fill_memory
group.main(sys.argv[1:])
"""
"""A command whose memory is limited, as by `ulimit -v`, when the first pass is over."""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the size of a process is unknown on this system")
def test_a_limit_of_memory_is_no_bug_and_leaves_a_readable_run(micro: Micro, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ["characterize", micro("lm"), "--set", "load.phases=['score']", "--out", out]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SHORT_OF_MEMORY, *map(str, words)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.splitlines() == [
        f"moeprof: the partial run is kept in {out} and marked invalid",
        "Error: out of memory: 256 MiB could not be allocated",
        MEMORY,
    ]
    assert Run.open(out).record.reasons == ["failed: out of memory: 256 MiB could not be allocated"]
    assert (out / "report.md").is_file()
