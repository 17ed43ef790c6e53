"""`moeprof.record` inside a user's own code."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import moeprof
from moeprof.cli.group import run as command
from moeprof.records.errors import MoeprofError, UsageError
from moeprof.records.recipe.variant import OWN
from moeprof.records.run.run import Run

small_models = pytest.importorskip("tests.huggingface.small_models", reason="needs the extra moeprof[hf]")

PROMPTS = torch.tensor([[0, 0, 5, 6, 7, 8], [3, 4, 5, 6, 7, 8]])
REAL = (PROMPTS > 0).long()


def generated(model: Any, **more: Any) -> torch.Tensor:
    """Five tokens after two prompts, of which the first has two tokens of padding on the left."""
    found: torch.Tensor = model.generate(
        PROMPTS, attention_mask=REAL, max_new_tokens=5, min_new_tokens=5, do_sample=False, pad_token_id=0, **more
    )
    return found


def num_hooks(model: torch.nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_a_recording_counts_the_tokens_of_every_layer_and_changes_nothing(moe_recording: Callable[..., Any]) -> None:
    model = small_models.small_model("qwen3_moe")
    plain = generated(model)
    with moe_recording(model) as recording:
        assert torch.equal(generated(model), plain)
    assert num_hooks(model) == 0
    tokens = int(REAL.sum()) + 4 * 2  # the prompts, and the first four of the five tokens after each
    assert {layer: int(counts.sum()) for layer, counts in recording.counts().items()} == dict.fromkeys("0123", tokens * 2)


def test_a_recording_is_a_run_directory_that_the_commands_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = small_models.small_model("mixtral")
    with moeprof.record(model, name="mine") as recording:
        generated(model)
    run = recording.save(tmp_path / "run")
    assert run.record.valid
    traces = {phase: Run.open(tmp_path / "run").trace(phase, OWN.label) for phase in ("score", "decode")}
    assert {phase: len(trace) for phase, trace in traces.items() if trace} == {"score": 10 * 2 * 4, "decode": 8 * 2 * 4}
    assert command(["report", str(tmp_path / "run"), "--full"]) == 0
    assert "Load of the 8 experts" in capsys.readouterr().out
    assert command(["replay", str(tmp_path / "run"), "--cache", "--out", str(tmp_path / "replay"), "--quiet"]) == 0
    assert command(["compare", str(tmp_path / "run"), str(tmp_path / "run")]) == 0


def test_a_recorded_trace_has_what_the_experts_received() -> None:
    model = small_models.small_model("olmoe")
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    experts = model.model.layers[0].mlp.experts
    handle = experts.register_forward_pre_hook(lambda _, args: seen.append((args[1].clone(), args[2].detach().clone())))
    with moeprof.record(model, keep_tokens=True) as recording:
        model(PROMPTS[1:])
    handle.remove()
    trace = recording.trace("score").select(layer="0")
    ids_TK, weights_TK = seen[0]
    order_TK = weights_TK.argsort(dim=1, descending=True)
    assert trace.column("expert").reshape(-1, 2).tolist() == ids_TK.gather(1, order_TK).tolist()
    assert np.allclose(trace.column("weight").reshape(-1, 2), weights_TK.gather(1, order_TK))
    assert trace.column("token_id").tolist() == PROMPTS[1].repeat_interleave(2).tolist()


def test_hooks_are_removed_if_the_block_fails() -> None:
    model = small_models.small_model("mixtral")
    with pytest.raises(KeyboardInterrupt), moeprof.record(model):
        raise KeyboardInterrupt
    assert num_hooks(model) == 0


def test_a_block_that_does_not_run_the_model_is_an_error() -> None:
    with pytest.raises(MoeprofError, match="made no call"), moeprof.record(small_models.small_model("mixtral")):
        pass


def test_an_empty_recording_is_not_saved(tmp_path: Path) -> None:
    recording = moeprof.record(small_models.small_model("mixtral"))
    with pytest.raises(UsageError, match="nothing was recorded"):
        recording.save(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_encoder_decoder_is_recorded_in_both_phases() -> None:
    model = small_models.small_model("switch_transformers")
    with moeprof.record(model) as recording:
        model.generate(PROMPTS[1:], decoder_start_token_id=0, max_new_tokens=3, min_new_tokens=3, do_sample=False)
    assert {phase: set(recording.trace(phase).names("layer")) for phase in ("encode", "decode")} == {
        phase: {name for name in recording.counts() if name.startswith(prefix)}
        for phase, prefix in (("encode", "enc"), ("decode", "dec"))
    }


def test_the_example_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[2]
    example = (root / "docs/huggingface.md").read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "hf-tiny").symlink_to(root / "recipes/hf-tiny")
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "docs/huggingface.md", "exec"), {})
    assert Run.open(tmp_path / "my-run").record.valid
