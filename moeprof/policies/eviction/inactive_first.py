"""Who the batch in progress does not use leaves first; a tail policy decides among the inactive, and then among the active.

The paper's choice is LIFO as the tail (5.1); which inactive expert leaves first it does not say, and here the tail does (5.6).
"""

from moeprof.policies.eviction.eviction import Eviction, lowest

PREFIX = "inactive-first+"


def inactive_first(tail: Eviction) -> Eviction:
    """`tail` behind a first tier."""
    return Eviction(PREFIX + tail.name, (lowest("active"), *tail.order), tail.may_bypass)
