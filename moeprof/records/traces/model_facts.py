"""What the config.json of a model says about its experts: which layers have them, how many there are, and how many a token chooses.

The keys are those of transformers' configurations and of the checkpoints on Hugging Face.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moeprof.records.limits import MAX_EXPERTS, MAX_LAYERS
from moeprof.records.system.inputs import InputFile, reported
from moeprof.records.traces.layer_map import LayerMap

Config = Mapping[str, Any]

NESTED = ("text_config", "llm_config", "language_config", "thinker_config")
"""Where the configuration of a model of several modalities keeps that of its language model."""

EXPERTS = (
    "n_routed_experts",
    "num_local_experts",
    "num_experts",
    "moe_num_experts",
    "num_routed_experts",
    "moe_num_routed_experts",
    "n_experts",
    "num_moe_experts",
)
TOP_K = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "moe_topk",
    "moe_top_k",
    "moe_k",
    "top_k_experts",
    "experts_per_token",
    "num_experts_per_topk",
    "num_selected_experts",
    "moe_router_topk",
)


@dataclass(frozen=True)
class ModelFacts:
    """Facts of a model that its traces need."""

    layers: LayerMap
    experts: int
    top_k: int | None
    """None if the configuration does not say."""


def read_model_facts(path: Path) -> ModelFacts:
    """The facts of a config.json, or of the one in a model's folder; UsageError if it cannot be read or states none."""
    file = path / "config.json" if path.is_dir() else path
    with reported(
        f"--model-config {file}", "Give the config.json of a Mixture-of-Experts model, or state --layers MAP in its place."
    ):
        config = InputFile(file).json()
        if not isinstance(config, dict):
            raise ValueError("not a JSON object")
        return facts_of(config)


def facts_of(config: Config) -> ModelFacts:
    """The facts of a configuration; ValueError if it has no experts, or does not say which layers have them."""
    config = {key: value for key, value in innermost(config).items() if value is not None}
    if "encoder_layers" in config or config.get("is_encoder_decoder"):
        raise ValueError("an encoder-decoder numbers the layers of two stacks")
    experts, top_k = number(config, EXPERTS, MAX_EXPERTS), number(config, TOP_K, MAX_EXPERTS)
    if experts is None:
        raise ValueError("it states no number of experts, so this is no Mixture-of-Experts model")
    if top_k is not None and top_k > experts:
        raise ValueError(f"a token chooses {top_k} experts, but there are {experts}")
    count = number(config, ("num_hidden_layers", "num_layers", "n_layers", "n_layer"), MAX_LAYERS)
    if count is None:
        raise ValueError("it states no number of layers")
    moe_layers = tuple(layer for layer in range(count) if all(has_experts(layer) for has_experts in rules_of(config, count)))
    if not moe_layers:
        raise ValueError("by its keys no layer has experts")
    return ModelFacts(LayerMap(moe_layers, count), experts, top_k)


def innermost(config: Config) -> Config:
    """The configuration of the language model."""
    for key in NESTED:
        if isinstance(config.get(key), dict):
            return innermost(config[key])
    return config


def number(config: Config, keys: tuple[str, ...], most: int) -> int | None:
    """The number that is stated under one of several keys, or under several alike; ValueError if they differ or it is none."""
    stated = {key: config[key] for key in keys if key in config}
    for key, value in stated.items():
        if type(value) is not int or not 1 <= value <= most:
            raise ValueError(f"{key} = {str(value)[:40]} is not a whole number from 1 to {most}")
    if len(set(stated.values())) > 1:
        raise ValueError(f"{' and '.join(stated)} state different numbers")
    return next(iter(stated.values()), None)


LayerRule = Callable[[int], bool]
"""Whether a layer has experts, as far as one key says."""


def rules_of(config: Config, count: int) -> list[LayerRule]:
    """What the keys say; a list of layers replaces all other keys. ValueError for a key about layers that is not known."""
    layered = {key for key in config if LAYERED.search(key) and key not in IRRELEVANT}
    if unknown := layered - {*LISTS, *PATTERNS, *COMPANIONS}:
        raise ValueError(f"{min(unknown)} is not known, and may say which layers have experts")
    if lists := [key for key in LISTS if isinstance(config.get(key), list | str)]:
        return [listed(lists[0], LISTS[lists[0]](config[lists[0]]), count)]
    return [rule for key, make in PATTERNS.items() if key in config for rule in [make(config)]]


LAYERED = re.compile(
    r"(moe|expert|mlp|sparse|dense|ffn).*(layer(?!_?norm)|step|freq|replace|period|interval)"
    r"|layers?_(moe|expert|mlp|sparse|dense|block)|hybrid_override"
)
"""Keys that may say which layers have experts."""

IRRELEVANT = {"encoder_sparse_step", "mtp_hybrid_override_pattern", "mtp_mlp_layer_types", "mtp_layers_block_type"}
COMPANIONS = {"expert_layer_offset", "moe_layer_start_index", "moe_layer_end_index"}
"""Keys that only say something beside another one."""


def layers_named(value: object) -> set[int]:
    """Layers in a list of numbers, or in a text of them."""
    parts = value.split(",") if isinstance(value, str) else value
    return {int(part) for part in parts} if isinstance(parts, list) else set()


def layers_marked(*marks: object) -> Callable[[Any], set[int]]:
    """Layers at whose place a list, or a text of letters, has one of the marks."""
    return lambda value: {layer for layer, mark in enumerate(value) if mark in marks}


LISTS: dict[str, Callable[[Any], set[int]]] = {
    "mlp_layer_types": layers_marked("sparse", "moe"),
    "moe_layers_enum": layers_named,
    "moe_layers": layers_named,
    "moe_layer_freq": layers_marked(1, True),
    "hybrid_override_pattern": layers_marked("E"),
    "layers_block_type": layers_marked("moe"),
}


def listed(key: str, layers: set[int], count: int) -> LayerRule:
    """Layers of a list; ValueError if one is not of the model."""
    if not layers or not 0 <= min(layers) <= max(layers) < count:
        raise ValueError(f"{key} does not name layers from 0 to {count - 1}")
    return layers.__contains__


def whole(config: Config, key: str, default: int, least: int = 0) -> int:
    """A number of a key; ValueError if it is none, or is below the least."""
    value = config.get(key, default)
    if type(value) is not int or value < least:
        raise ValueError(f"{key} = {str(value)[:40]} is not a whole number of at least {least}")
    return value


def every(config: Config, key: str, offset: int) -> LayerRule:
    """Layers at a distance of the key's number, the first at an offset; 0 means none."""
    step = whole(config, key, 1)
    return lambda layer: step > 0 and (layer - offset) % step == 0


def from_layer(key: str) -> Callable[[Config], LayerRule]:
    """Layers from a number on."""
    return lambda config: range(whole(config, key, 0), MAX_LAYERS).__contains__


def between(config: Config) -> LayerRule:
    """Layers of ERNIE 4.5: every n-th from a first to a last one, -1 for the end of the model."""
    step, first = whole(config, "moe_layer_interval", 1, 1), whole(config, "moe_layer_start_index", 0)
    last = whole(config, "moe_layer_end_index", -1, -1)
    return lambda layer: first <= layer <= (MAX_LAYERS if last < 0 else last) and (layer + 1) % step == 0


PATTERNS: dict[str, Callable[[Config], LayerRule]] = {
    "first_k_dense_replace": from_layer("first_k_dense_replace"),
    "num_dense_layers": from_layer("num_dense_layers"),
    "moe_layer_freq": lambda config: every(config, "moe_layer_freq", 0),
    "decoder_sparse_step": lambda config: every(config, "decoder_sparse_step", -1),
    "mlp_only_layers": lambda config: lambda layer: layer not in layers_named(config["mlp_only_layers"]),
    "interleave_moe_layer_step": lambda config: every(config, "interleave_moe_layer_step", -1),
    "expert_layer_period": lambda config: every(config, "expert_layer_period", whole(config, "expert_layer_offset", 0)),
    "moe_layer_interval": between,
}
