"""What expert buffering saves in memory and costs on the link (paper 5.4, 5.5): closed forms, bytes of one device."""

from moeprof.analysis.model_size import routed_bytes, weight_bytes
from moeprof.records.recipe.model import AnyModel
from moeprof.records.run.replay import TraceSource
from moeprof.records.units import NS_PER_S


def weights_of(model: AnyModel) -> dict[str, int]:
    """Bytes of the whole model, and of all experts of all layers."""
    return {"weight_bytes": weight_bytes(model), "routed_bytes": routed_bytes(model)}


def resident_bytes(trace: TraceSource, num_devices: int) -> dict[str, int]:
    """Bytes of each replayed layer's experts on a device without buffering."""
    return {layer: size * trace.num_experts // num_devices for layer, size in trace.expert_bytes.items()}


def saved_by_slots(trace: TraceSource, slots: int, num_devices: int) -> dict[str, int]:
    """Bytes saved in each replayed layer: (E / devices - slots) x bytes of an expert."""
    return {layer: (trace.num_experts // num_devices - slots) * size for layer, size in trace.expert_bytes.items()}


def saved_by_budget(trace: TraceSource, budget: int, num_devices: int) -> int:
    """Bytes saved over all replayed layers by one budget for all of them."""
    return max(0, sum(resident_bytes(trace, num_devices).values()) - budget)


def static_bytes(trace: TraceSource, num_devices: int) -> int | None:
    """All weights of a device without buffering: a share of the experts and all other weights; None if the model is unknown."""
    if trace.weight_bytes is None:
        return None
    return trace.weight_bytes - trace.routed_bytes + trace.routed_bytes // num_devices


def copy_ns(size_bytes: float, bandwidth: int) -> float:
    """Time on a link of `bandwidth` bytes per second."""
    return size_bytes / bandwidth * NS_PER_S
