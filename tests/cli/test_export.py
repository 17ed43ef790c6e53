"""`moeprof export` as its user types it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.models.build import build_model
from moeprof.records.recipe.files import load_recipe
from moeprof.records.run.run import Run
from tests.models.checkpoints import save_checkpoint

Call = Callable[..., tuple[int, str, str]]
Micro = Callable[[str], Path]


@pytest.fixture
def recipe(micro: Micro, tmp_path: Path) -> Path:
    """A translation recipe with weights."""
    path = micro("mt")
    save_checkpoint(build_model(load_recipe(str(path), ["measure.seed=3"])), tmp_path / "weights.safetensors")
    path.write_text(path.read_text().replace("[load]", 'checkpoint = "weights.safetensors"\n[load]'))
    return path


def test_the_summary_names_the_files_and_json_has_their_numbers(moeprof: Call, recipe: Path, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="needs the extra moeprof[hf]")
    out = tmp_path / "out"
    code, stdout, stderr = moeprof("export", recipe, "--out", out)
    assert (code, stderr) == (0, "")
    assert stdout.splitlines()[1] == "config.json, model.safetensors, tokenizer.json, tokenizer_config.json"
    code, stdout, _ = moeprof("export", recipe, "--out", out, "--force", "--shard-size", "40KB", "--json")
    found = json.loads(stdout)
    tensors = {}
    for path in out.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            tensors |= {name: file.get_tensor(name).nbytes for name in file.keys()}  # noqa: SIM118
    assert (code, found["tensors"], found["weight_bytes"]) == (0, len(tensors), sum(tensors.values()))
    assert found["files"] == sorted(path.name for path in out.iterdir())
    assert f"{out}: {len(tensors)} tensors" in moeprof("export", recipe, "--out", out, "--force")[1]


def test_a_folder_as_checkpoint_gives_the_decisions_of_the_file(moeprof: Call, recipe: Path, tmp_path: Path) -> None:
    assert moeprof("export", recipe, "--out", tmp_path / "out")[0] == 0
    experts = {}
    for name, more in {"file": (), "folder": ("--set", f"model.checkpoint={tmp_path / 'out'}")}.items():
        code, _, stderr = moeprof("characterize", recipe, *more, "--out", tmp_path / name)
        assert (code, stderr) == (0, "")
        run = Run.open(tmp_path / name)
        assert run.record.valid
        traces = [run.trace(phase, "static") for phase in ("encode", "decode")]
        experts[name] = [(trace.column("expert").tolist(), trace.column("weight").tolist()) for trace in traces if trace]
    assert len(experts["file"]) == 2
    assert experts["folder"] == experts["file"]


def test_a_folder_of_nllb_is_characterized_as_a_model_with_its_own_tokenizer(moeprof: Call, tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="needs the extra moeprof[hf]")
    from tests.huggingface.small_models import byte_tokenizer
    from tests.models.nllb_models import nllb_folder

    folder, text = nllb_folder(tmp_path / "nllb", vocab_size=320), tmp_path / "source.txt"
    text.write_text("abc\nHé.\n")
    small = (
        "--set",
        "load.decode_steps=2",
        "--set",
        "load.batch_size=2",
        "--set",
        "measure.rounds=5",
        "--set",
        "measure.warmup=0",
    )
    arguments = ("characterize", "--model", folder, "--data", f"x={text},{text}", *small, "--out", tmp_path / "run")
    code, _, stderr = moeprof(*arguments)
    assert (code, stderr.count("\n")) == (2, 2)
    assert "the folder has no tokenizer" in stderr
    byte_tokenizer().save_pretrained(folder)
    assert moeprof(*arguments)[0] == 0
    trace = Run.open(tmp_path / "run").trace("encode", "static")
    assert trace is not None
    first = trace.select(layer="enc.1")
    ids = dict(zip(zip(first.column("sequence"), first.column("position"), strict=True), first.column("token_id"), strict=True))
    wanted = [[*byte_tokenizer()(line).input_ids, 2] for line in ("abc", "Hé.")]
    assert ids == {(row, place): token for row, line in enumerate(wanted) for place, token in enumerate(line)}


@pytest.mark.parametrize("pairs", [False, True])
def test_an_exported_folder_is_optimized_as_a_model_with_pairs_and_without(
    moeprof: Call, recipe: Path, tmp_path: Path, pairs: bool
) -> None:
    pytest.importorskip("tokenizers", reason="needs the extra moeprof[hf]")
    assert moeprof("export", recipe, "--out", tmp_path / "out")[0] == 0
    for name, lines in (("a.src", "abc\nde f\n"), ("a.ref", "cba\nf de\n")):
        (tmp_path / name).write_text(lines)
    data = ("--data", f"ab={tmp_path / 'a.src'},{tmp_path / 'a.ref'}") if pairs else ()
    small = [f"--set={key}" for key in ("load.decode_steps=2", "load.batches=1", "measure.rounds=5", "measure.warmup=0")]
    code, _, stderr = moeprof(
        "optimize", "--model", tmp_path / "out", *data, *small, "--slots", "2", "--no-sweep", "--out", tmp_path / "run"
    )
    assert (code, stderr) == (0, "")
    run = Run.open(tmp_path / "run")
    assert run.record.valid, run.record.reasons
    assert list(run.record.variants_by_label) == ["static", "dynamic", "dynamic+buffered"]
    assert ("ab" in run.record.text_hashes) == pairs
    for phase in ("encode", "decode"):
        here = RunMetrics.of(run).at(phase=phase, variant="dynamic+buffered")
        assert here.value("output_tokens_differing") == 0


def test_what_cannot_be_exported_is_said_in_two_lines(moeprof: Call, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for arguments, what in (
        (("lm-tiny",), "Error: recipe lm-tiny: NLLB-MoE's layout is for encoder-decoders, and the model is decoder-only"),
        (("mt-small",), "Error: recipe mt-small: it has no checkpoint, so there are no trained weights to export"),
        ((recipe, "--set", "gating.top_k=1"), "gating.top_k is 1"),
        ((recipe, "--shard-size", "much"), "Error: --shard-size much"),
        ((recipe, "--set", f"model.checkpoint={tmp_path / 'absent'}"), "no such file"),
    ):
        code, stdout, stderr = moeprof("export", *arguments, "--out", out)
        assert (code, stdout, stderr.count("\n")) == (2, "", 2)
        assert what in stderr
        assert not out.exists()
    out.write_text("a file")
    assert "exists already" in moeprof("export", recipe, "--out", out, "--force")[2]
    assert out.read_text() == "a file"
