"""The raw tables of a run directory: what its passes record, a Parquet file each, and what the rows of `metrics.csv` are derived from.

`routing/`, `loads.parquet`, `traffic.parquet` and `memory.parquet` are raw records too; they have modules of their own. Times are
nanoseconds, sizes bytes; `rank` is the process that recorded a row, `domain` and `layer` are empty if a row is about all of them.
"""

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class RawTable:
    """One file of rows that a pass records; a column of `optional` may be null."""

    name: str
    strings: tuple[str, ...]
    integers: tuple[str, ...] = ()
    floats: tuple[str, ...] = ()
    booleans: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    @property
    def file_name(self) -> str:
        """The name of its file in a run directory."""
        return f"{self.name}.parquet"

    @property
    def schema(self) -> pa.Schema:
        """Columns in order: names, whole numbers, fractions, flags."""
        kinds = (
            (self.strings, pa.string()),
            (self.integers, pa.int64()),
            (self.floats, pa.float64()),
            (self.booleans, pa.bool_()),
        )
        return pa.schema([pa.field(name, kind, nullable=name in self.optional) for names, kind in kinds for name in names])


ROUNDS = RawTable(
    "rounds",
    ("pass", "phase", "variant", "point", "domain"),
    ("rank", "round", "time_ns", "steps", "tokens"),
)
"""Every timed round of every pass, as each rank timed it; `steps` and `tokens` (padding left out) are those of one round of the rank."""

DECODE_TIMES = RawTable("decode_times", ("phase", "variant", "domain", "part"), ("rank", "round", "step", "time_ns"))
"""What decoding consists of, in rounds of the pass `time`: `part` is `decode` for every step of a round of `rounds`, and `prefill` (of a
prompt) or `encode` (of a source) for what precedes the steps, in rounds of its own."""

REGIONS = RawTable("regions", ("phase", "variant", "domain", "region", "layer"), ("rank", "round", "time_ns"))
"""Time of every region and layer in the observed rounds of the pass `breakdown`; with `other` they add up to a round."""

STEPS = RawTable(
    "steps",
    ("phase", "variant", "domain", "layer"),
    ("rank", "step", "rows", "tokens", "expert_rows"),
    booleans=("judged",),
)
"""Every forward pass of the pass `routing`, layer by layer: `rows` S with padding, `tokens` without, `expert_rows` that the layer handed
to its experts; `judged` is false for the steps that placements are made from."""

GATE_ENTROPIES = RawTable("gate_entropies", ("phase", "variant", "domain", "layer"), ("rank", "tokens"), ("entropy_nats",))
"""Entropy of the router's softmax in every step, summed over the step's tokens."""

FATES = ("routed", "padding", "skipped", "zero_compute", "dropped", "sentinel")
"""What becomes of a choice: an expert computes it, the row is padding, the router skips the experts, the expert has no weights, it is full,
or it is on another rank."""

EXPERT_CALLS = RawTable("expert_calls", ("phase", "variant", "domain", "layer", "backend"), ("rank", "calls", *FATES))
"""Calls of the experts of a Hugging Face model in the pass `routing`, by what computed them, and their choices by what became of them:
together rows x K, padding included."""

EXPERT_COUNTS = RawTable("expert_counts", ("domain", "layer"), ("step", "expert", "choices"))
"""Counts that were characterized: the choices of every expert in every step, where there are any; totals are one step."""

CACHE_SAMPLE = RawTable(
    "cache_sample",
    ("phase", "policy", "layer"),
    ("slots", "rank", "step", "expert", "victim"),
    booleans=("hit",),
)
"""The first accesses of a replayed cache of the recommended policy and size, layer by layer, from an empty cache: `rank` is the device,
`step` the number of the batch in the layer, `victim` the expert that was evicted, -1 if none was."""

AGREEMENT = RawTable(
    "agreement",
    ("phase", "variant", "layer"),
    ("rank", "compared", "differing", "tokens", "flips", "jumps", "agreeing"),
    ("max_abs_diff",),
    optional=("tokens", "flips", "jumps", "agreeing"),
)
"""Comparison of a variant's outputs with the baseline's: a row per MoE layer on the same inputs, and one with an empty `layer` end to
end, which alone has all `tokens`, routing `flips` (near-ties), `jumps` (other routing) and `agreeing` next tokens."""

NOT_FINITE = RawTable("not_finite", ("phase", "variant", "domain", "layer"), ("rank", "step", "tokens"))
"""Steps of the pass `routing` in which outputs were NaN or infinite, and for how many tokens: a row per MoE layer, and one with an empty
`layer` for the outputs of the whole model."""

FOOTPRINTS = RawTable("footprints", ("phase", "variant", "measure", "name"), ("rank", "bytes"))
"""Memory of one batch: `measure` is `static`, `dynamic` (the peak), `at_peak` and `category` (by category) or `region` (by region)."""

SCORES = RawTable("scores", ("phase", "variant", "domain"), ("rank", "tokens", "bytes"), ("nats",))
"""Cross-entropy of the predicted tokens, summed per domain, beside their number and their bytes of UTF-8."""

TRANSLATIONS = RawTable(
    "translations",
    ("phase", "variant", "domain", "translation", "reference"),
    ("rank", "sentence", "sequence"),
    optional=("sentence", "sequence"),
)
"""Greedy translations of sentences or of their pieces, beside the references of the whole sentences: `sentence` is the number of the
sentence in its domain, `sequence` orders its pieces over all ranks; both are null in runs of older versions, which had no pieces."""

MOVES = RawTable("moves", ("phase", "variant"), ("rank", "received_bytes", "time_ns"))
"""Deployment of a placement: expert weights that a rank received from others, and the time until it had them."""

STALLS = RawTable(
    "stalls",
    ("pass", "phase", "variant", "point", "domain", "layer"),
    ("rank", "round", "load_ns", "stall_ns", "hideable_ns", "bytes"),
)
"""Expert loads of every layer in the observed rounds of the passes `loads` and `slots`, summed over the steps of a round."""

UNIT_EVENTS = RawTable("unit_events", ("phase", "variant", "domain", "layer", "precision", "event"), ("rank", "count", "bytes"))
"""What offloading stores did in the pass `routing`, or would do in a replay, from a cold start: uses by `event` (`hit`, `foreseen`,
`demand`, `skip`, `far`) and prefetches, and the bytes that they load."""

MOVEMENTS = RawTable(
    "movements", ("phase", "variant", "domain", "layer", "precision", "reason", "tier"), ("rank", "count", "bytes")
)
"""Experts that a ledger moved in the pass `routing`, from a cold start: for which `reason` (`demand`, `prefetch`, or `preload`, which
is into host memory only), and from which `tier` (`weights`, `host`, `file`). A prefetch that was given up before it began is not among
them, and one that ends in a later step counts there."""

BATCHES = RawTable(
    "batches",
    ("phase", "variant", "reason"),
    ("batch", "budget_bytes", "memory_bytes", "rank"),
    booleans=("fits",),
    optional=("memory_bytes",),
)
"""Every batch that the pass `sweep` tried: whether it fits the memory budget, and what it needs where that is known."""

ENERGY = RawTable("energy", ("phase", "variant", "point"), ("rank", "tokens"), ("energy_mj",))
"""Energy that the device used in the timed rounds of the pass `slots`, millijoules."""

RAW_TABLES = (
    *(
        ROUNDS,
        DECODE_TIMES,
        REGIONS,
        STEPS,
        GATE_ENTROPIES,
        EXPERT_CALLS,
        EXPERT_COUNTS,
        CACHE_SAMPLE,
        AGREEMENT,
        NOT_FINITE,
        FOOTPRINTS,
        SCORES,
        TRANSLATIONS,
    ),
    *(MOVES, STALLS, UNIT_EVENTS, MOVEMENTS, BATCHES, ENERGY),
)

TIME, BREAKDOWN, OBSERVED, TRAFFIC, LOADS, SLOTS, SWEEP, BEST = (
    *("time", "breakdown", "breakdown observed", "traffic", "loads", "slots", "sweep", "best batches"),
)
"""Values of the column `pass`. `breakdown` are the rounds without the region timer that alternate with the observed ones; `sweep` are
short rounds at every batch tried, `best batches` those of all variants, each at its best batch."""
