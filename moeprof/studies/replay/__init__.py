"""`moeprof replay`: what a recorded routing trace says about caches, without a model."""
