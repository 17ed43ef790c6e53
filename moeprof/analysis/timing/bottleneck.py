"""Which region dominates a step, why, and what would move it, in words."""

from collections.abc import Mapping
from dataclasses import dataclass

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.recipe.dispatch import Dispatch, dispatch_of
from moeprof.records.regions import MODEL_REGIONS, REGIONS


@dataclass(frozen=True)
class Bottleneck:
    """The region that takes the largest part of a step."""

    region: str
    share: float
    sentence: str


CAUSES = {
    "gate": "it scores every expert for every token, whatever the gating; fewer experts or a narrower model move it",
    "dispatch": "it copies every token's row to its experts; memory bandwidth bounds it",
    "a2a_sizes": "ranks wait for each other's counts; balancing the load or fewer ranks move it",
    "a2a_dispatch": "tokens travel to the ranks of their experts; balancing the load or fewer ranks move it",
    "expert_load": "weights are fetched when they are needed; more slots or better balance between devices move it",
    "experts": "each expert computes the tokens it was sent; larger batches or a grouped kernel use the machine better",
    "shared_experts": "every token passes them, whatever the gating",
    "a2a_combine": "tokens travel back from the ranks of their experts; balancing the load or fewer ranks move it",
    "combine": "it adds up the rows of every token's experts; memory bandwidth bounds it",
    "other": "it is work between the regions, mostly Python and kernel launches; larger batches spread it",
}
"""What a region does when nothing is padded, and what moves it."""

MASK = "it multiplies with a mask that has one column per slot, so it grows with the square of the tokens; {remedy}"


def bottleneck(metrics: RunMetrics, phase: str, variant: str) -> Bottleneck | None:
    """What dominates a step of a phase; None if the run has no breakdown of it."""
    here = metrics.at(phase=phase, variant=variant)
    shares = {region: here.or_none("region_share", region=region) for region in REGIONS}
    known = {region: share for region, share in shares.items() if share is not None}
    return dominant(known, variant=variant, waste=here.or_none("waste_factor"))


def dominant(shares: Mapping[str, float], *, variant: str, waste: float | None = None) -> Bottleneck | None:
    """The largest share of a step and what it means under a variant (by its label); None without shares.

    `waste` is slots processed over slots needed.
    """
    if not shares:
        return None
    region = max(shares, key=lambda name: shares[name])
    share, dispatch = shares[region], dispatch_of(variant)
    sentence = f"{share:.0%} of the step goes to {region}: {cause(region, share, dispatch, waste)}."
    return Bottleneck(region, share, sentence)


def cause(region: str, share: float, dispatch: Dispatch, waste: float | None) -> str:
    """Why a region takes its time under a dispatch, and what would change that."""
    if region in MODEL_REGIONS:
        return "every token passes it, in the dense twin too; no optimization of the MoE layers moves it"
    if dispatch.masked and region in ("dispatch", "combine"):
        return MASK.format(remedy="dynamic gating, or Tutel's scatter, replaces the product by indexing")
    if dispatch.padded and waste and waste > 1:
        if region == "experts":
            return f"it computes {waste:.1f} slots per slot needed; dynamic gating removes that, {ceiling(share, waste)}"
        if region in ("a2a_dispatch", "a2a_combine"):
            return f"it sends {waste:.1f} slots per slot needed; dynamic gating removes that, {ceiling(share, waste)}"
    return CAUSES[region]


def ceiling(share: float, waste: float) -> str:
    """By Amdahl's law: the step without the wasted part of one region, all else as it is."""
    return f"which makes the step at most {1 / (1 - share * (1 - 1 / waste)):.1f}x as fast by itself"
