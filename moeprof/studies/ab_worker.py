"""One side of an A/B measurement in a process of its own: `python -m moeprof.studies.ab_worker`, spoken to in lines of JSON.

The first line asks for a recipe, `{"recipe": ..., "settings": [...], "variants": [...]}`, and is answered by what the rounds will
depend on. Every further line asks for one round, `{"phase": ..., "variant": ...}`, and is answered by its
tokens per second and its seconds.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import torch

import moeprof
from moeprof.analysis.comparison.measurement import machine_of, settings_of
from moeprof.instrument.allocator import keep_freed_memory
from moeprof.instrument.clock import Clock, synchronized
from moeprof.instrument.machine import available_memory, environment
from moeprof.instrument.timing import collector_paused
from moeprof.moe.layer import use_variant
from moeprof.parallel.group import ALONE
from moeprof.records.errors import MoeprofError, UsageError
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import Variant, timed_variants
from moeprof.records.recipe.weights import weights_hash
from moeprof.studies.feasibility import check_device, check_memory, check_ranks, check_weights
from moeprof.studies.progress import Silent
from moeprof.studies.session import calibrate, first_of_each_domain, load_models
from moeprof.workloads.episodes import Round, num_tokens
from moeprof.workloads.registry import Workload, make_workload

Play = Callable[[], int]
"""One round, one batch of every domain; its nanoseconds."""


def main() -> None:
    """Answers lines until there are no more; an error is an answer too."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever libraries print is no answer
    try:
        with torch.inference_mode(), collector_paused():
            for answer in conversation(sys.stdin):
                answers.write(json.dumps(answer) + "\n")
    except MoeprofError as error:
        answers.write(json.dumps({"what": error.what, "remedy": error.remedy, "usage": isinstance(error, UsageError)}) + "\n")


def conversation(lines: TextIO) -> Iterator[dict[str, Any]]:
    """The answer to every line."""
    asked = json.loads(lines.readline())
    recipe = load_recipe(asked["recipe"], asked["settings"])
    check_ranks(recipe, ALONE)
    check_device(recipe)
    check_weights(recipe)
    check_memory(recipe, available_memory(recipe.measure.device))
    if recipe.measure.device == "cpu":
        keep_freed_memory()
    workload = make_workload(recipe)
    plays = plays_of(
        recipe, workload, [timed_variants()[name] for name in asked["variants"]], synchronized(recipe.measure.device)
    )
    yield introduction(recipe, workload, list(plays))
    for line in lines:
        turn = json.loads(line)
        tokens, play = plays[turn["phase"], turn["variant"]]
        seconds = play() / 1e9
        yield {"throughput": tokens / seconds, "seconds": seconds}


def introduction(recipe: Recipe, workload: Workload, turns: list[tuple[str, str]]) -> dict[str, Any]:
    """What the numbers depend on, and which turns can be asked for."""
    found = environment(recipe.measure.device)
    return {
        "code": str(Path(moeprof.__file__).resolve().parents[1]),
        "recipe": recipe.name,
        "workload": recipe.workload,
        "settings": settings_of(recipe),
        "machine": machine_of(found),
        "packages": found.packages,
        "texts": workload.text_hashes,
        "weights": weights_hash(recipe),
        "warmup": recipe.measure.warmup,
        "rounds": recipe.measure.rounds,
        "turns": turns,
    }


def plays_of(
    recipe: Recipe, workload: Workload, variants: list[Variant], clock: Clock
) -> dict[tuple[str, str], tuple[int, Play]]:
    """A round of every phase and variant, ready to be played, and its tokens, padding left out."""
    models = load_models(recipe, variants, Silent())
    calibrate(models)
    plays: dict[tuple[str, str], tuple[int, Play]] = {}
    for phase in recipe.phases:
        episodes = first_of_each_domain(workload.episodes(phase))
        for episode in episodes:
            use_variant(models[variants[0]], variants[0])
            episode.settle(models[variants[0]])
        tokens = sum(map(num_tokens, episodes))
        for variant in variants if tokens else []:
            use_variant(models[variant], variant)
            rounds = [episode.ready(models[variant]) for episode in episodes]
            plays[phase, variant.label] = tokens, player(models[variant], variant, rounds, clock)
    return plays


def player(model: torch.nn.Module, variant: Variant, rounds: list[Round], clock: Clock) -> Play:
    """Every batch once; nothing but the batches is on the clock."""

    def play() -> int:
        use_variant(model, variant)
        started = clock()
        for batch in rounds:
            batch()
        return clock() - started

    return play


if __name__ == "__main__":
    main()
