"""The worker process of one side of an A/B measurement: `python -m moeprof.studies.ab_worker`, which exchanges lines of JSON.

The first request names a recipe, `{"recipe": ..., "settings": [...], "variants": [...]}`; the answer is the handshake. Every further
request names one round, `{"phase": ..., "variant": ...}`; the answer is its tokens per second and its duration in seconds.
Other versions of moeprof use the same keys (`compare --against-checkout`): do not rename them.
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
from moeprof.instrument.machine import environment, keep_within_quota
from moeprof.instrument.timing import collector_paused
from moeprof.moe.layer import use_variant
from moeprof.parallel.group import ALONE
from moeprof.records.errors import MoeprofError, UsageError
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import Variant, timed_variants
from moeprof.records.recipe.weights import weights_hash
from moeprof.records.system.parsing import parsed_json
from moeprof.studies.feasibility import check_device, check_memory, check_ranks, check_weights, memory_for_a_rank
from moeprof.studies.progress import Silent
from moeprof.studies.selection import first_of_each_domain
from moeprof.studies.services import calibrate, load_models
from moeprof.workloads.episodes import Round, num_tokens
from moeprof.workloads.registry import Workload, make_workload

RunRound = Callable[[], int]
"""Runs one round, one batch of every domain, and returns its nanoseconds."""


def main() -> None:
    """Answers requests until stdin ends; an error is sent as an answer."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # output of libraries must not mix with the answers
    try:
        with torch.inference_mode(), collector_paused():
            for answer in answers_to(sys.stdin):
                answers.write(json.dumps(answer) + "\n")
    except MoeprofError as error:
        answers.write(json.dumps({"what": error.what, "remedy": error.remedy, "usage": isinstance(error, UsageError)}) + "\n")


def answers_to(requests: TextIO) -> Iterator[dict[str, Any]]:
    """The handshake, then one answer per requested round."""
    first = parsed_json(requests.readline())
    recipe = load_recipe(first["recipe"], first["settings"])
    check_ranks(recipe, ALONE)
    check_device(recipe)
    check_weights(recipe)
    check_memory(recipe, memory_for_a_rank(recipe, 1))
    if recipe.measure.device == "cpu":
        keep_freed_memory()
    keep_within_quota()
    workload = make_workload(recipe)
    cases = cases_of(
        recipe, workload, [timed_variants()[name] for name in first["variants"]], synchronized(recipe.measure.device)
    )
    yield handshake(recipe, workload, list(cases))
    for line in requests:
        request = parsed_json(line)
        tokens, run_round = cases[request["phase"], request["variant"]]
        seconds = run_round() / 1e9
        yield {"throughput": tokens / seconds, "seconds": seconds}


def handshake(recipe: Recipe, workload: Workload, cases: list[tuple[str, str]]) -> dict[str, Any]:
    """Everything that the numbers depend on, and the phases and variants that can be requested."""
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
        "turns": cases,
    }


def cases_of(
    recipe: Recipe, workload: Workload, variants: list[Variant], clock: Clock
) -> dict[tuple[str, str], tuple[int, RunRound]]:
    """A prepared round of every phase and variant, with its number of tokens (without padding)."""
    models = load_models(recipe, variants, Silent())
    calibrate(models)
    cases: dict[tuple[str, str], tuple[int, RunRound]] = {}
    for phase in recipe.phases:
        episodes = first_of_each_domain(workload.episodes(phase))
        for episode in episodes:
            use_variant(models[variants[0]], variants[0])
            episode.settle(models[variants[0]])
        tokens = sum(map(num_tokens, episodes))
        for variant in variants if tokens else []:
            use_variant(models[variant], variant)
            rounds = [episode.ready(models[variant]) for episode in episodes]
            cases[phase, variant.label] = tokens, timed_round(models[variant], variant, rounds, clock)
    return cases


def timed_round(model: torch.nn.Module, variant: Variant, batches: list[Round], clock: Clock) -> RunRound:
    """A function that runs every batch once and times nothing but the batches."""

    def run_round() -> int:
        use_variant(model, variant)
        started = clock()
        for batch in batches:
            batch()
        return clock() - started

    return run_round


if __name__ == "__main__":
    main()
