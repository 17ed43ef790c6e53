"""Measures a trained checkpoint on held-out text, for its model card."""

from collections.abc import Mapping
from pathlib import Path

import torch

from moeprof.analysis.quality import TranslationRow, chrf, whole_sentences
from moeprof.models.build import make_model, num_parameters
from moeprof.models.checkpoint import check_checkpoint
from moeprof.records.errors import UsageError
from moeprof.records.recipe.model import ModelSection
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.weights import file_hash
from moeprof.records.run.model_card import CARD, LayerUse, ModelCard, Origin, Twin
from moeprof.store.checkpoint_folder import read_folder
from moeprof.studies.passes.quality import translated
from moeprof.studies.train.changes import answers
from moeprof.studies.train.checkpoint import made_by, read_origin, weights_file
from moeprof.studies.train.corpus import make_corpus
from moeprof.studies.train.heldout import cross_entropies
from moeprof.studies.train.learner import Learner
from moeprof.studies.train.learners import trained
from moeprof.studies.train.lessons import Lesson
from moeprof.studies.train.own import OwnLearner, twin_recipe
from moeprof.studies.train.study import on_cpu
from moeprof.studies.train.usage import layer_uses, lesson_uses
from moeprof.workloads.episodes import DecodeEpisode, Episode
from moeprof.workloads.registry import make_workload
from moeprof.workloads.tokenizers import make_tokenizer

DECODE_BATCH = 16
HELDOUT_SEQUENCES = 128


def appraise(recipe: Recipe, checkpoint: Path, *, cpu_seconds: float | None = None) -> ModelCard:
    """The contents of the model card; UsageError if it is not a checkpoint of this recipe.

    It includes a dense twin if `<stem>-twin.safetensors` exists beside the checkpoint.
    """
    origin = checked_origin(recipe, checkpoint, twin=False)
    torch.set_num_threads(recipe.train.threads)
    recipe = card_recipe(on_cpu(recipe))
    corpus = make_corpus(recipe)
    with torch.inference_mode():
        learner = trained(recipe, checkpoint, twin=False)
        heldout = corpus.heldout(HELDOUT_SEQUENCES)
        uses, chrfs = observed_work(learner, recipe, heldout)
        return ModelCard(
            origin=origin,
            file_bytes=size_of(checkpoint),
            sha256=file_hash(weights_file(checkpoint)),
            num_parameters=num_parameters(learner.model),
            cpu_seconds=cpu_seconds,
            heldout=cross_entropies(learner, heldout),
            chrf=chrfs,
            twin=appraised_twin(recipe, twin_path(checkpoint), origin, heldout),
            decode_batch=DECODE_BATCH,
            uses=uses,
            answers=answers(learner, heldout),
        )


def size_of(checkpoint: Path) -> int:
    """Bytes of a checkpoint, without the model card if that is in its folder."""
    if not checkpoint.is_dir():
        return checkpoint.stat().st_size
    return sum(path.stat().st_size for path in checkpoint.iterdir() if path.name != CARD)


def checked_origin(recipe: Recipe, path: Path, *, twin: bool) -> Origin:
    """The origin of the checkpoint; UsageError if that is another recipe."""
    check_shapes(recipe, path, twin=twin)
    origin = read_origin(path)
    if origin is None or origin.twin != twin or not made_by(origin, recipe):
        raise UsageError(
            f"checkpoint {path}: not trained with this recipe in its present form",
            "Train it again with --force, or undo changes of the recipe or with --set.",
        )
    return origin


def check_shapes(recipe: Recipe, path: Path, *, twin: bool) -> None:
    """UsageError if the checkpoint is missing, or has other shapes than the recipe's model."""
    if isinstance(recipe.model, ModelSection):
        check_checkpoint(make_model(twin_recipe(recipe) if twin else recipe, dense=twin), path)
    else:
        read_folder(path, str(path))


def card_recipe(recipe: Recipe) -> Recipe:
    """The recipe with the card's batch size."""
    return recipe.model_copy(update={"load": recipe.load.model_copy(update={"batch_size": DECODE_BATCH})})


def observed_work(learner: Learner, recipe: Recipe, heldout: Mapping[str, Lesson]) -> tuple[list[LayerUse], dict[str, float]]:
    """The use of experts, and chrF by language if the workload is translation."""
    if not isinstance(learner, OwnLearner):
        return lesson_uses(learner, heldout), {}
    workload = make_workload(recipe)
    episodes: dict[str, list[Episode]] = {phase: workload.episodes(phase) for phase in recipe.phases}
    uses = layer_uses(learner.model, recipe, episodes)
    tokenizer = make_tokenizer(recipe.own_model.tokenizer, recipe.own_model.vocab_size)
    rows: dict[str, list[TranslationRow]] = {}
    for episode in episodes.get("decode", []):
        if isinstance(episode, DecodeEpisode) and episode.sources:
            rows.setdefault(episode.domain, []).extend(translated(episode, tokenizer))
    return uses, {language: chrf(whole_sentences(found)) for language, found in rows.items() if found}


def twin_path(checkpoint: Path) -> Path:
    """The path of a checkpoint's twin, which may not exist."""
    return checkpoint.with_name(f"{checkpoint.stem}-twin{checkpoint.suffix}")


def appraised_twin(recipe: Recipe, path: Path, origin: Origin, heldout: Mapping[str, Lesson]) -> Twin | None:
    """The twin's quality on the same text; None if there is no twin."""
    if not path.exists():
        return None
    twin_origin = checked_origin(recipe, path, twin=True)
    if twin_origin.text_hashes != origin.text_hashes or twin_origin.tokens != origin.tokens:
        raise UsageError(
            f"checkpoint {path}: the twin was trained on other text", "Train it again with --force, or move it away."
        )
    twin = trained(recipe, path, twin=True)
    return Twin(num_parameters(twin.model), twin_origin.tokens, cross_entropies(twin, heldout))
