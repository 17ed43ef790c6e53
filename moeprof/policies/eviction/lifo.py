"""Last in, first out: a stack by time of loading, which pins what came first; not `mru`, which goes by use (paper 5.6)."""

from moeprof.policies.eviction.eviction import Eviction, highest

LIFO = Eviction("lifo", (highest("inserted"),))
