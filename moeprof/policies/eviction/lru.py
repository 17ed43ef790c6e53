"""Least recently used."""

from moeprof.policies.eviction.eviction import Eviction, lowest

LRU = Eviction("lru", (lowest("used"),))
