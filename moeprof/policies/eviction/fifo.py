"""First in, first out: by time of loading, however often the expert was used since."""

from moeprof.policies.eviction.eviction import Eviction, lowest

FIFO = Eviction("fifo", (lowest("inserted"),))
