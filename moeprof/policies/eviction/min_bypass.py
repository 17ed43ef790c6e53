"""Belady's MIN that may use an expert without keeping it, so that an expert seen once pushes nobody out: never above MIN."""

from moeprof.policies.eviction.eviction import Eviction, highest

MIN_BYPASS = Eviction("min-bypass", (highest("next_use"),), may_bypass=True)
