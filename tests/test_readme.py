"""The README's commands run in their order, on a model, a text and a trace of the reader."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXPERTS = 16


def commands() -> Iterator[str]:
    """Every moeprof command of the README, of blocks and inside lines, in order, without placeholders such as COMMAND."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for block, inside in re.findall(r"```sh\n(.*?)```|`(moeprof [^`\n]*)`", text, flags=re.DOTALL):
        lines = (block or inside).splitlines()
        yield from (line for line in lines if line.startswith("moeprof ") and not re.search(r"\b[A-Z]{3,}\b", line))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with `my-model`, `wiki.txt` and `talk.route.csv`."""
    small_models = pytest.importorskip("tests.huggingface.small_models", reason="needs the extra moeprof[hf]")
    small_models.saved(tmp_path / "my-model", small_models.small_model("qwen3_moe"))
    (tmp_path / "wiki.txt").write_text((ROOT / "docs" / "method.md").read_text(encoding="utf-8"), encoding="utf-8")
    rows = [
        f"1,{step},{layer},{slot},{(step * 7 + layer * 3 + slot * 5) % EXPERTS}"
        for step in range(64)
        for layer in range(2)
        for slot in range(2)
    ]
    (tmp_path / "talk.route.csv").write_text("\n".join(["phase,step,layer,slot,expert", *rows]) + "\n", encoding="utf-8")
    return tmp_path


def test_the_readme_has_a_command_for_every_question() -> None:
    assert {line.split()[1] for line in commands()} == {
        *(
            "characterize",
            "optimize",
            "replay",
            "convert",
            "placement",
            "compare",
            "history",
            "baseline",
            "report",
            "recipes",
            "doctor",
        )
    }


@pytest.mark.slow
def test_every_command_of_the_readme_runs_after_those_before_it(folder: Path) -> None:
    for line in commands():
        shell = f"{shlex.quote(sys.executable)} -m {line}"
        done = subprocess.run(shell, shell=True, cwd=folder, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        assert done.stdout or set(shlex.split(line)) & {"--out", ">"}
