"""Least frequently used, with counts that outlive eviction; the least recently used decides between equal counts."""

from moeprof.policies.eviction.eviction import Eviction, lowest

LFU = Eviction("lfu", (lowest("uses"), lowest("used")))
