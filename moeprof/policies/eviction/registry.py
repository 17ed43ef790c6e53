"""Every eviction policy by the name that commands and recipes use."""

from moeprof.policies.eviction.batch_aware import BATCH_AWARE
from moeprof.policies.eviction.eviction import Eviction
from moeprof.policies.eviction.fifo import FIFO
from moeprof.policies.eviction.inactive_first import PREFIX, inactive_first
from moeprof.policies.eviction.lfu import LFU
from moeprof.policies.eviction.lfu_reset import LFU_RESET
from moeprof.policies.eviction.lifo import LIFO
from moeprof.policies.eviction.lru import LRU
from moeprof.policies.eviction.min import MIN
from moeprof.policies.eviction.min_bypass import MIN_BYPASS
from moeprof.policies.eviction.mru import MRU
from moeprof.records.errors import UsageError, suggestion

EVICTION = {policy.name: policy for policy in (LIFO, FIFO, LRU, MRU, LFU, LFU_RESET, BATCH_AWARE, MIN, MIN_BYPASS)}

DEFAULT = inactive_first(LIFO).name
"""The paper's own choice."""


def make_eviction(name: str) -> Eviction:
    """The policy of that name, or `inactive-first+TAIL` over one of them; UsageError where there is none."""
    tail = name.removeprefix(PREFIX)
    if tail not in EVICTION:
        known = [*EVICTION, *(PREFIX + known for known in EVICTION)]
        raise UsageError(
            f"eviction policy {name!r} is not known",
            f"{suggestion(name.lower(), known)}Known are {', '.join(EVICTION)}, each also as {PREFIX}TAIL.",
        )
    return EVICTION[tail] if tail == name else inactive_first(EVICTION[tail])


def needs_future(name: str) -> bool:
    """Whether the policy can decide only over a recorded trace, as MIN does."""
    return make_eviction(name).needs_future
