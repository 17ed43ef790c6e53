"""Most recently used: reaches MIN on a cyclic scan, where LIFO by insertion comes only near it (paper 5.6)."""

from moeprof.policies.eviction.eviction import Eviction, highest

MRU = Eviction("mru", (highest("used"),))
