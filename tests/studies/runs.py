"""Small studies, what they left behind, and a clock on which only dispatching takes time."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from moeprof.analysis.derive import derive
from moeprof.instrument.clock import Clock, wall_clock
from moeprof.models.build import Model, build_model
from moeprof.moe.dispatch import FUNCTIONS, Dispatched, DispatchFunction, dispatch_function
from moeprof.moe.exchange import LOCAL, Exchange
from moeprof.moe.experts import ExpertRows
from moeprof.moe.routing import Routing
from moeprof.records.metrics.registry import KEYS
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import STATIC, Variant
from moeprof.records.run.run import Run, RunRecord
from moeprof.records.run.writer import RunWriter
from moeprof.studies.passes.outputs import check_outputs
from moeprof.studies.progress import Silent
from moeprof.studies.services import Services, VariantRunner, load_models
from moeprof.studies.study import Pass, Study
from moeprof.workloads.tokenizers import EOS
from tests.models.checkpoints import save_checkpoint

Micro = Callable[[str], Path]

TUTEL = Variant(dispatch="tutel")
DYNAMIC = Variant(dispatch="dynamic", kernel="loop")
"""With a kernel that no calibration chooses, so that everything but time is the same in every run."""


def studied(
    recipe: Path,
    out: Path,
    *overrides: str,
    passes: Sequence[Pass] = (),
    variants: Sequence[Variant] = (STATIC, DYNAMIC),
    against: Sequence[Variant] = (STATIC,),
    clock: Callable[[], int] | None = None,
) -> Run:
    """A run of routing, the check of outputs, and these passes."""
    study = Study("optimize", variants, lambda workload: (check_outputs, *passes), against)
    return study.run(load_recipe(str(recipe), overrides), out, clock=clock)


def services_of(
    recipe: Recipe, out: Path, variants: Sequence[Variant], clock: Clock = wall_clock, command: str = "characterize"
) -> Services:
    """What a pass is given, outside of any study; `writer.finish()` derives the rows of what it recorded."""
    labelled: list[dict[str, str | bool | int]] = [{"label": variant.label, **asdict(variant)} for variant in variants]
    writer = RunWriter(out, RunRecord(command=command, recipe=recipe, variants=labelled), derive=derive)
    with torch.inference_mode():
        return Services(recipe, writer, clock, Silent(), VariantRunner(load_models(recipe, variants, Silent())))


def values(run: Run, metric: str, *keys: str, **where: str) -> dict[tuple[str, ...], float]:
    """A metric's values by the cells of these columns, of the rows whose other cells are `where` or, unnamed, empty."""
    table = run.metrics[run.metrics["metric"] == metric]
    for column in set(KEYS) - {"workload", "metric", *keys}:
        table = table[table[column] == where.get(column, "")]
    return {tuple(row[key] for key in keys): row["value"] for _, row in table.iterrows()}


def with_weights(recipe: Path, out: Path, change: Callable[[Model], object], *overrides: str) -> str:
    """An override: the recipe's random weights, changed, as a checkpoint."""
    model = build_model(load_recipe(str(recipe), overrides))
    change(model)
    save_checkpoint(model, out)
    return f"model.checkpoint={out}"


def early_ends(model: Model) -> None:
    """Makes some sentences end at once, some later and some not at all."""
    model.embedding.weight[EOS] *= 2.5


@dataclass(frozen=True)
class Spoiled:
    """A dispatch whose outputs come back changed."""

    sent: Dispatched
    change: Callable[[Tensor], Tensor]

    @property
    def rows(self) -> ExpertRows:
        return self.sent.rows

    @property
    def dropped_TK(self) -> Tensor | None:
        return self.sent.dropped_TK

    def combine(self, outputs_RD: Tensor, scale: float) -> Tensor:
        return self.change(self.sent.combine(outputs_RD, scale))


def spoil(
    monkeypatch: pytest.MonkeyPatch, name: str, change: Callable[[Tensor], Tensor], smallest: int = 0, largest: int = 2**30
) -> None:
    """Changes what a registered dispatch gives back for steps of `smallest` to `largest` rows."""
    usual = dispatch_function(name)

    def dispatch(x_TD: Tensor, routing: Routing, capacity_fraction: float, exchange: Exchange = LOCAL) -> Dispatched:
        sent = usual(x_TD, routing, capacity_fraction, exchange)
        return Spoiled(sent, change) if smallest <= len(x_TD) <= largest else sent

    monkeypatch.setitem(FUNCTIONS, name, dispatch)


class DispatchClock:
    """Stands still but while something is dispatched, which takes as long as `costs` says, by dispatch and rows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, costs: dict[str, Callable[[int], int]]) -> None:
        self.now = 0
        for name, cost in costs.items():
            monkeypatch.setitem(FUNCTIONS, name, partial(self.dispatched, dispatch_function(name), cost))

    def __call__(self) -> int:
        return self.now

    def dispatched(
        self,
        usual: DispatchFunction,
        cost: Callable[[int], int],
        x_TD: Tensor,
        routing: Routing,
        capacity_fraction: float,
        exchange: Exchange = LOCAL,
    ) -> Dispatched:
        """What the usual dispatch gives, some time later."""
        self.now += cost(len(x_TD))
        return usual(x_TD, routing, capacity_fraction, exchange)
