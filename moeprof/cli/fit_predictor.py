"""`moeprof fit-predictor`: fits SiDA's predictor of experts to the model of a recipe."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from moeprof.cli.new_file import WEIGHTS, check_place, exists_already
from moeprof.cli.options import resolved_recipes
from moeprof.cli.progress import Bar
from moeprof.records.errors import UsageError
from moeprof.records.limits import MAX_COUNT
from moeprof.records.predictor import FitSettings
from moeprof.records.system.files import reason


@click.command(name="fit-predictor")
@click.argument("recipe")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="FILE.safetensors to write.")
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override a recipe key; repeatable.")
@click.option("--data", multiple=True, metavar="[NAME=]PATH", help="Fit to your own text, divided by document; repeatable.")
@click.option("--tokens", type=click.IntRange(1, MAX_COUNT), metavar="N", help="Tokens of each text to fit on.")
@click.option("--epochs", type=click.IntRange(1, MAX_COUNT), metavar="N", help="How often the text is read.")
@click.option("--batch-size", type=click.IntRange(1, MAX_COUNT), metavar="N", help="Sequences per update.")
@click.option("--learning-rate", type=float, metavar="X", help="Learning rate of AdamW at the beginning; falls to 0.")
@click.option("--ce-weight", type=float, metavar="X", help="Weight of the cross-entropy beside the distillation (lambda).")
@click.option("--positions", type=click.IntRange(1, MAX_COUNT), metavar="N", help="Experts that the distillation compares (T).")
@click.option("--width", type=click.IntRange(1, MAX_COUNT), metavar="N", help="Units of each layer of the predictor.")
@click.option("--seed", type=click.IntRange(0), metavar="N", help="Seed of initial weights and of the order of sequences.")
@click.option("--cpu-minutes", type=float, metavar="M", help="End the training after so much CPU time.")
@click.option("--force", is_flag=True, help="Replace FILE.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
@click.pass_obj
def command(
    context: dict[str, bool],
    /,
    recipe: str,
    out: Path,
    overrides: tuple[str, ...],
    data: tuple[str, ...],
    *,
    force: bool,
    as_json: bool,
    **settings: float | None,
) -> None:
    """Fit SiDA's predictor to the model of RECIPE: it reads the embeddings of tokens and predicts their experts in every MoE layer.

    The model runs over documents of the text, and the predictor is judged on others. The result is compared with the experts of the
    token before, the most frequent experts, and a predictor that was fitted to the decisions of other tokens. Defaults are in
    docs/offloading.md.
    """
    check_output(out, force=force)
    resolved = resolved_recipes([recipe], overrides, data)[0]
    chosen = settings_of(settings)
    from moeprof.reporters.documents.predictor import document_of
    from moeprof.studies.fit_predictor.study import fit_predictor

    with Bar(resolved.name, quiet=context["quiet"]) as bar:
        report = fit_predictor(resolved, out, chosen, bar)
    if as_json:
        click.echo(json.dumps(asdict(report), indent=1))
        return
    from moeprof.cli.output import show_document

    show_document(document_of(report))


def check_output(out: Path, *, force: bool) -> None:
    """UsageError if FILE cannot be written or already exists."""
    check_place(out, WEIGHTS)
    if out.exists() and not force:
        raise exists_already(out)


def settings_of(given: dict[str, float | None]) -> FitSettings:
    """The settings that options name; the others have their defaults. UsageError if one is out of its range."""
    chosen = {name: value for name, value in given.items() if value is not None}
    try:
        return FitSettings.model_validate(chosen)
    except ValueError as error:
        name, _, why = reason(error).partition(": ")
        raise UsageError(
            f"--{name.replace('_', '-')} {chosen[name]}: {why}", "Leave the option out for its default."
        ) from error
