"""Models with gated FFNs pass through the whole of `characterize` and `optimize`, and all variants compute the same."""

from collections.abc import Callable
from pathlib import Path

import pytest

from moeprof.analysis.model_size import static_bytes
from moeprof.records.recipe.variant import DENSE, STATIC, Variant
from moeprof.records.run.run import Run
from tests.records.run.runs import value_of

from .runs import Micro, values

Call = Callable[..., tuple[int, str, str]]
GATED = ("--set", "model.ffn=gated", "--set", "model.activation=silu")
BUFFERED = Variant("dynamic", "loop", "buffered", slots=2, eviction="inactive-first+lifo", buffered="decoder")


@pytest.mark.parametrize(("workload", "bias"), [("lm", "true"), ("mt", "false")])
def test_a_gated_model_is_characterized_and_optimized(
    moeprof: Call, micro: Micro, tmp_path: Path, workload: str, bias: str
) -> None:
    out, chosen = tmp_path / "run", (micro(workload), *GATED, "--set", f"model.ffn_bias={bias}")
    code, report, stderr = moeprof("characterize", *chosen, "--out", out)
    assert (code, stderr) == (0, "")
    assert Run.open(out).record.valid
    assert "dense twin" in report
    optimizations = ("--dynamic-gating", "--expert-buffering", "--kernel", "loop", "--slots", "2", "--no-sweep")
    code, _, stderr = moeprof("optimize", *chosen, *optimizations, "--force", "--out", out)
    assert (code, stderr) == (0, "")
    run = Run.open(out)
    assert run.record.valid
    for variant in ("dynamic+loop", BUFFERED.label):
        assert set(values(run, "output_tokens_differing", "phase", variant=variant).values()) == {0}
    for variant in (STATIC, BUFFERED):
        assert value_of(run, "memory_static", variant=variant.label) == static_bytes(run.record.ran, variant)
    assert static_bytes(run.record.ran, DENSE) < static_bytes(run.record.ran, STATIC)
