"""What `moeprof fit-predictor` does: runs the model over documents, trains a network per stack, writes the file, and judges it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import moeprof
from moeprof.instrument.machine import available_memory
from moeprof.models.build import num_parameters
from moeprof.moe.layer import use_variant
from moeprof.predictors.fingerprints import fingerprints
from moeprof.predictors.predictor import ExpertPredictor
from moeprof.records.errors import MoeprofError, UsageError
from moeprof.records.predictor import SCHEMA, FitReport, FitSettings, PredictorHeader, StackHeader, StackName, stacks_of
from moeprof.records.recipe.model import HuggingFaceSection
from moeprof.records.recipe.recipe import ParallelSection, Recipe
from moeprof.records.recipe.variant import OWN, Variant
from moeprof.records.recipe.weights import weights_hash
from moeprof.records.units import format_bytes
from moeprof.studies.fit_predictor.judging import Hits, advantages, frequency, hits_of, predicted, previous, rates, token_table
from moeprof.studies.fit_predictor.lessons import StackLessons, taught
from moeprof.studies.fit_predictor.training import Trained, train
from moeprof.studies.progress import Progress, Silent
from moeprof.studies.services import RunModel, load_models
from moeprof.workloads.calibration.episodes import episodes
from moeprof.workloads.calibration.halves import Half, halves

DROPLESS = Variant("dynamic")

COPIES = 3
"""How often the recorded values are in memory at most: as recorded, joined, and as the placebo has them."""

WIDEST = 256
"""Units of the paper's predictor."""


@dataclass(frozen=True, eq=False)
class Lessons:
    """What the routers decided for the documents of one half, by stack."""

    half: Half
    stacks: Mapping[StackName, StackLessons]


def fit_predictor(recipe: Recipe, out: Path, settings: FitSettings, progress: Progress | None = None) -> FitReport:
    """Writes the predictor `out` of the recipe's model; UsageError if the text is too short or the routing forced."""
    progress = progress or Silent()
    if recipe.forced:
        raise UsageError(
            f"recipe {recipe.name}: routing.source is {recipe.routing.source!r}, which no token decides",
            "Fit to the model's own routing: --set routing.source=model",
        )
    recipe = recipe.model_copy(update={"parallel": ParallelSection()})
    parts = halves(recipe, settings.tokens)
    check_memory(recipe, parts[0])
    fitted, judged = observed(recipe, parts, progress)
    header = header_of(recipe, fitted, settings)
    trained, placebo = trainings(fitted, header, progress)
    predictor = ExpertPredictor(header, fingerprints(text for texts in parts[0].documents.values() for text in texts))
    predictor.networks = {stack: found.network for stack, found in trained.items()}
    predictor.write(out)
    hits = [hit for stack in header.stacks for hit in judge(stack, fitted, judged, trained, placebo)]
    return FitReport(
        file=str(out),
        recipe=recipe.name,
        top_k=recipe.gating.top_k,
        fitted_documents=parts[0].num_documents,
        fitted_tokens=sum(len(found.token_T) for found in fitted.stacks.values()),
        heldout_documents=parts[1].num_documents,
        heldout_tokens=sum(len(found.token_T) for found in judged.stacks.values()),
        num_parameters=sum(num_parameters(found.network) for found in trained.values()),
        epochs=min(found.epochs for found in trained.values()),
        epochs_asked=settings.epochs,
        cpu_seconds=sum(found.cpu_seconds for found in trained.values()),
        rates=rates(hits, recipe.gating.top_k),
        advantages=advantages(hits, recipe.gating.top_k, "sida"),
    )


def check_memory(recipe: Recipe, half: Half) -> None:
    """MoeprofError if what is recorded of the documents does not fit in the free memory."""
    shapes, tokens = stacks_of(recipe.model), sum(len(excerpt.tokens) for excerpt in half.excerpts)
    generated = recipe.load.decode_steps * len(half.excerpts) if recipe.workload == "mt" else 0
    rows = {"encoder": tokens, "decoder": generated or tokens}
    values = sum(
        rows[stack] * (recipe.model.dim + sum(count + 2 * recipe.gating.top_k for count in shape.layers.values()))
        for stack, shape in shapes.items()
    )
    if (needed := 4 * COPIES * values) > (free := available_memory("cpu")):
        raise MoeprofError(
            f"recipe {recipe.name}: {format_bytes(needed)} of embeddings and routing to learn from, but {format_bytes(free)} are free",
            "Fit on fewer tokens with --tokens N.",
        )


def observed(recipe: Recipe, parts: tuple[Half, Half], progress: Progress) -> tuple[Lessons, Lessons]:
    """Runs the model, without dropping choices, over both halves."""
    variant = OWN if isinstance(recipe.model, HuggingFaceSection) else DROPLESS
    model: RunModel = load_models(recipe, [variant], progress)[variant]
    use_variant(model, variant)
    found = []
    for half, title in zip(parts, ("documents to fit on", "held-out documents"), strict=True):
        work = list(episodes(recipe, half.excerpts))
        progress.stage(title, len(work))
        found.append(Lessons(half, taught(model, work, stacks_of(recipe.model), progress)))
    return found[0], found[1]


def header_of(recipe: Recipe, fitted: Lessons, settings: FitSettings) -> PredictorHeader:
    """What the file says about itself."""
    dim = next(iter(fitted.stacks.values())).x_TD.shape[1]
    return PredictorHeader(
        schema_version=SCHEMA,
        moeprof_version=moeprof.__version__,
        kind="sida",
        recipe=recipe.name,
        weights_hash=weights_hash(recipe),
        dim=dim,
        top_k=recipe.gating.top_k,
        width=settings.width or min(dim, WIDEST),
        stacks=stacks_of(recipe.model),
        text_hashes=fitted.half.hashes,
        documents=fitted.half.num_documents,
        settings=settings,
    )


def trainings(
    fitted: Lessons, header: PredictorHeader, progress: Progress
) -> tuple[dict[StackName, Trained], dict[StackName, Trained]]:
    """The networks of all stacks, and those that get the decisions of other tokens; all share the limit on CPU time."""
    settings = header.settings.model_copy(update={"cpu_minutes": header.settings.cpu_minutes / (2 * len(header.stacks))})
    progress.stage("training", 2 * len(header.stacks) * settings.epochs)

    def network(lessons: StackLessons, shape: StackHeader) -> Trained:
        return train(lessons, shape, settings, header.width, progress.advance)

    trained = {stack: network(fitted.stacks[stack], shape) for stack, shape in header.stacks.items()}
    placebo = {stack: network(fitted.stacks[stack].shuffled(settings.seed), shape) for stack, shape in header.stacks.items()}
    return trained, placebo


def judge(
    stack: StackName,
    fitted: Lessons,
    judged: Lessons,
    trained: Mapping[StackName, Trained],
    placebo: Mapping[StackName, Trained],
) -> list[Hits]:
    """The hits of the predictor of a stack, and of everything that it is compared with, on the held-out documents."""
    known, lessons = fitted.stacks[stack], judged.stacks[stack]
    document_T = np.array([excerpt.document for excerpt in judged.half.excerpts])[lessons.sequence_T.numpy()]
    methods = {
        "sida": predicted(trained[stack].network),
        "token": token_table(known),
        "previous": previous(known),
        "frequency": frequency(known),
        "shuffled": predicted(placebo[stack].network),
    }
    return list(hits_of(stack, lessons, document_T, judged.half.num_documents, methods))
