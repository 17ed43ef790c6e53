"""Belady's MIN: who is used again last leaves; what is used is always admitted (Belady 1966).

The fewest misses of any policy that admits what it loads, where experts have equal sizes; with unequal ones only a good
guess, for sizes play no part in it.
"""

from moeprof.policies.eviction.eviction import Eviction, highest

MIN = Eviction("min", (highest("next_use"),))
