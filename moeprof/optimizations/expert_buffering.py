"""Expert buffering: each MoE layer has a few cache slots in fast memory, and all experts in slow memory (paper section V)."""

from dataclasses import replace

from moeprof.analysis.model_size import entry_sizes, local_experts
from moeprof.optimizations.optimization import Optimization, Option, Settings
from moeprof.policies.eviction.registry import DEFAULT, make_eviction
from moeprof.records.errors import UsageError
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import Variant
from moeprof.records.system.disk import why_no_slow_tier
from moeprof.records.system.files import cache_folder
from moeprof.records.units import format_bytes, parse_bytes


def apply(variant: Variant, settings: Settings, recipe: Recipe) -> Variant:
    """The variant with a buffered store; by default there are cache slots for half of the experts of a layer."""
    eviction = make_eviction(str(settings["eviction"]))
    if eviction.needs_future:
        raise UsageError(
            f"--eviction {eviction.name}: this policy needs future accesses, which a running model does not know",
            "Choose another policy, or replay this one with `moeprof replay --cache`.",
        )
    buffered = str(settings["buffer"])
    if not recipe.model.moe_layers_of(buffered):
        raise UsageError(f"--buffer {buffered}: the {buffered} of {recipe.name} has no MoE layer", "Use --buffer all.")
    slots = slots_of(settings, recipe, buffered)
    host_bytes = host_bytes_of(settings, recipe, buffered)
    return replace(variant, store="buffered", slots=slots, eviction=eviction.name, buffered=buffered, host_bytes=host_bytes)


def slots_of(settings: Settings, recipe: Recipe, buffered: str) -> int:
    """Cache slots of each layer on each rank; UsageError if there are none, or more than experts."""
    most, slots, memory = local_experts(recipe), settings["slots"], settings["fast-memory"]
    if slots is not None and memory is not None:
        raise UsageError("--slots and --fast-memory: both are given", "Give slots per layer, or bytes for all layers.")
    if memory is not None:
        layers, sizes = recipe.model.moe_layers_of(buffered), entry_sizes(recipe.model)
        size = sum(sizes[layer] for layer in layers)
        found = int(parsed(f"--fast-memory {memory}", str(memory)) // size)
        if not found:
            raise UsageError(
                f"--fast-memory {memory}: {len(layers)} layers need {format_bytes(size)} for one slot each",
                "Give at least that size.",
            )
        return min(found, most)
    if slots is None:
        return (most + 1) // 2
    if not str(slots).isdecimal() or len(str(slots)) > 9 or not 1 <= int(str(slots)) <= most:
        raise UsageError(
            f"--slots {slots}: a layer of {recipe.name} has {most} experts per rank", f"Give a number from 1 to {most}."
        )
    return int(str(slots))


def host_bytes_of(settings: Settings, recipe: Recipe, buffered: str) -> int:
    """Host memory of each rank between cache slots and file, 0 for none; UsageError if it holds no expert, or all of them."""
    text = settings["host-memory"]
    if text is None:
        return 0
    if recipe.measure.device == "cuda":
        what = f"--host-memory {text}: on a GPU all experts are in host memory, and no file is behind it"
        raise UsageError(what, "Leave it out.")
    layers, sizes = recipe.model.moe_layers_of(buffered), entry_sizes(recipe.model)
    found, whole = parsed(f"--host-memory {text}", str(text)), local_experts(recipe) * sum(sizes[layer] for layer in layers)
    least = max(sizes[layer] for layer in layers) * len(layers)
    if not least <= found < whole:
        raise UsageError(
            f"--host-memory {text}: all experts behind the slots have {format_bytes(whole)}",
            f"Give less than that, and at least {format_bytes(least)}, or leave it out.",
        )
    return found


def parsed(option: str, text: str) -> int:
    """The size in bytes; UsageError if the text is not a size."""
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}", "Set a size such as 2GiB.") from error


def why_not_applicable(recipe: Recipe) -> str:
    """A reason if a layer has a single expert on a rank, or if a CPU run has no disk for its experts."""
    if local_experts(recipe) == 1:
        return "each rank holds a single expert per layer"
    return why_no_slow_tier(cache_folder()) if recipe.measure.device == "cpu" else ""


EXPERT_BUFFERING = Optimization(
    name="expert-buffering",
    help="Keep some experts of a layer in cache slots in fast memory and load the others when a step uses them.",
    apply=apply,
    options=(
        Option(name="slots", metavar="N", help="Cache slots per buffered layer and rank; default: half of its experts."),
        Option(
            name="fast-memory", metavar="SIZE", help="Instead of --slots: bytes per rank for the cache slots of all layers."
        ),
        Option(
            name="host-memory",
            metavar="SIZE",
            help="Bytes per rank of host memory between the cache slots and the file of experts; default: none.",
        ),
        Option(
            name="eviction",
            default=DEFAULT,
            metavar="POLICY",
            help="Eviction policy, named as in `replay --policy`; not min or min-bypass, which need future accesses.",
        ),
        Option(
            name="buffer",
            choices=("decoder", "encoder", "all"),
            default="decoder",
            help="MoE layers to buffer; a language model is a decoder.",
        ),
        Option(name="sweep-slots", is_flag=True, help="Also measure other numbers of cache slots, from one to all experts."),
    ),
    needs=("dynamic-gating",),
    why_not_applicable=why_not_applicable,
)
