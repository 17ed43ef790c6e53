"""The metric registry and the rows of `metrics.csv`."""
