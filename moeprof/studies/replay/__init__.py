"""`moeprof replay`: expert caches and placements replayed over a recorded routing trace, without a model."""
