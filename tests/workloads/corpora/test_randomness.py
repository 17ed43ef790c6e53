"""The random integers that every byte of the default text depends on."""

from collections import Counter

import pytest

from moeprof.workloads.corpora.randomness import RandomStream, common_first, seed_of


def test_draws_are_splitmix64() -> None:
    # the values that Vigna's splitmix64.c prints for the seed 1234567
    stream = RandomStream(1234567)
    assert [stream.next64() for _ in range(4)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
    ]


def test_small_choices_are_the_digits_of_one_draw() -> None:
    pool, stream = RandomStream(7).next64(), RandomStream(7)
    assert [stream.below(10) for _ in range(6)] == [pool // 10**place % 10 for place in range(6)]


@pytest.mark.parametrize("bound", [2, 3, 17, 600])
def test_every_number_below_a_bound_is_as_likely_as_the_others(bound: int) -> None:
    stream, draws = RandomStream(3), 200 * bound
    counts = Counter(stream.below(bound) for _ in range(draws))
    chi_square = sum((counts[number] - 200) ** 2 / 200 for number in range(bound))
    assert sorted(counts) == list(range(bound))
    assert chi_square < bound - 1 + 5 * (2 * bound) ** 0.5  # mean and five standard deviations


def test_between_includes_both_ends() -> None:
    stream = RandomStream(5)
    assert {stream.between(-1, 2) for _ in range(100)} == {-1, 0, 1, 2}


def test_a_sample_repeats_nothing_and_leaves_its_source_alone() -> None:
    letters = ["a", "b", "c", "d"]
    assert sorted(RandomStream(9).sample(letters, 4)) == letters == ["a", "b", "c", "d"]


def test_a_percentage_is_kept() -> None:
    stream = RandomStream(11)
    assert sum(stream.percent(15) for _ in range(10_000)) == pytest.approx(1500, abs=180)


def test_seeds_tell_every_key_apart() -> None:
    keys = [("lm", domain, split, number) for domain in "ab" for split in ("train", "heldout") for number in range(500)]
    assert len({seed_of(*key) for key in keys}) == 2000
    assert all(0 <= seed_of(*key) < 2**64 for key in keys)


def test_the_first_half_is_twice_as_common() -> None:
    assert common_first("abcde") == ("a", "b", "c", "d", "e", "a", "b", "c")
