"""Least frequently used since it was loaded: eviction forgets the count; the least recently used decides between equals."""

from moeprof.policies.eviction.eviction import Eviction, lowest

LFU_RESET = Eviction("lfu-reset", (lowest("uses_since_insertion"), lowest("used")))
