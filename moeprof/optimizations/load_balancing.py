"""Load balancing: experts move to other ranks, or get replicas, so that all ranks get equal load (paper section VII)."""

from dataclasses import replace
from pathlib import Path

from moeprof.optimizations.optimization import Optimization, Option, Settings
from moeprof.records.errors import UsageError
from moeprof.records.limits import MAX_EXPERTS
from moeprof.records.placement import Placement
from moeprof.records.recipe.model import HuggingFaceSection
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import Variant

PLAIN, COPYING = "greedy", "eplb-distinct"
"""Default balancers: without replicas, and with replicas."""


def apply(variant: Variant, settings: Settings, recipe: Recipe) -> Variant:
    """The variant with the placement of a balancer or a file; UsageError if it does not fit the recipe."""
    copies, balancer, path = number(settings["replicas"]), settings["balancer"], settings["placement"]
    if path and (balancer or copies):
        raise UsageError("--placement: cannot be combined with --balancer or --replicas", "Remove --placement or the others.")
    if path:
        return from_file(variant, Path(str(path)), recipe)
    name = str(balancer or (COPYING if copies else PLAIN))
    check(name, copies, recipe)
    return replace(variant, placement=name, replicas=copies)


def number(replicas: str | bool | None) -> int:
    """The number of replicas; UsageError if the text is not a number."""
    text = str(replicas or 0)
    if not text.isdecimal() or len(text) > len(str(MAX_EXPERTS)) or int(text) > MAX_EXPERTS:
        raise UsageError(f"--replicas {text}: not a number of slots", f"Give a number from 0 to {MAX_EXPERTS}.")
    return int(text)


def check(name: str, copies: int, recipe: Recipe) -> None:
    """UsageError if the balancer cannot place the experts of the recipe on its ranks with `copies` more slots each."""
    from moeprof.policies.balancing import registry
    from moeprof.policies.balancing.balancer import Cluster
    from moeprof.policies.balancing.contiguous import CONTIGUOUS

    balancer = registry.find_balancer(name)
    if balancer is CONTIGUOUS:
        raise UsageError(f"--balancer {name}: this is the default placement", "Choose an algorithm that moves experts.")
    if copies and balancer.replicates and balancer.repeats:
        raise UsageError(
            f"--balancer {name}: it may place two copies of an expert on one rank, which does not reduce its load",
            f"Use {COPYING}.",
        )
    experts, ranks = recipe.model.experts, recipe.parallel.ranks
    registry.check(balancer, experts, Cluster(ranks, experts // ranks + copies))


def from_file(variant: Variant, path: Path, recipe: Recipe) -> Variant:
    """The variant with the placement of a file; UsageError if it is for another model or number of ranks."""
    placement = Placement.read(path)
    placement.fits(path, recipe)
    most = max(len(held) for ranks in placement.layers.values() for held in ranks)
    share = recipe.model.experts // recipe.parallel.ranks
    return replace(variant, placement="file", replicas=most - share, placement_file=str(path))


def why_not_applicable(recipe: Recipe) -> str:
    """A reason if the recipe has a single rank."""
    if isinstance(recipe.model, HuggingFaceSection):
        return "a Hugging Face model runs on one rank (use `replay --balance` on the run's trace)"
    return "" if recipe.parallel.ranks > 1 else "a single rank has nothing to balance (use --ranks N)"


LOAD_BALANCING = Optimization(
    name="load-balancing",
    help="Place experts so that all ranks get equal load, based on earlier batches.",
    apply=apply,
    options=(
        Option(
            name="balancer",
            metavar="NAME",
            help=f"Placement algorithm; default: {PLAIN}, with --replicas {COPYING}.",
        ),
        Option(name="replicas", metavar="N", help="Extra slots per layer and rank for copies of hot experts; default: 0."),
        Option(name="placement", metavar="FILE", help="Deploy the placement in FILE instead of computing one."),
    ),
    needs=("dynamic-gating",),
    why_not_applicable=why_not_applicable,
)
