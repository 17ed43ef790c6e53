"""Checkpoints with NaN or infinity: the run is invalid, and names the first phase, layer and step."""

from pathlib import Path

import numpy as np
import pytest
import torch

from moeprof.instrument.step import Step
from moeprof.models.build import Model
from moeprof.moe.layer import moe_layers
from moeprof.records.recipe.files import load_recipe
from moeprof.records.run.raw_tables import NOT_FINITE
from moeprof.records.run.run import Run
from moeprof.reporters.formats.registry import render
from moeprof.studies.characterize import characterization
from moeprof.studies.passes.finite import FiniteCheck

from ..runs import DYNAMIC, Micro, studied, values, with_weights

NAN = float("nan")
EXPERT = 2


def broken_end(model: Model) -> None:
    """Puts one NaN into the last norm, which every output passes."""
    model.norm.weight[3] = NAN


def broken_expert(model: Model) -> None:
    """Puts one NaN into one of the four experts of the last layer."""
    next(iter(moe_layers(model)[-1].experts.weights.values()))[EXPERT, 0, 0] = NAN


def characterized(recipe: Path, out: Path, *overrides: str) -> Run:
    with torch.inference_mode():
        return characterization().run(load_recipe(str(recipe), overrides), out)


@pytest.mark.usefixtures("device")
def test_nan_in_the_last_norm_makes_every_phase_of_a_characterization_invalid(micro: Micro, tmp_path: Path) -> None:
    broken = with_weights(micro("lm"), tmp_path / "broken.safetensors", broken_end)
    run = characterized(micro("lm"), tmp_path / "run", broken)
    assert not run.record.valid
    # 3 domains; score: 2 batches of 2 x 12 tokens, decode: 2 batches of 2 sequences and 3 tokens
    assert run.record.reasons == [
        "score: outputs are not finite under static: 144 tokens, first at step 0",
        "decode: outputs are not finite under static: 36 tokens, first at step 0",
    ]


@pytest.mark.usefixtures("device")
def test_nan_in_one_expert_names_its_layer(micro: Micro, tmp_path: Path) -> None:
    broken = with_weights(micro("lm"), tmp_path / "broken.safetensors", broken_expert)
    run = characterized(micro("lm"), tmp_path / "run", broken)
    # static gating multiplies the outputs of all experts, by 0 if a token did not choose them: NaN reaches every token
    assert run.record.reasons == [
        "score: outputs are not finite under static: 144 tokens, first in layer 1, step 0",
        "decode: outputs are not finite under static: 36 tokens, first in layer 1, step 0",
    ]


@pytest.mark.usefixtures("device")
def test_without_padding_only_tokens_of_the_broken_expert_count(micro: Micro, tmp_path: Path) -> None:
    broken = with_weights(micro("lm"), tmp_path / "broken.safetensors", broken_expert)
    run = studied(micro("lm"), tmp_path / "run", broken)
    for phase in ("score", "decode"):
        trace = run.trace(phase, DYNAMIC.label)
        assert trace is not None
        used = trace.column("expert") == EXPERT
        tokens = len(set(zip(trace.column("sequence")[used], trace.column("position")[used], strict=True)))
        first = trace.column("step")[used].min()
        assert 0 < tokens < len(set(zip(trace.column("sequence"), trace.column("position"), strict=True)))
        assert (
            f"{phase}: outputs are not finite under {DYNAMIC.label}: {tokens} tokens, first in layer 1, step {first}"
            in run.record.reasons
        )


@pytest.mark.usefixtures("device")
def test_variants_that_share_what_is_not_finite_are_not_said_to_differ(micro: Micro, tmp_path: Path) -> None:
    broken = with_weights(micro("lm"), tmp_path / "broken.safetensors", broken_end)
    run = studied(micro("lm"), tmp_path / "run", "load.phases=['score']", "gating.capacity_fraction=1.0", broken)
    assert run.record.reasons == [
        f"score: outputs are not finite under {variant}: 144 tokens, first at step 0" for variant in ("static", "dynamic+loop")
    ]
    assert values(run, "token_agreement", phase="score", variant="dynamic+loop") == {(): 0.0}
    assert not values(run, "output_max_abs_diff", phase="score", variant="dynamic+loop")
    report = render(run, "markdown")
    assert "NO: not finite" in report
    assert "Scoring: outputs are not finite, so no speed-up is reported." in report
    assert "NOT FINITE on 72 of 72 compared tokens" in report


@pytest.mark.usefixtures("device")
def test_a_sound_model_records_no_step(micro: Micro, tmp_path: Path) -> None:
    run = characterized(micro("mt"), tmp_path / "run")
    assert run.record.valid
    assert run.raw(NOT_FINITE).num_rows == 0


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("bad", [NAN, float("inf"), float("-inf")])
def test_padding_does_not_count(bad: float) -> None:
    check, step = FiniteCheck(), Step(torch.tensor([True, False, True]), phase="score", index=7, domain="prose")
    check.add("1", step, torch.tensor([[0.0, bad], [bad, 0.0], [1.0, 2.0]]))
    check.add("", Step(None, token_T=np.zeros(1, np.int32)), torch.ones(1, 2))
    (row,) = check.rows("score", "static")
    assert row == {"phase": "score", "variant": "static", "domain": "prose", "layer": "1", "step": 7, "tokens": 1}
