"""The MoE layer: router, dispatch, experts, combine."""
