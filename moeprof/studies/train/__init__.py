"""`moeprof train`: makes the small checkpoints that come with the package, and measures what they learned."""
