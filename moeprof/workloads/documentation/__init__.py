"""English text for training: the documentation in a pinned source distribution on the package index."""

from moeprof.workloads.documentation.documents import documentation
from moeprof.workloads.documentation.source import known_distribution, store

__all__ = ["documentation", "known_distribution", "store"]
