"""The optimizations by name: their order, their options, how they build on each other, and that nobody needs torch to list them."""

import re
import subprocess
import sys
from dataclasses import replace

import pytest

from moeprof.moe.kernels import KERNELS
from moeprof.optimizations import registry
from moeprof.optimizations.optimization import Optimization, Settings
from moeprof.optimizations.registry import OPTIMIZATIONS, optimized, useful
from moeprof.records.errors import UsageError
from moeprof.records.recipe.dispatch import DISPATCHES
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import STATIC, Variant

DEFAULTS = {option.name: option.default for one in OPTIMIZATIONS.values() for option in one.options}
RECIPE = load_recipe("lm-tiny", [])


def buffered(variant: Variant, settings: Settings, recipe: Recipe) -> Variant:
    return replace(variant, store=str(settings.get("policy", "lifo")))


def balanced(variant: Variant, settings: Settings, recipe: Recipe) -> Variant:
    return replace(variant, placement="greedy")


@pytest.fixture
def three(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the first and two more: one on top of it, and one by itself that a recipe of one rank has no use for."""
    buffering = Optimization("buffering", "Fewer experts on the device.", buffered, needs=("dynamic-gating",))
    balancing = Optimization(
        "balancing",
        "Even.",
        balanced,
        why_not_applicable=lambda recipe: "" if recipe.parallel.ranks > 1 else "there is one rank",
    )
    for name in list(OPTIMIZATIONS)[1:]:
        monkeypatch.delitem(OPTIMIZATIONS, name)
    for other in (buffering, balancing):
        monkeypatch.setitem(OPTIMIZATIONS, other.name, other)


def labels(names: list[str], *, alone: bool = False, ranks: int = 2, **settings: str) -> list[str]:
    recipe = load_recipe("lm-tiny", [f"parallel.ranks={ranks}"])
    return [variant.label for variant in optimized(names, DEFAULTS | settings, recipe, alone=alone)]


def test_dynamic_gating_comes_first() -> None:
    assert next(iter(OPTIMIZATIONS)) == "dynamic-gating"


@pytest.mark.parametrize("name", OPTIMIZATIONS)
def test_every_optimization_is_named_as_a_flag_and_helps_in_a_line(name: str) -> None:
    one = OPTIMIZATIONS[name]
    assert one.name == name
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name)
    assert one.help.endswith(".")
    assert "\n" not in one.help
    for option in one.options:
        assert option.default in option.choices or not option.choices
        assert option.help.endswith(".")


def test_no_two_optimizations_share_an_option() -> None:
    names = [option.name for one in OPTIMIZATIONS.values() for option in one.options]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("kernel", ["auto", "loop", "grouped_mm"])
def test_dynamic_gating_changes_the_dispatch_and_takes_the_kernel_asked_for(kernel: str) -> None:
    (variant,) = optimized(["dynamic-gating"], {"kernel": kernel}, RECIPE)
    assert variant == replace(STATIC, dispatch="dynamic", kernel=kernel)
    assert variant.label == ("dynamic" if kernel == "auto" else f"dynamic+{kernel}")


def test_every_choice_of_a_kernel_exists_and_so_does_the_dispatch() -> None:
    for kernel in next(option for option in OPTIMIZATIONS["dynamic-gating"].options if option.name == "kernel").choices:
        assert kernel in KERNELS
    assert optimized(["dynamic-gating"], DEFAULTS, RECIPE)[0].dispatch in DISPATCHES


@pytest.mark.usefixtures("three")
def test_each_is_applied_on_top_of_the_ones_before() -> None:
    assert labels(list(OPTIMIZATIONS)) == ["dynamic", "dynamic+lifo", "dynamic+lifo+greedy"]


@pytest.mark.usefixtures("three")
def test_alone_each_is_applied_to_what_it_needs_and_no_more() -> None:
    assert labels(list(OPTIMIZATIONS), alone=True) == ["dynamic", "dynamic+lifo", "static+greedy"]


@pytest.mark.usefixtures("three")
def test_the_order_is_the_registrys_and_not_the_users() -> None:
    assert labels(["balancing", "dynamic-gating"]) == ["dynamic", "dynamic+greedy"]


@pytest.mark.usefixtures("three")
def test_what_one_needs_is_applied_before_it_and_told_by_itself() -> None:
    assert labels(["balancing", "buffering"], policy="mru") == ["dynamic", "dynamic+mru", "dynamic+mru+greedy"]
    assert labels(["buffering"]) == ["dynamic", "dynamic+lifo"]


@pytest.mark.usefixtures("three")
def test_one_that_a_recipe_has_no_use_for_is_an_error_by_name_and_a_remark_otherwise() -> None:
    with pytest.raises(UsageError, match="--balancing: there is one rank"):
        labels(["balancing"], ranks=1)
    assert useful(RECIPE) == (["dynamic-gating", "buffering"], ["balancing was left out: there is one rank"])


def test_none_named_is_none_applied() -> None:
    assert optimized([], DEFAULTS, RECIPE) == []


def test_the_registry_needs_no_torch() -> None:
    code = f"import sys, {registry.__name__}; print(sorted(set(sys.modules) & {{'torch', 'numpy', 'pandas'}}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "[]"
