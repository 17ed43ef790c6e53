"""Whether the best batch of a variant is known: a search through noise finds a batch, but not the best one."""

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.analysis.timing.batch_search import DIP, dips


def why_undecided(metrics: RunMetrics, phase: str, variant: str) -> str:
    """Why a variant's best batch is not known, as a clause; empty if nothing speaks against it, or nothing was searched."""
    here = metrics.at(phase=phase, variant=variant)
    curve = here.curve("throughput", "batch")
    if found := dips(curve):
        batch, depth = max(found, key=lambda dip: dip[1])
        return f"throughput falls by {depth:.0%} at batch {batch} and rises again"
    best, again, high = map(here.or_none, ("best_batch", "max_throughput", "max_throughput_high"))
    if best is None or again is None:
        return ""
    batch, rate = max(
        ((batch, rate) for batch, rate in curve if batch != int(best)), key=lambda pair: pair[1], default=(0, 0.0)
    )
    if rate > (high or again) * (1 + DIP):
        return f"batch {batch} was faster by {rate / again - 1:.0%} than batch {best:.0f} was when it was measured again"
    return ""
