"""Tokens regrouped into steps of another size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.analysis.routing.regroup import in_steps_of
from tests.analysis.traces import Row, trace_of

Token = tuple[str, int, int, int, int]
"""Domain, step, rank, sequence and position."""


def plain_steps(tokens: list[Token], size: int, domains: list[str]) -> dict[Token, int]:
    """The new step of every token that is kept, token by token."""
    found: dict[Token, int] = {}
    step = 0
    for domain in domains:
        own = sorted(token for token in tokens if token[0] == domain)
        while len(own) >= size:
            found |= dict.fromkeys(own[:size], step)
            own, step = own[size:], step + 1
    return found


drawn_tokens = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.integers(0, 1), st.integers(0, 2), st.integers(0, 2)),
    min_size=1,
    max_size=25,
    unique=True,
)


@settings(deadline=None)
@given(drawn_tokens, st.integers(1, 6))
def test_so_many_neighbours_of_a_domain_are_a_step_in_every_layer(tokens: list[Token], size: int) -> None:
    traces = [
        trace_of(
            [
                Row(step, expert, layer=layer, domain=domain, sequence=sequence, position=position)
                for layer in ("0", "1")
                for expert, (domain, step, rank, sequence, position) in enumerate(tokens)
                if rank == of
            ],
            num_experts=32,
            layers=("0", "1"),
        )
        for of in (0, 1)
    ]
    domains = list(dict.fromkeys(token[0] for of in (0, 1) for token in tokens if token[2] == of))
    expected = plain_steps(tokens, size, domains)
    for of, trace in enumerate(in_steps_of(traces, size)):
        for layer in ("0", "1"):
            own = trace.select(layer=layer)
            told = {tokens[expert]: step for expert, step in zip(own.column("expert"), own.column("step"), strict=True)}
            assert told == {token: step for token, step in expected.items() if token[2] == of}


def test_the_last_tokens_that_fill_no_step_are_left_out() -> None:
    trace = trace_of([Row(step, step, sequence=0, position=step) for step in (3, 5, 7, 8, 9)], num_experts=16)
    (regrouped,) = in_steps_of([trace], 2)
    assert regrouped.column("step").tolist() == [0, 0, 1, 1]
    assert regrouped.column("expert").tolist() == [3, 5, 7, 8]
    assert len(in_steps_of([trace], 6)[0]) == 0


@pytest.mark.parametrize("size", [1, 5])
def test_a_step_of_several_tokens_is_split_and_steps_are_joined(size: int) -> None:
    rows = [Row(step, 0, sequence=token, position=step) for step in range(4) for token in range(5)]
    (regrouped,) = in_steps_of([trace_of(rows, num_experts=2)], size)
    assert np.bincount(regrouped.column("step")).tolist() == [size] * (20 // size)
