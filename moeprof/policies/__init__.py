"""What leaves a full cache, where experts are placed, and what offloading systems decide; numpy and numba only, deterministic."""
