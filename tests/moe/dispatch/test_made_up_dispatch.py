"""A dispatch that one call registered is known everywhere: nothing else in moeprof lists dispatches by name."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from moeprof.analysis.model_size import memory_need
from moeprof.analysis.routing.capacity import StepSize, capacity_metrics
from moeprof.analysis.timing.bottleneck import dominant
from moeprof.instrument.step import Step
from moeprof.moe.dispatch import FUNCTIONS, tutel
from moeprof.moe.dispatch.indexed import IndexedDispatched
from moeprof.moe.exchange import LOCAL, Exchange
from moeprof.moe.routing import Routing
from moeprof.records.recipe.dispatch import DISPATCHES, Dispatch, register
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.variant import DENSE, Variant, baselines, timed_variants
from moeprof.records.run.run import Run
from moeprof.reporters.names import name_of
from tests.records.run.runs import value_of
from tests.studies.runs import studied

from ..drawn import make_layer, make_recipe, tokens, under

Call = Callable[..., tuple[int, str, str]]

MADE_UP = Dispatch("halves", "gating by halves", f"{__name__}:dispatch", padded=True, capacity="fraction", baseline=True)
calls: list[int] = []
"""Tokens of each step that the made-up dispatch was given."""


def dispatch(x_TD: Tensor, routing: Routing, capacity_fraction: float, exchange: Exchange = LOCAL) -> IndexedDispatched:
    """Tutel's, counted."""
    calls.append(len(x_TD))
    return tutel.dispatch(x_TD, routing, capacity_fraction, exchange)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One call registers it; commands list their choices when they are loaded, so `optimize` is loaded again."""
    monkeypatch.delitem(sys.modules, "moeprof.cli.optimize", raising=False)
    calls.clear()
    register(MADE_UP)
    yield
    del DISPATCHES["halves"]
    FUNCTIONS.pop("halves", None)
    sys.modules.pop("moeprof.cli.optimize", None)


def test_a_taken_name_is_refused() -> None:
    with pytest.raises(ValueError, match="halves"):
        register(MADE_UP)


def test_it_can_be_a_baseline_and_be_timed() -> None:
    assert baselines()["halves"] == timed_variants()["halves"] == Variant("halves")
    assert list(baselines()) == ["static", "tutel", "tutel-dropless", "halves", "dense"]


def test_its_capacity_follows_its_rule() -> None:
    """Room for ceil(0.25 x 10) = 3 tokens in each of 24 experts."""
    recipe = load_recipe("lm-tiny", overrides=["model.experts=24", "gating.capacity_fraction=0.25"])
    assert capacity_metrics(recipe, "halves+bmm", [StepSize("prose", 10, 10, 72)])["capacity"] == 3


def test_the_advice_knows_that_it_pads_and_has_no_mask() -> None:
    experts, combine = (dominant({region: 0.5}, variant="halves", waste=4.0) for region in ("experts", "combine"))
    assert experts is not None
    assert "4.0 slots per slot required" in experts.sentence
    assert combine is not None
    assert "mask" not in combine.sentence


def test_reports_call_it_by_its_title() -> None:
    assert name_of("halves+greedy") == "gating by halves with greedy placement"


def test_its_memory_is_that_of_padded_buffers() -> None:
    recipe = load_recipe("lm-small")
    padded, needed, token = (memory_need(recipe, 8, [Variant(name), DENSE]) for name in ("static", "halves", "dynamic"))
    assert padded == needed != token


def test_it_is_timed_swept_and_reported_as_a_baseline_then_replayed_and_forced(
    moeprof: Call, micro: Callable[[str], Path], tmp_path: Path
) -> None:
    out, recipe = tmp_path / "run", micro("lm")
    limits = ("--set", "load.phases=['score']", "--set", "budget.memory=300KiB")
    code, report, stderr = moeprof(
        "optimize", recipe, "--dynamic-gating", "--kernel", "loop", "--against", "halves", *limits, "--out", out
    )
    assert (code, stderr) == (0, "")
    assert "gating by halves; outputs are equal." in " ".join(report.split())  # faster, or no measurable difference
    run = Run.open(out)
    assert value_of(run, "best_batch", phase="score", variant="halves")
    assert value_of(run, "speedup_max_throughput", phase="score", variant="dynamic+loop", category="halves")
    assert value_of(run, "capacity", phase="score", variant="halves") == 12  # ceil(0.5 x 2 x 12)

    assert moeprof("replay", out, "--cache", "--variant", "halves", "--slots", "2", "--out", tmp_path / "replay")[0] == 0
    assert "halves" in (tmp_path / "replay" / "report.md").read_text()

    (trace,) = (out / "routing").glob("*halves*")
    overrides = ("load.phases=['score']", f"routing.source=trace:{trace}")
    again = studied(recipe, tmp_path / "forced", *overrides, variants=[Variant("halves")], against=())
    recorded = [one.trace("score", "halves") for one in (run, again)]
    assert recorded[0] is not None
    assert recorded[1] is not None
    columns = ["sequence", "position", "layer", "expert", "dropped"]
    assert recorded[0].table.select(columns).equals(recorded[1].table.select(columns))


def test_a_layer_runs_it_by_its_name() -> None:
    """It hands out the same rows as Tutel, so the outputs are equal."""
    layer, x_TD = make_layer(make_recipe(experts=4, capacity_fraction=0.5)), tokens(12, 4)
    expected, found = (under(layer, x_TD, Step(None), Variant(name)) for name in ("tutel", "halves"))
    assert torch.equal(found, expected)
    assert calls == [12]
