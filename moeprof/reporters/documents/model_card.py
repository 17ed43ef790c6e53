"""The model card of a trained checkpoint, as a document."""

import math
from collections.abc import Iterable, Iterator, Mapping
from statistics import fmean
from typing import Any

from moeprof.records.run.model_card import CurvePoint, LayerUse, ModelCard
from moeprof.records.units import format_bytes, format_count, format_duration
from moeprof.reporters.cells import percent
from moeprof.reporters.documents.document import Block, Bullets, Document, Heading, Paragraph, Table
from moeprof.reporters.formats.markdown import render_document
from moeprof.workloads.documentation import known_distribution

CURVE_POINTS = 8
SIZE_LIMIT = 8_000_000
FRONT_MATTER = """---
library_name: transformers
license: apache-2.0
pipeline_tag: text-generation
tags: [mixture-of-experts]
---

"""
CHRF_LIMIT, JACCARD_LIMIT, INACTIVE_LIMIT = 90.0, 0.5, 0.3


def render(card: ModelCard, name: str) -> str:
    """The model card as markdown; `name` is that of the recipe. In a folder it begins with what Hugging Face's hub reads."""
    return (FRONT_MATTER if in_folder(card) else "") + render_document(document_of(card, name))


def document_of(card: ModelCard, name: str) -> Document:
    """Targets, model, training text, training curve, quality and routing."""
    return [
        Heading(name, level=1),
        Paragraph(f"Created by moeprof train {name}, which measured every number here on the stored weights."),
        Bullets(list(targets(card))),
        Heading("Model"),
        Table(["property", "value"], list(properties(card)), labels=2),
        Heading("Training text"),
        Table(["domain", "SHA-256 of the text"], [[*item] for item in card.origin.text_hashes.items()], labels=2),
        *source_of(card),
        Heading("Training curve"),
        curve_table(card),
        Heading("Held-out quality"),
        *quality_blocks(card),
        Heading("Routing"),
        *routing_blocks(card),
        Heading("Ablations"),
        ablation_table(card),
    ]


def targets(card: ModelCard) -> Iterator[str]:
    """The targets of the checkpoint, and whether it meets them."""
    yield target(card.file_bytes <= SIZE_LIMIT, f"file size {card.file_bytes:,} bytes (target: at most {SIZE_LIMIT:,})")
    if card.chrf:
        worst = min(card.chrf.values())
        yield target(worst >= CHRF_LIMIT, f"chrF at least {worst:.1f} in every language (target: {CHRF_LIMIT:g})")
    if card.twin:
        better = [domain for domain, nats in card.heldout.items() if nats < card.twin.heldout[domain]]
        yield target(
            len(better) == len(card.heldout),
            f"better than the dense twin of hidden width k x F in {len(better)} of {len(card.heldout)} domains",
        )
    dead = sum(use.dead_experts for use in card.uses)
    yield target(not dead, f"{dead} dead experts, summed over phases and layers")
    if jaccards := [value for use in card.uses for value in use.hot_jaccard.values()]:
        yield target(
            min(jaccards) <= JACCARD_LIMIT,
            f"smallest Jaccard index of two domains' hottest quarters of the experts in a layer: {min(jaccards):.2f} "
            f"(target: at most {JACCARD_LIMIT:g})",
        )
    if idle := [value for use in card.uses for value in use.inactive.values()]:
        yield target(
            fmean(idle) >= INACTIVE_LIMIT,
            f"{percent(fmean(idle))} of the experts idle in a decode step with batch {card.decode_batch} "
            f"(target: at least {percent(INACTIVE_LIMIT)})",
        )


def target(met: bool, statement: str) -> str:
    """A target with `met` or `MISSED` before it."""
    return f"{'met' if met else 'MISSED'}: {statement}"


def properties(card: ModelCard) -> Iterator[list[str]]:
    """Rows about the model and its training."""
    model, train = card.origin.recipe["model"], card.origin.recipe["train"]
    yield ["parameters", f"{card.num_parameters:,}"]
    yield from huggingface_shape(model) if in_folder(card) else own_shape(model)
    rounded = "all weights bfloat16; SHA-256 of model.safetensors" if in_folder(card) else "matrices bfloat16; SHA-256"
    yield ["files" if in_folder(card) else "file", f"{format_bytes(card.file_bytes)}, {rounded} {card.sha256}"]
    yield ["training", f"{train['steps']:,} steps, {format_count(card.origin.tokens)} tokens, {train['threads']} threads"]
    if card.cpu_seconds is not None:
        yield ["CPU time", format_duration(card.cpu_seconds * 1e9)]
    rates = f"learning rate {train['learning_rate']:g}, balance loss {train['balance_weight']:g}, z-loss {train['z_weight']:g}"
    optimizer = "Muon and AdamW" if train.get("optimizer") == "muon" else "AdamW"
    yield ["objective", f"cross-entropy; {optimizer}, {rates}"]


def in_folder(card: ModelCard) -> bool:
    """Whether the checkpoint is a folder in Hugging Face layout, whose origin has a configuration of transformers."""
    return "model_type" in card.origin.recipe["model"]


def own_shape(model: Mapping[str, Any]) -> Iterator[list[str]]:
    """Rows about the shape of one of moeprof's own models."""
    layers = "".join(
        f"{model[key]} {word} " for key, word in (("encoder_layers", "encoder"), ("decoder_layers", "decoder")) if model[key]
    )
    placed = "MoE in every layer" if model["moe_every"] == 1 else f"MoE every {model['moe_every']} layers"
    yield ["layers", f"{layers.strip()}, {placed}"]
    yield ["width, experts, expert hidden width", f"{model['dim']}, {model['experts']}, {model['ffn_dim']}"]
    yield ["tokenizer, vocabulary", f"{model['tokenizer']}, {model['vocab_size']}"]


def source_of(card: ModelCard) -> Iterator[Block]:
    """The release behind the documentation, if there is one."""
    train = card.origin.recipe["train"]
    if requirement := train.get("documentation"):
        release, share = known_distribution(requirement), percent(train["documentation_share"])
        if steps := train.get("documentation_steps"):
            share = f"{share} (after {steps:,} steps {percent(train['documentation_later_share'])})"
        yield Paragraph(
            f"The documentation is that of {requirement}, whose source distribution has SHA-256 {release.sha256}; "
            f"{share} of the sequences are from it{disturbance(train)}."
        )


def disturbance(train: Mapping[str, Any]) -> str:
    """What of the documentation is replaced at random, if anything is."""
    noise, smoothing = (train.get(f"documentation_{part}", 0) for part in ("noise", "smoothing"))
    if not noise and not smoothing:
        return ""
    return f", and {percent(noise)} of its input tokens and {percent(smoothing)} of its targets are replaced by others of it"


def huggingface_shape(config: Mapping[str, Any]) -> Iterator[list[str]]:
    """Rows about the shape of a model of transformers."""
    yield ["architecture", f"{config['model_type']}, {config['num_hidden_layers']} layers"]
    experts = config.get("num_experts") or config["num_local_experts"]  # transformers has used both names
    yield ["width, experts, expert hidden width", f"{config['hidden_size']}, {experts}, {config['moe_intermediate_size']}"]
    yield ["experts per token", str(config["num_experts_per_tok"])]
    yield ["tokenizer, vocabulary, longest sequence", f"bytes, {config['vocab_size']}, {config['max_position_embeddings']}"]


def curve_table(card: ModelCard) -> Table:
    """Some points of the training curve, including the last one."""
    domains, curve = list(card.heldout), thinned(card.origin.curve)
    rows = [
        [f"{point.step:,}", format_count(point.tokens), bits(point.loss), *(bits(point.heldout[domain]) for domain in domains)]
        for point in curve
    ]
    caption = "Bits per predicted token: training text since the previous point, then held-out text by domain."
    return Table(["step", "tokens", "training", *domains], rows, labels=0, caption=caption)


def thinned(curve: list[CurvePoint]) -> list[CurvePoint]:
    """At most CURVE_POINTS points, evenly spaced, including the last one."""
    stride = max(1, -(-len(curve) // CURVE_POINTS))
    return curve[::-1][::stride][::-1]


def quality_blocks(card: ModelCard) -> Iterator[Block]:
    """Cross-entropy of the model and its twin, and chrF."""
    in_bytes = in_folder(card) or card.origin.recipe["model"]["tokenizer"] == "bytes"
    unit = "bits per byte" if in_bytes else "bits per token"
    columns = ["domain", unit, *(["dense twin"] if card.twin else []), *(["chrF"] if card.chrf else [])]
    rows = [
        [
            domain,
            bits(nats, 3),
            *([bits(card.twin.heldout[domain], 3)] if card.twin else []),
            *([f"{card.chrf[domain]:.1f}"] if card.chrf else []),
        ]
        for domain, nats in card.heldout.items()
    ]
    yield Table(columns, rows)
    if card.twin:
        yield Paragraph(
            f"The dense twin has FFNs of hidden width k x F: {card.twin.num_parameters:,} parameters, trained on the same "
            f"{format_count(card.twin.tokens)} tokens in the same order."
        )


def routing_blocks(card: ModelCard) -> Iterator[Block]:
    """Differences between domains, and idle experts in a decode step."""
    pairs = list(dict.fromkeys(pair for use in card.uses for pair in use.hot_jaccard))
    yield Table(
        ["phase", "layer", "dead", *pairs],
        [[use.phase, use.layer, str(use.dead_experts), *numbers(use.hot_jaccard, pairs)] for use in card.uses],
        labels=2,
        caption="Dead experts, and the Jaccard index of the hottest quarters of the experts of two domains.",
    )
    if decoding := [use for use in card.uses if use.inactive]:
        yield idle_table(card, decoding)


def idle_table(card: ModelCard, decoding: list[LayerUse]) -> Table:
    """The share of idle experts by layer and domain."""
    domains = list(dict.fromkeys(domain for use in decoding for domain in use.inactive))
    return Table(
        ["layer", *domains, "lower bound"],
        [[use.layer, *idle(use, domains), percent(use.inactive_bound)] for use in decoding],
        caption=f"Share of the experts that are idle in a decode step of {card.decode_batch} running sequences; lower bound = idle "
        "because of the number of tokens alone.",
    )


def idle(use: LayerUse, domains: Iterable[str]) -> list[str]:
    """Idle shares by domain, or dashes."""
    return [percent(use.inactive[domain]) if domain in use.inactive else "-" for domain in domains]


def numbers(values: Mapping[str, float], keys: Iterable[str]) -> list[str]:
    """Values with two digits, or dashes."""
    return [f"{values[key]:.2f}" if key in values else "-" for key in keys]


def ablation_table(card: ModelCard) -> Table:
    """The cost of every ablation in held-out cross-entropy."""
    changed = {"as trained": card.heldout} | card.answers
    usual = fmean(card.heldout.values())
    rows = [
        [name, *(bits(found[domain], 3) for domain in card.heldout), f"{fmean(found.values()) / usual - 1:+.1%}"]
        for name, found in changed.items()
    ]
    caption = "Held-out cross-entropy, bits per predicted token."
    return Table(["change", *card.heldout, "cost"], rows, caption=caption)


def bits(nats: float, digits: int = 2) -> str:
    """A cross-entropy in nats, as bits."""
    return f"{nats / math.log(2):.{digits}f}"
