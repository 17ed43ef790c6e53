"""MIN with the knowledge that a running model has: the experts of the batch in progress, in the order of their use (paper 5.6).

Known: which experts the batch uses, and when each has its turn. Unknown: everything after the batch. In place of it stands
locality: the same batch comes again, so that an expert that had its turn is due one batch later, and one that the
batch does not use is not due at all. Who is due last leaves: the inactive, the least recently used of them first; then the
expert whose turn is farthest away. It is available online, and exact MIN wherever one batch repeats, as in a cyclic scan.
"""

from moeprof.policies.eviction.eviction import Eviction, highest, lowest

BATCH_AWARE = Eviction("batch-aware", (lowest("active"), highest("due"), lowest("used")))
