"""The names under which a step's time, memory and traffic are booked; regions never overlap."""

LAYER_REGIONS = (
    "gate",
    "dispatch",
    "a2a_sizes",
    "a2a_dispatch",
    "expert_load",
    "experts",
    "shared_experts",
    "a2a_combine",
    "combine",
)
"""Inside an MoE layer, in the order in which they happen."""

MODEL_REGIONS = ("embed", "attention", "cross_attention", "dense_ffn", "head")
"""Outside the MoE layers."""

OTHER = "other"
"""The remainder of the step."""

REGIONS = (*LAYER_REGIONS, *MODEL_REGIONS, OTHER)
