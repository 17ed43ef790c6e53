"""Who is held against whom, and which variant the shared model runs as."""

from pathlib import Path

import pytest
import torch
from moeprof.studies.session import FEW_STEPS, Session, beginning, first_of_each_domain, load_models

from moeprof.instrument.clock import wall_clock
from moeprof.moe.layer import moe_layers
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.variant import DENSE, STATIC, Variant
from moeprof.records.run.run import RunRecord
from moeprof.records.run.writer import RunWriter
from moeprof.studies.progress import Silent
from moeprof.workloads.episodes import DecodeEpisode
from moeprof.workloads.registry import make_workload

from .runs import DYNAMIC, TUTEL, Micro


def session_of(micro: Micro, tmp_path: Path, *variants: Variant) -> Session:
    recipe = load_recipe(str(micro("lm")))
    writer = RunWriter(tmp_path / "run", RunRecord(command="optimize", recipe=recipe))
    return Session(recipe, writer, wall_clock, Silent(), load_models(recipe, variants, Silent()))


def test_all_variants_share_one_model_and_the_twin_has_its_own(micro: Micro, tmp_path: Path) -> None:
    contenders = session_of(micro, tmp_path, STATIC, DENSE, TUTEL, DYNAMIC).contenders
    assert list(contenders) == [STATIC, DENSE, TUTEL, DYNAMIC]
    assert contenders[STATIC] is contenders[TUTEL] is contenders[DYNAMIC]
    assert contenders[DENSE] is not contenders[STATIC]
    assert moe_layers(contenders[STATIC])
    assert not moe_layers(contenders[DENSE])


def test_using_a_contender_switches_the_shared_model(micro: Micro, tmp_path: Path) -> None:
    session = session_of(micro, tmp_path, STATIC, DYNAMIC)
    for variant in (DYNAMIC, STATIC, DYNAMIC):
        model = session.use(variant)
        assert {layer.variant for layer in moe_layers(model)} == {variant}
    assert {layer.variant for layer in moe_layers(session.use_label("static"))} == {STATIC}
    assert {layer.variant for layer in moe_layers(session.use_label("dynamic+loop"))} == {DYNAMIC}


@pytest.mark.parametrize(
    ("variants", "baseline"),
    [((STATIC, DYNAMIC), STATIC), ((DENSE, STATIC, DYNAMIC), STATIC), ((TUTEL, DYNAMIC, STATIC), TUTEL)],
)
def test_the_baseline_is_the_first_contender_with_experts(
    micro: Micro, tmp_path: Path, variants: tuple[Variant, ...], baseline: Variant
) -> None:
    assert session_of(micro, tmp_path, *variants).baseline == baseline


def test_what_differs_in_one_phase_is_told_in_the_other(micro: Micro, tmp_path: Path) -> None:
    session = session_of(micro, tmp_path, STATIC, DYNAMIC)
    session.unequal.add(("score", DYNAMIC))
    assert session.untold("score") == ["dynamic+loop"]
    assert session.untold("decode") == []


def test_timed_are_the_first_batches_of_the_domains_in_their_order(micro: Micro) -> None:
    episodes = make_workload(load_recipe(str(micro("lm")))).episodes("score")
    assert [episode.batch.index for episode in episodes] == [0, 1, 2, 3, 4, 5]
    assert [(episode.domain, episode.batch.index) for episode in first_of_each_domain(episodes)] == [
        ("prose", 0),
        ("code", 2),
        ("records", 4),
    ]


def test_the_beginning_of_decoding_is_a_few_steps_and_leaves_the_whole_alone(micro: Micro, tmp_path: Path) -> None:
    session = session_of(micro, tmp_path, STATIC)
    workload = make_workload(load_recipe(str(micro("lm")), ["load.decode_steps=7"]))
    score, decode = workload.episodes("score")[0], workload.episodes("decode")[0]
    assert isinstance(decode, DecodeEpisode)
    with torch.inference_mode():
        decode.settle(session.use(STATIC))
    short = beginning(decode)
    assert isinstance(short, DecodeEpisode)
    assert len(short.steps) == len(short.tokens_NB) == FEW_STEPS == 4
    assert short.steps == decode.steps[:4]
    assert len(decode.steps) == len(decode.tokens_NB) == 7
    assert beginning(score) is score
