"""What a run of a Hugging Face model will do, and about what memory and time it takes, before it starts."""

import time

import torch

from moeprof.analysis.model_size import flops_per_token, memory_need
from moeprof.records.recipe.model import HuggingFaceSection
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import OWN
from moeprof.records.units import NS_PER_S, format_bytes, format_count, format_duration
from moeprof.studies.feasibility import check_device

ROWS, SIDE = 256, 1024
"""Sizes of the matrices whose product shows how fast this machine computes."""

DEFAULT_DOMAINS = 3
"""Domains of the default text."""


def announcement(recipe: Recipe, section: HuggingFaceSection) -> str:
    """One line: the model, the work of a run, and an estimate of its memory and time. MoeprofError if its device is not available."""
    check_device(recipe)
    load, layers = recipe.load, section.layers
    experts = f"{len(layers)} MoE layers of {section.experts} experts, top-{recipe.gating.top_k}"
    size = f"{format_count(section.num_parameters)} parameters, {format_bytes(section.weight_bytes)} in {section.dtype}"
    work = (
        f"batch {load.batch_size} x {load.sequence_length} tokens, {load.batches} batches per domain, {load.decode_steps} decode steps "
        f"after {load.prompt_length} tokens, {recipe.measure.rounds} rounds"
    )
    need = format_bytes(memory_need(recipe, variants=(OWN,)).total)
    about = format_duration(expected_seconds(recipe) * NS_PER_S)
    cost = f"It needs about {need} and at least {about} of compute."
    return f"{section.huggingface}: {section.architecture}, {experts}; {size}. {work}. {cost}"


def expected_seconds(recipe: Recipe) -> float:
    """From the FLOPs of a run's tokens, and the bytes of weights that its decode steps read, at this machine's measured speed."""
    domains, load = len(recipe.data.files) or DEFAULT_DOMAINS, recipe.load
    timed = recipe.measure.warmup + 2 * recipe.measure.rounds + 2
    passes = domains * (timed + 3 * load.batches)
    flops, flops_per_second = flops_per_token(recipe), measured_flops(recipe)
    whole = passes * load.batch_size * load.sequence_length * flops / flops_per_second
    steps = passes * load.decode_steps * max(load.batch_size * flops / flops_per_second, read_seconds(recipe))
    phases = recipe.phases
    return (whole if {"score", "encode"} & {*phases} else 0.0) + (steps if "decode" in phases else 0.0)


def read_seconds(recipe: Recipe) -> float:
    """Time to read the weights that one token uses, at the measured speed of a copy."""
    block = torch.zeros(2**26, dtype=torch.uint8, device=recipe.measure.device)
    started = time.perf_counter()
    int(block.clone()[-1])
    per_byte = (time.perf_counter() - started) / (2 * block.nbytes)
    return flops_per_token(recipe) / 2 * recipe.model.bytes_per_element * per_byte


def measured_flops(recipe: Recipe) -> float:
    """FLOPs per second of a small product of matrices in the model's type."""
    kind = {"dtype": getattr(torch, recipe.model.dtype), "device": recipe.measure.device}
    left, right = torch.ones(ROWS, SIDE, **kind), torch.ones(SIDE, SIDE, **kind)
    float((left @ right)[0, 0])
    started = time.perf_counter()
    float((left @ right)[0, 0])
    return 2 * ROWS * SIDE * SIDE / (time.perf_counter() - started)
