"""The compiled pools do what plain ones with the policy's own class do, and the fitted weights cost no more than any that were tried."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.policies.cache import Cache
from moeprof.policies.eviction.eviction import Eviction, lowest
from moeprof.policies.eviction.registry import EVICTION
from moeprof.policies.offloading.fitting import PoolMisses, TwoPools, fit_weights, mixes, pool_misses
from moeprof.policies.offloading.priority import ExpertUnit, PriorityWeights, WeightedPriority
from moeprof.policies.offloading.requests import ExpertRequests
from moeprof.policies.offloading.rule import HIGH, LOW, SKIP

LAYERS, EXPERTS = 3, 5


def requests_from(steps: list[tuple[int, int, int, list[tuple[int, int]]]]) -> ExpertRequests:
    """Of steps (sequence, token, layer, [(expert, kind), ...])."""
    rows = [(layer, expert, token, sequence, kind) for sequence, token, layer, used in steps for expert, kind in sorted(used)]
    return ExpertRequests(*np.array(rows, np.int64).reshape(-1, 5).T)


@st.composite
def drawn_requests(draw: st.DrawFn) -> ExpertRequests:
    """Up to two sequences of a few tokens, each through all layers."""
    kind = st.sampled_from([HIGH, LOW, SKIP])
    used = st.dictionaries(st.integers(0, EXPERTS - 1), kind, min_size=1, max_size=3)
    return requests_from(
        [
            (sequence, token, layer, list(draw(used).items()))
            for sequence, tokens in enumerate(draw(st.lists(st.integers(1, 5), min_size=1, max_size=2)))
            for token in range(tokens)
            for layer in range(LAYERS)
        ]
    )


def by_sets(requests: ExpertRequests, weights: PriorityWeights, pools: TwoPools) -> PoolMisses:
    """Two sets of units and the policy's class, step by step."""
    policy, counts = WeightedPriority(weights, pools.num_layers), {HIGH: 0, LOW: 0, SKIP: 0}
    held: dict[str, set[ExpertUnit]] = {"high": set(), "int4": set()}
    slots = {"high": pools.high_slots, "int4": pools.low_slots}
    sequence, starts = -1, requests.starts()
    for first, last in pairwise(starts):
        if requests.sequences_N[first] != sequence:
            policy.reset()
            sequence = requests.sequences_N[first]
        in_use = set()
        layer, _, token, *_ = (int(column[first]) for column in requests)
        for expert, kind in zip(requests.experts_N[first:last].tolist(), requests.kinds_N[first:last].tolist(), strict=True):
            high, low = ExpertUnit(layer, expert, "high"), ExpertUnit(layer, expert, "int4")
            if high in held["high"]:
                unit = high
            elif kind != HIGH and low in held["int4"]:
                unit = low
            else:
                counts[kind] += 1
                if kind == SKIP:
                    continue
                unit = high if kind == HIGH else low
                held[unit.precision].add(unit)
            in_use.add(unit)
            policy.touch(unit, token, kind == HIGH)
        for precision, units in held.items():
            while len(units) > slots[precision]:
                units.remove(policy.victim(units - in_use or units, layer, token))
    return PoolMisses(counts[HIGH], counts[LOW], counts[SKIP])


any_pools = st.builds(
    TwoPools, st.integers(0, 8), st.integers(0, 8), st.just(LAYERS), st.just(EXPERTS), st.sampled_from([0.25, 0.5])
)
any_mix = st.sampled_from(mixes(5))


@settings(max_examples=60)
@given(drawn_requests(), any_mix, any_pools)
def test_the_compiled_pools_miss_what_plain_pools_miss(
    requests: ExpertRequests, weights: PriorityWeights, pools: TwoPools
) -> None:
    assert pool_misses(requests, weights, pools) == by_sets(requests, weights, pools)


@settings(max_examples=40)
@given(drawn_requests(), st.integers(1, 9))
@pytest.mark.parametrize(
    ("weights", "policy"),
    [(PriorityWeights(lru=1), EVICTION["lru"]), (PriorityWeights(lfu=1), Eviction("lfu-by-id", (lowest("uses"),)))],
)
def test_one_pool_by_last_use_or_by_uses_is_the_cache_of_a_replay(
    weights: PriorityWeights, policy: Eviction, requests: ExpertRequests, slots: int
) -> None:
    """Ties of LFU leave by id here and by last use in a replay, so the replay gets an order without last use; one sequence."""
    one_pool = requests._replace(
        kinds_N=np.full_like(requests.kinds_N, HIGH),
        sequences_N=np.zeros_like(requests.sequences_N),
        tokens_N=requests.tokens_N + 5 * requests.sequences_N,
    )
    starts = one_pool.starts()
    cache, units_N = Cache(slots, policy), one_pool.layers_N * EXPERTS + one_pool.experts_N
    outcome = [
        access for batch in np.split(units_N, starts[1:-1]) for access in cache.batch(batch.tolist(), "batch") if not access.hit
    ]
    assert pool_misses(one_pool, weights, TwoPools(slots, 0, LAYERS, EXPERTS)) == (len(outcome), 0, 0)


def test_a_resident_high_copy_serves_every_request_and_a_low_one_none_for_high_precision() -> None:
    steps = [
        (0, 0, 0, [(0, HIGH), (1, LOW), (2, SKIP)]),
        (0, 1, 0, [(0, LOW), (1, SKIP), (2, SKIP)]),
        (0, 2, 0, [(0, SKIP), (1, HIGH), (2, LOW)]),
    ]
    found = pool_misses(requests_from(steps), PriorityWeights(lru=1), TwoPools(5, 5, 1, EXPERTS))
    assert found == (2, 2, 2)  # 0 and 1 in high, 1 and 2 in low; 2 is skipped twice while it is in no pool
    assert found.penalty(0.25) == 2.5


def test_all_mixes_are_tried_and_single_weights_come_first() -> None:
    assert len(mixes(10)) == 286  # 13 over 3
    assert [str(mix) for mix in mixes(10)[:4]] == [str(PriorityWeights(**{name: 1.0})) for name in ("lru", "lfu", "lhu", "fld")]
    assert len(set(mixes(10))) == 286


def skewed_requests(seed: int, num_tokens: int = 60) -> ExpertRequests:
    """Some experts are hot, and neighbouring tokens share others."""
    generator = np.random.default_rng(seed)
    steps = []
    for token in range(num_tokens):
        for layer in range(LAYERS):
            hot, drifting = (layer + generator.integers(2)) % EXPERTS, (token // 4 + layer) % EXPERTS
            steps.append((0, token, layer, list({int(hot): HIGH, int(drifting): int(generator.integers(3))}.items())))
    return requests_from(steps)


def test_the_fitted_weights_cost_no_more_than_any_other_by_a_plain_count() -> None:
    requests, pools = skewed_requests(seed=0), TwoPools(4, 2, LAYERS, EXPERTS)
    fitted = fit_weights(requests, pools, grid=4)
    plain = {weights: by_sets(requests, weights, pools).penalty(pools.low_cost) for weights in mixes(4)}
    assert dict(fitted.tried) == plain
    assert fitted.penalty == plain[fitted.weights] == min(plain.values())
    assert fitted.penalty < max(plain.values())


def test_equal_mixes_leave_the_choice_to_the_first() -> None:
    fitted = fit_weights(skewed_requests(seed=1), TwoPools(LAYERS * EXPERTS, LAYERS * EXPERTS, LAYERS, EXPERTS), grid=4)
    assert fitted.weights == PriorityWeights(lru=1)
    assert len({penalty for _, penalty in fitted.tried}) == 1
