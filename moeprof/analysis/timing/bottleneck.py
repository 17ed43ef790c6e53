"""The region that dominates a step, its cause, and the remedy, in words."""

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
    "gate": "It scores every expert for every token under every dispatch; fewer experts or a narrower model reduce it.",
    "dispatch": "It copies each token's row to its experts and is bound by memory bandwidth.",
    "a2a_sizes": "Ranks wait for each other's token counts; a balanced load or fewer ranks reduce it.",
    "a2a_dispatch": "Tokens travel to the ranks of their experts; a balanced load or fewer ranks reduce it.",
    "expert_load": "Expert weights are fetched on demand; more slots or a better balance between devices reduce it.",
    "experts": "Experts compute the tokens routed to them; larger batches or a grouped kernel use the hardware better.",
    "shared_experts": "Every token passes through them, whatever the dispatch.",
    "a2a_combine": "Expert outputs travel back to the ranks of their tokens; a balanced load or fewer ranks reduce it.",
    "combine": "It sums the expert outputs of each token and is bound by memory bandwidth.",
    "other": "It is the work between regions, mostly Python and kernel launches; larger batches amortize it.",
}
"""Cause and remedy of each region if no slot is padding."""

NOT_MOE = "MoE optimizations cannot reduce it."

MASK = (
    "It multiplies by a mask with one column per capacity slot, so its cost grows with the square of the tokens; dynamic gating or "
    "Tutel's scatter replaces the product by indexing."
)


IDLE_GAPS = (
    "On CUDA the time of a region includes gaps in which the GPU waits for the host to launch kernels, so these times do not show "
    "which region bounds the step."
)
"""Beside the breakdown of a run on CUDA, as long as the device's busy time is not measured."""


def includes_idle_gaps(metrics: RunMetrics) -> bool:
    """Whether the times of regions include time in which the device was idle."""
    return metrics.record.recipe is not None and metrics.record.recipe.measure.device == "cuda"


def bottleneck(metrics: RunMetrics, phase: str, variant: str) -> Bottleneck | None:
    """The bottleneck of a phase over all domains; None if the run has no breakdown of it, or its times include idle gaps.

    On an H200 one step of decode spent 0.50 ms in attention under static gating and 2.76 ms in the same attention under dynamic
    gating: the difference is time in which the GPU waited for the host.
    """
    if includes_idle_gaps(metrics):
        return None
    here = metrics.at(phase=phase, variant=variant)
    shares = {region: here.or_none("region_share", region=region) for region in REGIONS}
    known = {region: share for region, share in shares.items() if share is not None}
    return dominant(known, variant=variant, waste=here.or_none("waste_factor"))


def dominant(shares: Mapping[str, float], *, variant: str, waste: float | None = None) -> Bottleneck | None:
    """The largest share of a step with its cause under a variant (given by its label); None without shares.

    `waste` is the number of slots computed per slot required.
    """
    if not shares:
        return None
    region = max(shares, key=lambda name: shares[name])
    share = shares[region]
    return Bottleneck(region, share, f"{region}, {share:.0%} of the step. {cause(region, share, dispatch_of(variant), waste)}")


def cause(region: str, share: float, dispatch: Dispatch, waste: float | None) -> str:
    """Why a region takes its time under a dispatch, and what would reduce it."""
    if region in MODEL_REGIONS:
        return NOT_MOE
    if dispatch.masked and region in ("dispatch", "combine"):
        return MASK
    verb = {"experts": "computes", "a2a_dispatch": "sends", "a2a_combine": "sends"}.get(region)
    if verb and dispatch.padded and waste and waste > 1:
        return (
            f"It {verb} {waste:.1f} slots per slot required; dynamic gating removes the padding, {speed_limit(share, waste)}."
        )
    return CAUSES[region]


def speed_limit(share: float, waste: float) -> str:
    """The speed-up of a step without the padding of one region, by Amdahl's law."""
    return f"for a speed-up of at most {1 / (1 - share * (1 - 1 / waste)):.1f}x on its own"
