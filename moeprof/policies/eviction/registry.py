"""The table of eviction policies, by the name that commands and recipes use; a new policy is one row.

A policy is an order of the resident experts: the first one is evicted. `inactive-first+NAME` puts the experts that the
batch in progress does not use before all others, and orders both groups by the policy NAME.
"""

from moeprof.policies.eviction.eviction import Eviction, highest, lowest
from moeprof.records.errors import UsageError, suggestion

TABLE = (
    # Last in, first out: a stack by time of loading, which pins the experts that were loaded first (paper 5.1).
    Eviction("lifo", (highest("inserted"),)),
    # First in, first out: by time of loading, however often the expert was used since.
    Eviction("fifo", (lowest("inserted"),)),
    # Least recently used.
    Eviction("lru", (lowest("used"),)),
    # Most recently used: reaches MIN on a cyclic scan, where LIFO by time of loading only comes near it (paper 5.6).
    Eviction("mru", (highest("used"),)),
    # Least frequently used; counts survive eviction, and the least recently used expert breaks ties.
    Eviction("lfu", (lowest("uses"), lowest("used"))),
    # Least frequently used since it was loaded: eviction resets the count; the least recently used expert breaks ties.
    Eviction("lfu-reset", (lowest("uses_since_insertion"), lowest("used"))),
    # MIN with what a running model knows: the experts of the batch in progress, in the order of their use (paper 5.6). What
    # follows the batch is unknown; the policy assumes that the same batch comes again. So it evicts inactive experts first, the
    # least recently used of them before the others, and then the active expert whose next use is farthest away. It needs no
    # future accesses, and it equals MIN if one batch repeats, as in a cyclic scan.
    Eviction("batch-aware", (lowest("active"), highest("due"), lowest("used"))),
    # Belady's MIN: evicts the expert whose next use is farthest away, and admits every expert that is used (Belady 1966). With
    # experts of equal size no policy without bypass has fewer misses; with unequal sizes, which it ignores, some policy may.
    Eviction("min", (highest("next_use"),)),
    # Belady's MIN with bypass: an expert may be used without being kept, so a single use evicts nothing. Never above MIN.
    Eviction("min-bypass", (highest("next_use"),), may_bypass=True),
)

FURTHER = (
    # A static hot set: the experts that the whole trace uses most stay once they are loaded, and others are used without being kept.
    # No set that is fixed beforehand, from earlier text for example, has fewer misses but for those of loading it.
    Eviction("hot-set", (lowest("popularity"),), may_bypass=True),
    # Half of the slots for such a hot set, the others by least recent use.
    Eviction("pinned-lru", (lowest("pinned"), lowest("used"))),
    # Least frequently used with dynamic aging: what was evicted last sets the count from which a used expert counts on, so that experts
    # that were hot long ago leave (Arlitt, Cherkasova, Dilley, Friedrich, Jin 2000).
    Eviction("lfu-aged", (lowest("aged_uses"), lowest("used"))),
    # Least stale: an expert is stale if its layer ran without it since. Stale experts leave first, by least recent use; then those of the
    # layer that ran last, because layers run in turn and its next run is the farthest away.
    Eviction("least-stale", (lowest("active"), lowest("fresh"), highest("fresh_batch"), lowest("used"))),
)
"""Policies that are replayed only if they are asked for."""

EVICTION = {policy.name: policy for policy in (*TABLE, *FURTHER)}

PREFIX = "inactive-first+"


def inactive_first(tail: Eviction) -> Eviction:
    """Evicts experts that the batch in progress does not use first; `tail` orders both groups.

    The paper's choice is LIFO as the tail (5.1); it leaves open which inactive expert goes first, and the tail decides that (5.6).
    """
    return Eviction(PREFIX + tail.name, (lowest("active"), *tail.order), tail.may_bypass)


DEFAULT = inactive_first(EVICTION["lifo"]).name
"""The paper's own choice."""


def make_eviction(name: str) -> Eviction:
    """The policy of this name, or `inactive-first+TAIL` over one of the table; UsageError if the name is unknown."""
    tail = name.removeprefix(PREFIX)
    if tail not in EVICTION:
        known = [*EVICTION, *(PREFIX + known for known in EVICTION)]
        raise UsageError(
            f"unknown eviction policy {name!r}",
            f"{suggestion(name.lower(), known)}Known policies: {', '.join(EVICTION)}, each also as {PREFIX}TAIL.",
        )
    return EVICTION[tail] if tail == name else inactive_first(EVICTION[tail])


def needs_future(name: str) -> bool:
    """Whether the policy needs future accesses, as MIN does, and so works only on a recorded trace."""
    return make_eviction(name).needs_future
