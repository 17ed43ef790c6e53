"""Which episodes are timed and judged, and how much of one is enough."""

from dataclasses import replace
from pathlib import Path

import torch

from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.variant import STATIC
from moeprof.studies.selection import FEW_STEPS, beginning, first_of_each_domain, first_steps, judged, later_half
from moeprof.workloads.episodes import DecodeEpisode
from moeprof.workloads.registry import make_workload

from .runs import DYNAMIC, Micro, services_of


def test_timed_are_the_first_batches_of_the_domains_in_their_order(micro: Micro) -> None:
    episodes = make_workload(load_recipe(str(micro("lm")))).episodes("score")
    assert [episode.batch.index for episode in episodes] == [0, 1, 2, 3, 4, 5]
    assert [(episode.domain, episode.batch.index) for episode in first_of_each_domain(episodes)] == [
        ("prose", 0),
        ("code", 2),
        ("records", 4),
    ]


def test_the_beginning_of_decoding_is_a_few_steps_and_leaves_the_whole_alone(micro: Micro, tmp_path: Path) -> None:
    recipe = load_recipe(str(micro("lm")), ["load.decode_steps=7"])
    runner, workload = services_of(recipe, tmp_path / "run", (STATIC,)).runner, make_workload(recipe)
    score, decode = workload.episodes("score")[0], workload.episodes("decode")[0]
    assert isinstance(decode, DecodeEpisode)
    with torch.inference_mode():
        decode.settle(runner.select(STATIC))
    short = beginning(decode)
    assert isinstance(short, DecodeEpisode)
    assert len(short.steps) == len(short.tokens_NB) == FEW_STEPS == 4
    assert short.steps == decode.steps[:4]
    assert len(decode.steps) == len(decode.tokens_NB) == 7
    assert beginning(score) is score


def test_only_a_placement_keeps_the_earlier_half_from_being_judged(micro: Micro) -> None:
    episodes = make_workload(load_recipe(str(micro("lm")))).episodes("score")
    placed = replace(DYNAMIC, placement="greedy")
    assert list(judged([STATIC, DYNAMIC], episodes)) == list(episodes)
    assert list(judged([STATIC, placed], episodes)) == later_half(episodes)
    assert [episode.batch.index for episode in later_half(episodes)] == [1, 3, 5]
    assert first_steps(later_half(episodes)) == {"prose": 1, "code": 3, "records": 5}
