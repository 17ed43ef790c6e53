"""Sequences of several settled episodes in one: each gets the tokens that it generated there, then padding."""

from dataclasses import replace

import numpy as np

from moeprof.workloads.batches import pad
from moeprof.workloads.episodes import DecodeEpisode, columns, lengths, num_tokens, with_settled_tokens
from moeprof.workloads.tokenizers import EOS, PAD

from .script import Script, episode_on, reals


def two_settled() -> list[DecodeEpisode]:
    """Sequences 0 and 1 of four tokens and one, 7 and 8 of two and three."""
    first, second = episode_on(pad("prose", 0, [[1]] * 2, None, 0)), episode_on(pad("code", 3, [[1]] * 2, None, 7))
    first.settle(Script([5, 6, 7, 8, 9], [15, EOS, 9, 9, 9]))
    second.settle(Script([4, 3, EOS, 9, 9], [14, 13, 12, EOS, 9]))
    return [first, second]


def settled_as(*numbers: int) -> DecodeEpisode:
    batch = replace(pad("", 0, [[1]] * len(numbers), None, 0), sequence_B=np.array(numbers))
    return with_settled_tokens(episode_on(batch), two_settled())


def test_the_tokens_of_a_settled_episode_are_known_by_sequence() -> None:
    first, second = two_settled()
    assert columns(first) == [[5, 6, 7, 8], [15, PAD, PAD, PAD]]
    assert lengths(first) == [4, 1]
    assert lengths(second) == [2, 3]


def test_every_sequence_is_fed_what_it_generated_and_padding_afterwards() -> None:
    episode = settled_as(8, 0, 1, 7)
    assert [tokens_B.tolist() for tokens_B in episode.tokens_NB] == [
        [14, 5, 15, 4],
        [13, 6, PAD, 3],
        [12, 7, PAD, PAD],
        [PAD, 8, PAD, PAD],
    ]
    assert reals(episode.steps) == [
        None,
        [True, True, False, True],
        [True, True, False, False],
        [False, True, False, False],
    ]
    assert num_tokens(episode) == 3 + 4 + 1 + 2


def test_a_mixture_of_short_sequences_ends_with_the_longest_of_them() -> None:
    assert columns(settled_as(1, 7)) == [[15, PAD], [4, 3]]


def test_a_repeated_sequence_is_told_each_time() -> None:
    episode = settled_as(7, 0, 7, 7)
    assert columns(episode) == [[4, 3, PAD, PAD], [5, 6, 7, 8], [4, 3, PAD, PAD], [4, 3, PAD, PAD]]
    assert lengths(episode) == [2, 4, 2, 2]


def test_what_is_told_again_stands_at_the_same_places_in_steps_of_its_own() -> None:
    episode = settled_as(8, 0)
    assert [step.index for step in episode.steps] == [100, 101, 102, 103]
    assert [step.position_T.tolist() for step in episode.steps if step.position_T is not None] == [
        [7 + at] * 2 for at in range(4)
    ]
    assert all(step.sequence_T.tolist() == [8, 0] for step in episode.steps if step.sequence_T is not None)


def test_a_sequence_that_generated_the_padding_token_is_no_shorter_for_it() -> None:
    known = episode_on(pad("prose", 0, [[1]], None, 0), stop=None)
    known.settle(Script([5, PAD, 6, PAD, 7]))
    episode = with_settled_tokens(episode_on(pad("", 0, [[1]], None, 0)), [known])
    assert columns(episode) == [[5, PAD, 6, PAD]]
    assert lengths(episode) == [4]
