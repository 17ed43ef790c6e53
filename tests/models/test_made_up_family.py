"""A model family that one entry in each registry names runs through a characterization: nothing else lists families."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from torch import Tensor

from moeprof.instrument.step import Step
from moeprof.models.attention import KeyValueCache
from moeprof.models.build import ARCHITECTURES, build_model
from moeprof.models.language_model import LanguageModel
from moeprof.moe.layer import moe_layers
from moeprof.moe.router import ROUTERS, Router
from moeprof.records.recipe.family import FAMILIES, Family
from moeprof.records.run.run import Run

from .shapes import small

Call = Callable[..., tuple[int, str, str]]
passes: list[int] = []
"""Tokens of each forward pass of the made-up model."""


class CountedModel(LanguageModel):
    """The usual language model, which counts."""

    def forward(self, tokens_BL: Tensor, step: Step, caches: Sequence[KeyValueCache] | None = None) -> Tensor:
        passes.append(tokens_BL.numel())
        return super().forward(tokens_BL, step, caches)


class Contrary(Router):
    """Prefers the experts that the usual router likes least."""

    def gates(self, x_TD: Tensor) -> Tensor:
        return super().gates(-x_TD)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "made-up", Family("lm", encoder=False, router="contrary"))
    monkeypatch.setitem(ARCHITECTURES, "made-up", CountedModel)
    monkeypatch.setitem(ROUTERS, "contrary", Contrary)
    passes.clear()


def test_its_model_and_its_router_are_built() -> None:
    model = build_model(small("lm", family="made-up"))
    assert isinstance(model, CountedModel)
    assert [type(layer.router) for layer in moe_layers(model)] == [Contrary, Contrary]


def test_it_is_characterized_and_its_router_decides(moeprof: Call, micro: Callable[[str], Path], tmp_path: Path) -> None:
    """Of four experts the usual router chooses two and the contrary one the other two, as the first MoE layer has equal inputs."""
    chosen = {}
    for family in ("decoder-only", "made-up"):
        out, sets = tmp_path / family, ("--set", f"model.family={family}", "--set", "load.phases=['score']")
        code, report, stderr = moeprof("characterize", micro("lm"), *sets, "--out", out)
        assert (code, stderr) == (0, "")
        assert "scoring" in report
        run = Run.open(out)
        assert run.record.valid
        assert run.record.ran.family_name == family
        trace = run.trace("score", "static")
        assert trace is not None
        columns = ("sequence", "position", "expert")
        rows = zip(*(trace.select(layer="1").column(name).tolist() for name in columns), strict=True)
        chosen[family] = set(rows)
    tokens = {row[:2] for row in chosen["made-up"]}
    assert not chosen["made-up"] & chosen["decoder-only"]
    assert chosen["made-up"] | chosen["decoder-only"] == {(*token, expert) for token in tokens for expert in range(4)}
    assert 2 * 12 in passes
