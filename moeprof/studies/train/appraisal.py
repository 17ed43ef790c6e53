"""Measures a trained checkpoint on held-out text, for its model card."""

from pathlib import Path

import torch

from moeprof.analysis.quality import TranslationRow, chrf, whole_sentences
from moeprof.models.build import Model, build_model, make_model, num_parameters
from moeprof.models.checkpoint import check_checkpoint, load_checkpoint
from moeprof.moe.layer import use_variant
from moeprof.records.errors import UsageError
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.weights import file_hash
from moeprof.records.run.model_card import LayerUse, ModelCard, Origin, Twin
from moeprof.studies.passes.quality import translated
from moeprof.studies.train.changes import answers
from moeprof.studies.train.checkpoint import made_by, read_origin
from moeprof.studies.train.corpus import Corpus, make_corpus
from moeprof.studies.train.heldout import cross_entropies
from moeprof.studies.train.study import on_cpu, twin_recipe
from moeprof.studies.train.usage import layer_uses
from moeprof.workloads.episodes import DecodeEpisode, Episode
from moeprof.workloads.registry import make_workload
from moeprof.workloads.tokenizers import make_tokenizer

DECODE_BATCH = 16
HELDOUT_SEQUENCES = 128


def appraise(recipe: Recipe, checkpoint: Path, *, cpu_seconds: float | None = None) -> ModelCard:
    """The contents of the model card; UsageError if the file is not a checkpoint of this recipe.

    It includes a dense twin if `<stem>-twin.safetensors` exists beside the checkpoint.
    """
    origin = checked_origin(recipe, checkpoint, twin=False)
    torch.set_num_threads(recipe.train.threads)
    recipe = card_recipe(on_cpu(recipe), checkpoint)
    corpus = make_corpus(recipe)
    with torch.inference_mode():
        model = build_model(recipe)
        use_variant(model, None)
        heldout = corpus.heldout(HELDOUT_SEQUENCES)
        uses, translated = observed_work(model, recipe)
        return ModelCard(
            origin=origin,
            file_bytes=checkpoint.stat().st_size,
            sha256=file_hash(checkpoint),
            num_parameters=num_parameters(model),
            cpu_seconds=cpu_seconds,
            heldout=cross_entropies(model, heldout),
            chrf=translated,
            twin=appraised_twin(recipe, twin_path(checkpoint), origin, corpus),
            decode_batch=DECODE_BATCH,
            uses=uses,
            answers=answers(model, heldout),
        )


def checked_origin(recipe: Recipe, path: Path, *, twin: bool) -> Origin:
    """The origin of the checkpoint; UsageError if that is another recipe."""
    check_checkpoint(make_model(twin_recipe(recipe) if twin else recipe, dense=twin), path)
    origin = read_origin(path)
    if origin is None or origin.twin != twin or not made_by(origin, recipe):
        raise UsageError(
            f"checkpoint {path}: not trained with this recipe in its present form",
            "Train it again with --force, or undo changes of the recipe or with --set.",
        )
    return origin


def card_recipe(recipe: Recipe, checkpoint: Path) -> Recipe:
    """The recipe with this checkpoint and the card's batch size."""
    model = recipe.model.model_copy(update={"checkpoint": str(checkpoint)})
    load = recipe.load.model_copy(update={"batch_size": DECODE_BATCH})
    return recipe.model_copy(update={"model": model, "load": load})


def observed_work(model: Model, recipe: Recipe) -> tuple[list[LayerUse], dict[str, float]]:
    """The use of experts, and chrF by language if the workload is translation."""
    workload = make_workload(recipe)
    episodes: dict[str, list[Episode]] = {phase: workload.episodes(phase) for phase in recipe.phases}
    uses = layer_uses(model, recipe, episodes)
    tokenizer = make_tokenizer(recipe.own_model.tokenizer, recipe.own_model.vocab_size)
    rows: dict[str, list[TranslationRow]] = {}
    for episode in episodes.get("decode", []):
        if isinstance(episode, DecodeEpisode) and episode.sources:
            rows.setdefault(episode.domain, []).extend(translated(episode, tokenizer))
    return uses, {language: chrf(whole_sentences(found)) for language, found in rows.items() if found}


def twin_path(checkpoint: Path) -> Path:
    """The path of a checkpoint's twin, which may not exist."""
    return checkpoint.with_name(f"{checkpoint.stem}-twin{checkpoint.suffix}")


def appraised_twin(recipe: Recipe, path: Path, origin: Origin, corpus: Corpus) -> Twin | None:
    """The twin's quality on the same text; None if there is no twin."""
    if not path.exists():
        return None
    twin_origin = checked_origin(recipe, path, twin=True)
    if twin_origin.text_hashes != origin.text_hashes or twin_origin.tokens != origin.tokens:
        raise UsageError(
            f"checkpoint {path}: the twin was trained on other text", "Train it again with --force, or move it away."
        )
    twin = make_model(twin_recipe(recipe), dense=True).to_empty(device="cpu")
    load_checkpoint(twin, path)
    heldout = cross_entropies(twin, corpus.heldout(HELDOUT_SEQUENCES))
    return Twin(num_parameters(twin), twin_origin.tokens, heldout)
