"""Carbon of offloading systems as M2Cache reckons it (arXiv 2410.14740): arithmetic on measured times, with the constants of its text.

Only the power of memory and disk counts, not that of processors; a number of another place is proportional to its intensity.
"""

from collections.abc import Iterator

from moeprof.analysis.model_size import behind_bytes, static_bytes
from moeprof.analysis.timing.timing import summed, timings_of
from moeprof.records.metrics.registry import MetricRow, Samples
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import Variant
from moeprof.records.run.raw_tables import TIME
from moeprof.records.run.run import Run

MEMORY_W_PER_BYTE = 26 / (256 * 10**9)
DISK_W = 2.0
GRAMS_PER_J = 820 / 3.6e6
"""820 g of CO2 per kWh."""
TOKENS = 1000


def carbon_rows(run: Run) -> Iterator[Samples]:
    """`carbon` of every variant with experts in every timed phase, if an offloading system is among them."""
    variants = run.record.variants_by_label
    if not any(variant.system for variant in variants.values()):
        return
    for (phase, _), timings in timings_of(run, TIME).items():
        for whole in summed(timings):
            if (variant := variants[whole.variant]).dense:
                continue
            grams = watts(run.record.ran, variant) * TOKENS / whole.throughput * GRAMS_PER_J
            yield MetricRow("carbon", grams, run.record.workload, phase, variant=whole.variant, forced=run.record.forced), []


def watts(recipe: Recipe, variant: Variant) -> float:
    """Power of the memory that holds weights, and of the disk if experts are in a file; on a GPU they are in host memory."""
    held, on_disk = static_bytes(recipe, variant) + variant.host_bytes, variant.in_slots
    if on_disk and recipe.measure.device == "cuda":
        held, on_disk = held + behind_bytes(recipe, recipe.buffered_layers(variant)), False
    return held * MEMORY_W_PER_BYTE + DISK_W * on_disk
