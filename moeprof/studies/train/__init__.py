"""`moeprof train`: trains the small checkpoints that come with the package, and measures their quality."""
