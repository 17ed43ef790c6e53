"""Load balancing as an optimization: what it makes of a variant, and everything that is refused before anything is allocated."""

import json
from pathlib import Path

import pytest

from moeprof.optimizations.registry import optimized, useful
from moeprof.policies.balancing.registry import BALANCERS
from moeprof.records.errors import UsageError
from moeprof.records.placement import Placement
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import Variant

DYNAMIC = Variant(dispatch="dynamic")


def recipe(ranks: int = 2, name: str = "lm-tiny", **settings: object) -> Recipe:
    return load_recipe(name, [f"parallel.ranks={ranks}", *(f"{key}={value}" for key, value in settings.items())])


def balanced(recipe: Recipe, **given: str) -> Variant:
    settings = {"kernel": "auto", "balancer": None, "replicas": None, "placement": None} | given
    return optimized(["load-balancing"], settings, recipe)[-1]


def refused(recipe: Recipe, **given: str) -> str:
    with pytest.raises(UsageError) as caught:
        balanced(recipe, **given)
    assert str(caught.value).count("\n") == 1
    return str(caught.value)


def saved(path: Path, layers: dict[str, list[list[int]]], **changes: object) -> Path:
    """A file for lm-tiny, with some keys changed."""
    document = {"schema_version": 1, "model_hash": "", "num_experts": 32, "layers": layers} | changes
    path.write_text(json.dumps(document))
    return path


def halves(*, reverse: bool = False) -> list[list[int]]:
    """All 32 experts on two ranks."""
    return [list(range(16, 32)), list(range(16))] if reverse else [list(range(16)), list(range(16, 32))]


def test_it_builds_on_dynamic_gating_and_is_greedy_where_nobody_says() -> None:
    variants = optimized(
        ["load-balancing"], {"kernel": "auto", "balancer": None, "replicas": None, "placement": None}, recipe()
    )
    assert variants == [DYNAMIC, Variant(dispatch="dynamic", placement="greedy")]
    assert [variant.label for variant in variants] == ["dynamic", "dynamic+greedy"]
    assert variants[1].unplaced == DYNAMIC
    assert (variants[1].placed, DYNAMIC.placed) == (True, False)


def test_slots_for_copies_bring_a_balancer_that_fills_them() -> None:
    assert balanced(recipe(), replicas="2") == Variant(dispatch="dynamic", placement="eplb-distinct", replicas=2)
    assert balanced(recipe(), replicas="0") == Variant(dispatch="dynamic", placement="greedy")


@pytest.mark.parametrize("name", [name for name in BALANCERS if name != "contiguous"])
def test_every_balancer_can_be_asked_for(name: str) -> None:
    assert balanced(recipe(), balancer=name).placement == name


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"balancer": "gredy"}, "unknown balancer 'gredy'\nDid you mean 'greedy'? "),
        ({"balancer": "contiguous"}, "--balancer contiguous: this is the default placement\n"),
        ({"replicas": "two"}, "--replicas two: not a number of slots\n"),
        ({"replicas": "-1"}, "--replicas -1: not a number of slots\n"),
        ({"replicas": "1", "balancer": "greedy"}, "greedy: 32 experts do not fill 2 devices with 17 slots each"),
        ({"replicas": "1", "balancer": "eplb"}, "--balancer eplb: it may place two copies of an expert on one rank"),
        ({"replicas": "17"}, "eplb-distinct: 33 slots per device, but only 32 different experts\n"),
    ],
)
def test_what_cannot_be_placed_is_refused(given: dict[str, str], what: str) -> None:
    assert refused(recipe(), **given).startswith(what)


def test_one_rank_has_nothing_to_balance() -> None:
    assert refused(recipe(1)).startswith("--load-balancing: a single rank has nothing to balance")
    assert useful(recipe(1))[1] == ["load-balancing was left out: a single rank has nothing to balance (use --ranks N)"]
    assert "load-balancing" in useful(recipe(2))[0]


def test_a_file_is_deployed_and_its_copies_are_known(tmp_path: Path) -> None:
    path = saved(tmp_path / "p.json", {"1": halves(reverse=True), "3": halves()})
    assert balanced(recipe(), placement=str(path)) == Variant("dynamic", placement="file", placement_file=str(path))
    copied = saved(
        tmp_path / "c.json", {"1": [[*rank, extra] for rank, extra in zip(halves(), (16, 0), strict=True)], "3": halves()}
    )
    assert balanced(recipe(), placement=str(copied)).replicas == 1


@pytest.mark.parametrize(
    ("layers", "changes", "what"),
    [
        ({"1": halves()}, {}, "layer 3 is missing"),
        ({"1": halves(), "3": [list(range(16)), list(range(16, 31))]}, {}, "layer 3: expert 31 is on no rank"),
        ({"1": halves(), "3": [[*range(16), 15], [*range(16, 32), 0]]}, {}, "layer 3: expert 15 is listed twice on rank 0"),
        (
            {"1": halves(), "3": [[*range(16), 31], list(range(16, 32))]},
            {},
            "layer 3: its ranks hold between 16 and 17 experts",
        ),
        ({"1": halves(), "3": halves()}, {"model_hash": "a" * 64}, "made for another model: weights aaaaaaaaaaaa, not "),
        ({"1": [[0], [1]], "3": [[0], [1]]}, {"num_experts": 2}, "made for 2 experts, but the model has 32"),
        ({"1": [halves()[0] + halves()[1]], "3": halves()}, {}, "layer 1: made for 1 ranks, not 2"),
    ],
)
def test_a_file_of_something_else_is_refused(
    tmp_path: Path, layers: dict[str, list[list[int]]], changes: dict[str, object], what: str
) -> None:
    path = saved(tmp_path / "p.json", layers, **changes)
    assert refused(recipe(), placement=str(path)).startswith(f"placement {path}: {what}")


def test_a_file_that_is_not_there_and_one_beside_a_balancer_are_refused(tmp_path: Path) -> None:
    assert refused(recipe(), placement=str(tmp_path / "none.json")).startswith(f"placement {tmp_path}/none.json: no such file")
    for other in ({"balancer": "greedy"}, {"replicas": "1"}):
        assert refused(recipe(), placement="p.json", **other).startswith("--placement: cannot be combined")


def test_random_weights_have_a_hash_too(tmp_path: Path) -> None:
    from moeprof.records.recipe.weights import weights_hash

    small = recipe(name="lm-small")
    placement = Placement.contiguous(small.model.moe_layers_of("all"), small.model.experts, 2)
    path = tmp_path / "p.json"
    Placement(placement.num_experts, placement.layers, weights_hash(small)).write(path)
    assert balanced(small, placement=str(path)).placement == "file"
    assert "made for another model" in refused(recipe(name="lm-small", **{"measure.seed": 1}), placement=str(path))
