"""Sequences become full, right-padded batches in order, and every sequence keeps one number."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprof.parallel.group import Group
from moeprof.workloads.batches import Batch, make_batches, mixed, pad
from moeprof.workloads.tokenizers import PAD


def batches_of(sequences: list[list[int]], batch_size: int, **options: int | None) -> list[Batch]:
    defaults: dict[str, int | None] = {"max_batches": 100, "fixed_length": None, "first_batch": 0}
    return make_batches("prose", sequences, batch_size, **(defaults | options))  # type: ignore[arg-type]


def unpadded(batch: Batch) -> list[list[int]]:
    """The sequences as they came."""
    return [tokens[real].tolist() for tokens, real in zip(batch.tokens_BL, batch.real_BL, strict=True)]


def some_sequences(min_size: int = 1) -> st.SearchStrategy[list[list[int]]]:
    return st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), min_size=min_size, max_size=20)


@given(some_sequences(), st.integers(1, 5), st.integers(1, 4), st.integers(0, 7))
def test_batches_hold_the_sequences_in_order_and_only_full_ones_are_kept(
    sequences: list[list[int]], batch_size: int, max_batches: int, first_batch: int
) -> None:
    batches = batches_of(sequences, batch_size, max_batches=max_batches, first_batch=first_batch)
    num_full = min(len(sequences) // batch_size, max_batches)
    wanted = sequences[: num_full * batch_size] if num_full else sequences
    assert [sequence for batch in batches for sequence in unpadded(batch)] == wanted
    assert len(batches) == max(num_full, 1)
    assert all(len(batch.tokens_BL) == batch_size for batch in batches) or not num_full
    assert [batch.index for batch in batches] == list(range(first_batch, first_batch + len(batches)))


@given(some_sequences(min_size=6), some_sequences(min_size=6), st.integers(1, 6))
def test_no_two_sequences_of_a_workload_have_the_same_number(
    one: list[list[int]], other: list[list[int]], batch_size: int
) -> None:
    first = batches_of(one, batch_size)
    second = batches_of(other, batch_size, first_batch=len(first))
    numbers = np.concatenate([batch.sequence_B for batch in [*first, *second]])
    assert len(set(numbers.tolist())) == len(numbers)
    assert (np.diff(numbers) > 0).all()


@given(some_sequences(), st.integers(1, 5), st.integers(6, 9) | st.none())
def test_padding_stands_on_the_right_up_to_the_longest_or_the_fixed_length(
    sequences: list[list[int]], batch_size: int, fixed_length: int | None
) -> None:
    for batch in batches_of(sequences, batch_size, fixed_length=fixed_length):
        lengths = [len(sequence) for sequence in unpadded(batch)]
        assert batch.tokens_BL.shape == batch.real_BL.shape == (len(lengths), fixed_length or max(lengths))
        assert (batch.tokens_BL[~batch.real_BL] == PAD).all()
        assert all(real[:length].all() and not real[length:].any() for real, length in zip(batch.real_BL, lengths, strict=True))


def test_a_text_too_short_for_a_full_batch_gives_one_smaller_batch() -> None:
    (batch,) = batches_of([[1, 2], [3]], 8, first_batch=3)
    assert unpadded(batch) == [[1, 2], [3]]
    assert batch.sequence_B.tolist() == [24, 25]


def test_a_padding_token_in_the_text_is_a_real_token() -> None:
    assert unpadded(pad("prose", 0, [[PAD, 5, PAD], [7]], None, 0)) == [[PAD, 5, PAD], [7]]


def test_no_text_gives_no_batch() -> None:
    assert batches_of([], 4) == []


def test_a_batch_cannot_be_changed_by_accident() -> None:
    with pytest.raises(AttributeError):
        pad("prose", 0, [[1]], None, 0).index = 1  # type: ignore[misc]


# Mixtures of all domains


def domain_of(name: str, first: int, *sequences: list[int]) -> Batch:
    """A batch whose sequences are numbered from `first`."""
    return pad(name, first, sequences, None, first)


PROSE = domain_of("prose", 0, [1, 1], [2, 2, 2])
CODE = domain_of("code", 2, [3], [4, 4, 4, 4])
MORE_CODE = domain_of("code", 4, [5, 5])


def test_domains_take_turns_in_a_mixture_until_one_after_another_has_nothing_left() -> None:
    mixture = mixed([PROSE, CODE, MORE_CODE], 5)
    assert unpadded(mixture) == [[1, 1], [3], [2, 2, 2], [4, 4, 4, 4], [5, 5]]
    assert mixture.sequence_B.tolist() == [0, 2, 1, 3, 4]
    assert mixture.domain == ""


def test_a_mixture_larger_than_the_text_begins_again_and_keeps_the_numbers() -> None:
    mixture = mixed([PROSE, CODE, MORE_CODE], 12)
    assert mixture.sequence_B.tolist() == [0, 2, 1, 3, 4, 0, 2, 1, 3, 4, 0, 2]
    assert unpadded(mixture)[5:10] == unpadded(mixture)[:5]


@pytest.mark.parametrize(("size", "length"), [(1, 3), (2, 4), (4, 4)])
def test_a_mixture_is_as_long_as_the_longest_batch_that_it_draws_on(size: int, length: int) -> None:
    """So that a larger mixture of the same text never has shorter rows."""
    assert mixed([PROSE, CODE], size).tokens_BL.shape == (size, length)


@given(
    st.lists(st.lists(some_sequences(), min_size=1, max_size=3), min_size=1, max_size=4),
    st.integers(1, 40),
)
def test_a_mixture_holds_every_sequence_under_its_own_number(texts: list[list[list[list[int]]]], size: int) -> None:
    batches: list[Batch] = []
    for name, domain in zip("abcd", texts, strict=False):
        for sequences in domain:
            batches.append(domain_of(name, sum(len(batch.tokens_BL) for batch in batches), *sequences))
    known = {
        int(number): (batch.domain, sequence)
        for batch in batches
        for number, sequence in zip(batch.sequence_B, unpadded(batch), strict=True)
    }
    mixture = mixed(batches, size)
    numbers = mixture.sequence_B.tolist()
    assert unpadded(mixture) == [known[number][1] for number in numbers]
    assert len(numbers) == size
    assert set(numbers[: len(known)]) <= set(known)
    assert len(set(numbers)) == min(size, len(known))
    assert [known[number][0] for number in numbers[: len(texts)]] == list("abcd")[: min(size, len(texts))]


# Ranks


def rank_batches(sequences: list[list[int]], batch_size: int, size: int, **options: int | None) -> list[list[Batch]]:
    """Of every rank."""
    return [batches_of(sequences, batch_size, group=Group(rank, size), **options) for rank in range(size)]  # type: ignore[arg-type]


@given(some_sequences(), st.integers(1, 4), st.integers(1, 3), st.integers(2, 4))
def test_ranks_in_turn_hold_the_batches_of_one_rank(
    sequences: list[list[int]], batch_size: int, max_batches: int, size: int
) -> None:
    ranks = rank_batches(sequences, batch_size, size, max_batches=max_batches)
    taken = [batch for step in zip(*ranks, strict=True) for batch in step if batch.real_BL.any()]
    expected = batches_of(sequences, batch_size, max_batches=max_batches * size)
    assert [unpadded(batch) for batch in taken] == [unpadded(batch) for batch in expected]
    assert [batch.sequence_B.tolist() for batch in taken] == [batch.sequence_B.tolist() for batch in expected]
    assert [batch.index for batch in ranks[0]] == list(range(-(-len(expected) // size)))


@given(some_sequences(), st.integers(1, 4), st.integers(2, 4), st.integers(6, 9) | st.none())
def test_batches_of_one_step_have_one_shape_and_know_the_shortest_sequence(
    sequences: list[list[int]], batch_size: int, size: int, fixed_length: int | None
) -> None:
    for step in zip(*rank_batches(sequences, batch_size, size, fixed_length=fixed_length), strict=True):
        lengths = [len(sequence) for batch in step if batch.real_BL.any() for sequence in unpadded(batch)]
        assert {batch.tokens_BL.shape for batch in step} == {(len(step[0].sequence_B), fixed_length or max(lengths))}
        assert {batch.shortest for batch in step} == {min(lengths)}
        assert len({number for batch in step for number in batch.sequence_B.tolist()}) == size * len(step[0].sequence_B)
