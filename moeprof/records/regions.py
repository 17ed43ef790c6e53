"""The regions of a step, to which time, memory and traffic are attributed; regions never overlap."""

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
"""The regions inside an MoE layer, in order of execution."""

MODEL_REGIONS = ("embed", "attention", "cross_attention", "dense_ffn", "head")
"""The regions outside the MoE layers."""

OTHER = "other"
"""The part of a step that belongs to no other region."""

RegionKey = tuple[str, str]
"""Region and layer."""

REGIONS = (*LAYER_REGIONS, *MODEL_REGIONS, OTHER)
