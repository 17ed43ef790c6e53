"""Small Hugging Face models on the passes of a characterization."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.cli.group import run as moeprof
from moeprof.huggingface.model import CachedGeneration, HuggingFaceModel
from moeprof.huggingface.sites import find_sites
from moeprof.instrument.hooks import hooked
from moeprof.instrument.probe import Probe, observed_by
from moeprof.instrument.step import Step, make_step
from moeprof.records.recipe.variant import DENSE, OWN
from moeprof.records.run.run import Run
from tests.huggingface.small_models import SEVEN, byte_tokenizer, saved, small_model

SHORT = ("load.sequence_length=24", "load.prompt_length=8", "load.decode_steps=3", "measure.rounds=5", "measure.warmup=0")
QUICK = ["qwen3_moe", "switch_transformers"]
TEXT = "The quick brown fox jumps over the lazy dog, and the dog does not mind at all. "


def characterized(model: Path, out: Path, *options: str) -> Run:
    """The run that the command line makes of a model on its own text."""
    text = out.with_suffix(".txt")
    text.write_text(TEXT * 4)
    arguments = [word for key in SHORT for word in ("--set", key)]
    code = moeprof(
        ["--quiet", "characterize", "--model", str(model), "--data", f"fox={text}", "--out", str(out), *arguments, *options],
    )
    assert code == 0
    return Run.open(out)


@pytest.mark.parametrize(
    "architecture", [*QUICK, *(pytest.param(one, marks=pytest.mark.slow) for one in SEVEN if one not in QUICK)]
)
def test_every_token_of_a_phase_has_k_choices_in_every_layer(architecture: str, tmp_path: Path) -> None:
    model = small_model(architecture)
    run = characterized(saved(tmp_path / architecture, model), tmp_path / "run")
    assert run.record.valid, run.record.reasons
    top_k = 1 if architecture == "switch_transformers" else 2
    sparse = [name for name, module in model.named_modules() if name.rpartition(".")[2] == "experts"]
    phases = run.record.ran.phases
    tokens = {"score": 2 * 24, "encode": 2 * 24, "decode": 2 * 3}  # two batches of one sequence
    assert sum(len(run.record.ran.moe_layers(phase)) for phase in phases) == len(sparse) * (1 if "encode" in phases else 2)
    for phase in phases:
        trace = run.trace(phase, OWN.label)
        assert trace is not None
        counts = dict(zip(*np.unique(trace.table["layer"].to_pylist(), return_counts=True), strict=True))
        assert counts == dict.fromkeys(run.record.ran.moe_layers(phase), tokens[phase] * top_k)
        assert RunMetrics.of(run).value("throughput", phase=phase, variant=OWN.label) > 0


def test_bits_per_byte_are_those_of_the_models_own_loss(tmp_path: Path) -> None:
    model, tokenizer = small_model("qwen3_moe"), byte_tokenizer()
    run = characterized(saved(tmp_path / "model", model), tmp_path / "run", "--set", "load.phases=['score']")
    ids = [*tokenizer(TEXT * 4)["input_ids"], tokenizer.eos_token_id][:48]
    with torch.no_grad():
        losses = [float(model(torch.tensor([part]), labels=torch.tensor([part])).loss) for part in (ids[:24], ids[24:])]
    found = RunMetrics.of(run).value("bits_per_byte", phase="score", variant=OWN.label, domain="fox")
    assert found == pytest.approx(sum(losses) / 2 / np.log(2), rel=1e-5)


def test_a_dense_model_runs_beside_it_if_it_is_named(tmp_path: Path) -> None:
    folder, twin = saved(tmp_path / "model", small_model("qwen3_moe")), saved(tmp_path / "twin", small_model("qwen3"))
    run = characterized(folder, tmp_path / "run", "--set", "load.phases=['score']", "--dense-twin", str(twin))
    assert list(run.record.variants_by_label) == [OWN.label, DENSE.label]
    metrics = RunMetrics.of(run)
    assert metrics.value("slowdown_vs_dense", phase="score", variant=OWN.label) > 0
    assert metrics.or_none("num_parameters", variant=DENSE.label) is None  # the recipe does not know it


def test_a_model_is_characterized_with_a_device_map(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", small_model("mixtral"))
    run = characterized(folder, tmp_path / "run", "--set", "load.phases=['score']", "--device-map", "auto")
    assert run.record.valid, run.record.reasons
    trace = run.trace("score", OWN.label)
    assert trace is not None
    assert len(trace.column("expert")) == 4 * 2 * 24 * 2  # layers, batches, tokens, experts per token


def test_a_run_keeps_token_ids_only_if_asked(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", small_model("qwen3_moe"))
    for options, kept in (((), False), (("--keep-tokens",), True)):
        out = tmp_path / f"run-{kept}"
        trace = characterized(folder, out, "--set", "load.phases=['score']", *options).trace("score", OWN.label)
        assert trace is not None
        assert bool((trace.column("token_id") >= 0).all()) == kept


def test_a_run_shows_paths_as_they_were_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "model", small_model("qwen3_moe"))
    monkeypatch.chdir(tmp_path)
    run = characterized(Path("model"), Path("run"), "--set", "load.phases=['score']")
    assert json.loads((run.path / "run.json").read_text())["recipe"]["model"]["huggingface"] == "model"
    assert run.record.ran.data.files == {"fox": "run.txt"}


def test_token_ids_need_no_tokenizer(tmp_path: Path) -> None:
    model = small_model("mixtral")
    folder = saved(tmp_path / "model", model, tokenizer=False)
    ids = tmp_path / "ids.jsonl"
    ids.write_text(json.dumps({"tokens": list(range(3, 51))}) + "\n")
    arguments = [word for key in (*SHORT, "load.phases=['score']") for word in ("--set", key)]
    out = tmp_path / "run"
    code = moeprof(
        ["--quiet", "characterize", "--model", str(folder), "--data", str(ids), "--out", str(out), "--keep-tokens", *arguments],
    )
    assert code == 0
    trace = Run.open(out).trace("score", OWN.label)
    assert trace is not None
    assert sorted(set(trace.column("token_id").tolist())) == list(range(3, 51))


@pytest.mark.parametrize("architecture", ["qwen3_moe", "qwen3_next"])
def test_a_rewound_generation_gives_the_same_logits(architecture: str) -> None:
    whole = small_model(architecture)
    model = HuggingFaceModel(whole, find_sites(whole))
    prompt = np.arange(3, 15).reshape(1, 12)
    step = make_step("prefill", 0, "", prompt, prompt > 0, np.zeros(1, np.int64), 0, "cpu")
    with torch.inference_mode():
        generation = CachedGeneration.after_prompt(model, torch.from_numpy(prompt), step)
        tokens = [torch.tensor([[7]]), torch.tensor([[9]])]
        first = [generation.forward(token, step) for token in tokens]
        generation.rewind()
        again = [generation.forward(token, step) for token in tokens]
        whole_sequence = whole(torch.cat([torch.from_numpy(prompt), *tokens], dim=1)).logits
    assert all(torch.equal(left, right) for left, right in zip(first, again, strict=True))
    assert torch.allclose(again[-1][:, -1], whole_sequence[:, -1], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "what", "remedy"),
    [
        (("--set", "load.sequence_length=600"), "600 tokens, but it has 512 positions", "load.sequence_length=512"),
        (("--set", "load.sequence_length=400"), "317 tokens are too few for a batch of 1 x 400", "load.sequence_length=317"),
        (("--set", "parallel.ranks=2"), "a Hugging Face model runs on one rank", "--set"),
        (("--chat",), "the tokenizer has no chat template", "token ids"),
        (("lm-tiny",), "a recipe is given too", "Give a recipe or --model"),
    ],
)
def test_what_a_model_cannot_do_is_refused_in_two_lines(
    options: tuple[str, ...], what: str, remedy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "fox.txt"
    text.write_text(TEXT * 4)
    folder = saved(tmp_path / "model", small_model("qwen3_moe"))
    out = tmp_path / "run"
    code = moeprof(["--quiet", "characterize", "--model", str(folder), "--data", f"fox={text}", "--out", str(out), *options])
    assert code == 2
    first, second = capsys.readouterr().err.splitlines()
    assert what in first
    assert remedy in second
    assert not out.exists()


class Distributions(Probe):
    """Keeps what routers say, by layer and step."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, int], torch.Tensor] = {}

    def scored(self, layer: str, step: Step, gates_TE: torch.Tensor) -> None:
        self.found[layer, step.index] = gates_TE

    def routed(self, layer: str, step: Step, *choices: object) -> None:
        """Needed, because only probes that ask for choices observe routers."""


def test_what_a_routers_scores_are_is_decided_once_and_not_from_a_single_row() -> None:
    whole = small_model("qwen3_moe")
    model, probe = HuggingFaceModel(whole, find_sites(whole)), Distributions()
    misleading = torch.tensor([[8.0, 4.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]])  # 2 to 1 as they are, and 55 to 1 by softmax

    def mislead(module: torch.nn.Module, inputs: object, output: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return misleading, torch.tensor([[2 / 3, 1 / 3]]), torch.tensor([[0, 1]])

    def run(index: int, tokens: list[int]) -> None:
        tokens_BL = np.array([tokens])
        step = make_step("score", index, "", tokens_BL, tokens_BL > 0, np.zeros(1, np.int64), 0, "cpu")
        with torch.inference_mode(), observed_by(probe):
            model(torch.from_numpy(tokens_BL), step)

    run(0, list(range(3, 15)))
    router = model.sites[0].router
    assert router is not None
    with hooked([router.module], mislead):
        run(1, [7])
    assert len(probe.found) == 2 * len(model.sites)
    torch.testing.assert_close(probe.found[model.sites[0].layer, 1], misleading.softmax(dim=1))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_device_that_is_absent_is_reported_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = saved(tmp_path / "model", small_model("mixtral"))
    assert moeprof(["characterize", "--model", str(folder), "--device", "cuda", "--out", str(tmp_path / "run")]) == 1
    assert "device cuda, but torch" in capsys.readouterr().err.splitlines()[-2]
    assert not (tmp_path / "run").exists()
