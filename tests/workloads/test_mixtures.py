"""Batches of any size in which all domains take turns: every sequence is what it was in its own batch."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from moeprof.models.build import Model, build_model
from moeprof.moe.forced import make_forced_routing
from moeprof.moe.layer import force_routing, moe_layers, use_variant
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.variant import Variant
from moeprof.workloads.corpora import LM_DOMAINS, MT_LANGUAGES
from moeprof.workloads.episodes import DecodeEpisode, Episode, columns, lengths, num_tokens
from moeprof.workloads.registry import Workload, make_workload
from moeprof.workloads.translation import Translation

from .decisions import played, record

Micro = Callable[[str], Path]
Case = tuple[Workload, list[Episode], Model]

PHASES = [("lm", "score"), ("lm", "decode"), ("mt", "encode"), ("mt", "decode")]
DOMAINS = {"lm": list(LM_DOMAINS), "mt": list(MT_LANGUAGES)}
SEQUENCES = {"lm": 2 * 2, "mt": 2 * 3}
"""Of every domain of the small recipes."""


@pytest.fixture
def settled(micro: Micro) -> Iterator[Callable[..., Case]]:
    """A workload of the small recipes, its settled episodes, and a model that drops nothing."""

    def make(workload_name: str, phase: str, *overrides: str) -> Case:
        recipe = load_recipe(str(micro(workload_name)), overrides)
        workload, model = make_workload(recipe), build_model(recipe)
        use_variant(model, Variant(dispatch="dynamic"))
        episodes = workload.episodes(phase)
        for episode in episodes:
            episode.settle(model)
        return workload, episodes, model

    with torch.inference_mode():
        yield make


def numbers(episode: Episode) -> list[int]:
    return [int(number) for number in episode.batch.sequence_B]


def by_sequence(episode: Episode, outputs: list[Tensor]) -> list[tuple[int, Tensor]]:
    """Outputs of every sequence's tokens, padding left out, one after another, (N, V), beside its number."""
    found: list[tuple[int, Tensor]] = []
    for row, number in enumerate(numbers(episode)):
        parts = []
        for step, output_TV in zip(episode.steps, outputs, strict=True):
            length = len(output_TV) // len(numbers(episode))
            mine = slice(row * length, (row + 1) * length)
            real_L = torch.ones(length, dtype=torch.bool) if step.real_T is None else step.real_T[mine]
            parts.append(output_TV[mine][real_L])
        found.append((number, torch.cat(parts)))
    return found


@pytest.mark.parametrize(("name", "phase"), PHASES)
@pytest.mark.parametrize("size", [1, 5, 20])
def test_every_sequence_of_a_mixture_gives_the_outputs_that_it_gives_in_its_own_batch(
    settled: Callable[..., Case], name: str, phase: str, size: int
) -> None:
    workload, episodes, model = settled(name, phase)
    known = dict(pair for episode in episodes for pair in by_sequence(episode, list(episode.outputs(model))))
    mixture = workload.mixture(phase, episodes, size)
    found = by_sequence(mixture, list(mixture.outputs(model)))
    assert len(found) == size
    for number, output_NV in found:
        torch.testing.assert_close(output_NV, known[number], rtol=1e-4, atol=1e-5)
    assert num_tokens(mixture) == sum(len(known[number]) for number, _ in found)


@pytest.mark.parametrize(("name", "phase"), PHASES)
def test_domains_take_turns_and_the_text_is_repeated_where_it_does_not_suffice(
    settled: Callable[..., Case], name: str, phase: str
) -> None:
    workload, episodes, _ = settled(name, phase)
    domain_of = {number: episode.domain for episode in episodes for number in numbers(episode)}
    available = len(DOMAINS[name]) * SEQUENCES[name]
    mixture = workload.mixture(phase, episodes, available + 4)
    assert [domain_of[number] for number in numbers(mixture)][:5] == (DOMAINS[name] * 2)[:5]
    assert sorted(numbers(mixture)[:available]) == list(range(available))
    assert numbers(mixture)[available:] == numbers(mixture)[:4]
    assert (mixture.phase, mixture.domain) == (phase, "")


def test_every_translation_of_a_mixture_begins_with_the_tag_of_its_own_language(settled: Callable[..., Case]) -> None:
    workload, episodes, _ = settled("mt", "decode")
    assert isinstance(workload, Translation)
    mixture = workload.mixture("decode", episodes, 7)
    assert isinstance(mixture, DecodeEpisode)
    tags = [workload.tokenizer.tag(language) for language in MT_LANGUAGES]
    assert len(set(tags)) == 3
    assert [column[0] for column in columns(mixture)] == [tags[at % 3] for at in range(7)]


@pytest.mark.parametrize("name", ["lm", "mt"])
def test_a_mixture_is_fed_what_its_sequences_were_fed(settled: Callable[..., Case], name: str) -> None:
    workload, episodes, _ = settled(name, "decode")
    known = {
        number: column[:length]
        for episode in episodes
        if isinstance(episode, DecodeEpisode)
        for number, column, length in zip(numbers(episode), columns(episode), lengths(episode), strict=True)
    }
    mixture = workload.mixture("decode", episodes, 9)
    assert isinstance(mixture, DecodeEpisode)
    for number, column, length in zip(numbers(mixture), columns(mixture), lengths(mixture), strict=True):
        assert column[:length] == known[number]
    assert mixture.sources == ()


def test_a_mixture_of_decoding_has_only_sequences_that_have_a_prompt(settled: Callable[..., Case], tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("ab")
    (tmp_path / "long.txt").write_text("x" * 100)
    files = [f"data.files.{stem}={tmp_path / stem}.txt" for stem in ("short", "long")]
    workload, episodes, _ = settled("lm", "decode", *files)
    assert {episode.domain for episode in episodes} == {"long"}
    assert set(numbers(workload.mixture("decode", episodes, 9))) == {2, 3, 4, 5}


@pytest.mark.parametrize(("name", "phase"), PHASES)
def test_a_mixture_can_be_routed_by_a_recorded_trace(
    settled: Callable[..., Case], micro: Micro, tmp_path: Path, name: str, phase: str
) -> None:
    workload, episodes, model = settled(name, phase)
    recipe = load_recipe(str(micro(name)))
    for recorded in recipe.phases:
        record(recipe, recorded, workload.episodes(recorded), model, tmp_path)
    mixture = workload.mixture(phase, episodes, 7)
    own = played(mixture, model)
    force_routing(model, make_forced_routing(load_recipe(str(micro(name)), [f"routing.source=trace:{tmp_path}"])))
    for layer in moe_layers(model):
        layer.router.weight.zero_()
    assert played(mixture, model) == own
