"""Which episodes a pass runs, and how much of each."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from moeprof.records.recipe.variant import Variant
from moeprof.workloads.episodes import DecodeEpisode, Episode

FEW_STEPS = 4
"""Decoding steps of a timeline that people can read, and of a memory peak: caches are allocated at the start."""


def first_of_each_domain(episodes: Sequence[Episode]) -> list[Episode]:
    """One episode per domain, the first: what is timed."""
    first = {episode.domain: episode for episode in reversed(episodes)}
    return list(reversed(first.values()))


def later_half(episodes: Sequence[Episode]) -> list[Episode]:
    """The later half of every domain's episodes, with the odd one and a single one included (paper 6.4)."""
    domains = [episode.domain for episode in episodes]
    before = [domains[:number].count(domain) for number, domain in enumerate(domains)]
    return [episode for episode, number in zip(episodes, before, strict=True) if number >= domains.count(episode.domain) // 2]


def judged(variants: Iterable[Variant], episodes: Sequence[Episode]) -> Sequence[Episode]:
    """The episodes that variants are compared on: those that no placement was made from."""
    return later_half(episodes) if any(variant.placed for variant in variants) else episodes


def first_steps(episodes: Sequence[Episode]) -> dict[str, int]:
    """The number of the first step in every domain."""
    return {episode.domain: episode.steps[0].index for episode in first_of_each_domain(episodes)}


def beginning(episode: Episode) -> Episode:
    """The first steps of an episode that decodes, the whole of any other: every further step would be like them."""
    if isinstance(episode, DecodeEpisode):
        return replace(episode, tokens_NB=episode.tokens_NB[:FEW_STEPS], steps=episode.steps[:FEW_STEPS])
    return episode
