"""Builds a model of transformers from a checkpoint folder: whole, or all but its experts, which are then streamed from the folder.

Weights are read from safetensors files only, and no code of the folder is run unless the user trusts it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

import torch

from moeprof.huggingface.shards import ExpertShards, WeightMap, expert_parameters, loading_info
from moeprof.huggingface.sites import find_sites
from moeprof.records.system.files import reason
from moeprof.store.checkpoint_folder import CONFIG, CheckpointFolder
from moeprof.store.tensor_files import TensorFiles

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

ExpertsBackend = Literal["keep", "eager", "grouped_mm", "batched_mm"]
"""How a model computes its experts; `keep` leaves the choice of its configuration."""


@dataclass(frozen=True)
class Options:
    """How a model is built."""

    dtype: torch.dtype | None = None
    """None for that of the checkpoint."""
    device: str = "cpu"
    device_map: str | None = None
    """`auto` spreads the model over all devices; it takes the place of `device`."""
    experts_backend: ExpertsBackend = "keep"
    trust_remote_code: bool = False


@dataclass(frozen=True)
class Estimate:
    """The bytes that a model needs in memory, from the headers of its files alone."""

    resident_bytes: int
    """Of all weights but the experts, in the type that they are loaded in."""
    expert_bytes: int
    stored_bytes: int
    """Of all weights in the files."""


def load_model(folder: CheckpointFolder, options: Options = Options()) -> "PreTrainedModel":
    """The whole model, as transformers' own `from_pretrained` builds it; UsageError if the folder does not fit its configuration."""
    model = skeleton(folder, options)
    if not quantization(folder):
        WeightMap(folder, model)
    loaded, found = from_pretrained(model, folder, options)
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        if names := found[what]:
            raise folder.refused(
                f"{what.partition('_')[0]} weights: {min(map(str, names))}", "Use the config.json of these weights."
            )
    return chosen(loaded, folder, options)


def from_pretrained(
    model: "PreTrainedModel", folder: CheckpointFolder, options: Options
) -> tuple["PreTrainedModel", dict[str, Any]]:
    """The model that transformers loads, and what it says about the names; UsageError if devices cannot hold it."""
    if options.device_map and options.device == "cpu" and torch.cuda.is_available():
        raise folder.refused("--device-map auto places it on the GPUs, and the run is on the cpu", "Add --device cuda.")
    place = options.device_map or (None if options.device == "cpu" else {"": options.device})
    too_large = folder.refused(
        "it is larger than the memory of all devices, so --device-map auto would leave layers on disk",
        "Use a smaller --dtype, or more memory; moeprof optimize --expert-buffering reads experts from the files of the model.",
    )
    try:
        with quiet():
            loaded, found = type(model).from_pretrained(
                folder.path,
                config=model.config,
                dtype=model.config.dtype,
                device_map=place,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=options.trust_remote_code,
                output_loading_info=True,
            )
    except ValueError as error:
        if "offload" in str(error):
            raise too_large from error
        raise
    if "disk" in getattr(loaded, "hf_device_map", {}).values():
        raise too_large
    return loaded, found


def load_resident(folder: CheckpointFolder, options: Options = Options()) -> tuple["PreTrainedModel", ExpertShards]:
    """The model with the parameters of its experts on the meta device, of which nothing is read, and what reads single experts.

    The process takes the memory of the other weights, and of the inputs of one operation that makes one of them.
    """
    if method := quantization(folder):
        what = f"its weights are quantized ({method}), so single experts cannot be read"
        raise folder.refused(what, "Load the whole model, or use a checkpoint that is not quantized.")
    model = skeleton(folder, options)
    weights = WeightMap(folder, model)
    with quiet(), torch.no_grad():
        fill(model, weights, set(expert_parameters(model)), torch.device(options.device))
    return chosen(model, folder, options).eval(), ExpertShards(weights)


def fill(model: "PreTrainedModel", weights: WeightMap, skipped: set[str], device: torch.device) -> None:
    """Loads all parameters and buffers but those `skipped`, which stay on the meta device, and computes buffers that no file has."""
    from transformers.core_model_loading import set_param_for_module
    from transformers.modeling_utils import LoadStateDictConfig

    files, found = TensorFiles(), loading_info(missing=set(weights.state) - skipped)
    for target in weights.targets.values():
        if not skipped.issuperset(target.names):
            for name, value in weights.tensors(target, files).items():
                if name not in skipped:
                    set_param_for_module(model, name, value.to(device), found, None)
    files.close()
    if found.mismatched_keys:
        name, stored, wanted = min(found.mismatched_keys)
        raise weights.folder.refused(
            f"{name} is {tuple(stored)}, {CONFIG} makes it {tuple(wanted)}", "Use the right config.json."
        )
    for name in skipped:
        model.get_parameter(name)._is_hf_initialized = True
    model._finalize_model_loading(model, LoadStateDictConfig(device_map={"": device}), found)


def chosen(model: "PreTrainedModel", folder: CheckpointFolder, options: Options) -> "PreTrainedModel":
    """The model with the chosen backend of experts and the generation settings of its folder; UsageError if it cannot have the backend."""
    from transformers import GenerationConfig

    if (folder.path / "generation_config.json").is_file() and model.can_generate():
        model.generation_config = GenerationConfig.from_pretrained(folder.path)
    if options.experts_backend != "keep":
        what = f"{type(model).__name__} cannot compute its experts with {options.experts_backend}"
        try:
            model.set_experts_implementation(options.experts_backend)
        except (ImportError, RuntimeError, ValueError) as error:
            raise folder.refused(f"{what}: {reason(error)}", "Use --experts-backend keep.") from error
        if options.experts_backend not in model.get_experts_implementation().values():
            raise folder.refused(f"{what}: its class has one way of its own", "Use --experts-backend keep.")
    return model


def estimate(folder: CheckpointFolder, options: Options = Options()) -> Estimate:
    """What the model needs, without reading or allocating weights; UsageError if the folder does not fit its configuration."""
    model = skeleton(folder, options)
    if not quantization(folder):
        WeightMap(folder, model)
    sizes = {name: each.nbytes for name, each in [*model.named_parameters(), *model.named_buffers()]}
    experts = sum(site.num_experts * site.expert_bytes for site in find_sites(model))
    stored = sum(tensor.num_bytes for tensor in folder.tensors.values())
    return Estimate(sum(sizes.values()) - experts, experts, stored)


def skeleton(folder: CheckpointFolder, options: Options = Options()) -> "PreTrainedModel":
    """The model on the meta device, every parameter and stored buffer in the type that it is loaded in."""
    from transformers.core_model_loading import build_glob_alternation

    config = configuration(folder, options.trust_remote_code)
    dtype = options.dtype or dtype_of(folder, config)
    refuse_quantization(folder, config, options)
    build = builder(folder, config, options.trust_remote_code)
    try:
        with quiet(), torch.device("meta"):
            model = build(dtype=dtype)
    except Exception as error:
        raise folder.refused(f"{CONFIG} makes no model: {type(error).__name__}: {reason(error)}", "Correct it.") from error
    if plan := model._get_dtype_plan(dtype):
        pattern, _, _ = build_glob_alternation(list(plan))
        for name, tensor in model.state_dict(keep_vars=True).items():
            if pattern.search(name):
                tensor.data = tensor.data.float()
    return model


def configuration(folder: CheckpointFolder, trust_remote_code: bool) -> "PreTrainedConfig":
    """The configuration as transformers reads it; UsageError if it is refused, needs code of the folder or a newer transformers."""
    from transformers import CONFIG_MAPPING, AutoConfig

    if folder.model_type not in CONFIG_MAPPING and not (trust_remote_code and "auto_map" in folder.config):
        if "auto_map" in folder.config:
            raise folder.refused(f"{folder.model_type} needs code from the folder", "Read it, then add --trust-remote-code.")
        what = f"transformers {version('transformers')} does not know the architecture {folder.model_type}"
        raise folder.refused(what, "Install a transformers that does: pip install --upgrade transformers")
    try:
        with quiet():
            return AutoConfig.from_pretrained(folder.path, trust_remote_code=trust_remote_code, local_files_only=True)
    except Exception as error:
        raise folder.refused(f"{CONFIG} is not valid: {type(error).__name__}: {reason(error)}", "Correct it.") from error


def builder(folder: CheckpointFolder, config: "PreTrainedConfig", trust_remote_code: bool) -> Callable[..., "PreTrainedModel"]:
    """What builds the model: the class that the configuration names, code of a trusted folder, or the class for this configuration."""
    import transformers

    remote = config.auto_map if trust_remote_code and hasattr(config, "auto_map") else {}
    named: Any = getattr(transformers, next(iter(config.architectures or ()), ""), None)
    if not remote and getattr(named, "config_class", None) is type(config) and named.can_generate():
        return partial(named._from_config, config)
    for kind in (
        transformers.AutoModelForCausalLM,
        transformers.AutoModelForSeq2SeqLM,
        transformers.AutoModelForImageTextToText,
    ):
        if kind.__name__ in remote or type(config) in kind._model_mapping:
            return partial(kind.from_config, config, trust_remote_code=trust_remote_code)
    raise folder.refused(f"transformers has no class that generates text with {folder.model_type}", "Use a language model.")


def dtype_of(folder: CheckpointFolder, config: "PreTrainedConfig") -> torch.dtype:
    """The type that the configuration names, or that of the first weights."""
    floats = (tensor.dtype for tensor in folder.tensors.values() if tensor.dtype.is_floating_point)
    found: torch.dtype = config.dtype or next(floats, torch.float32)
    return found


def quantization(folder: CheckpointFolder) -> str:
    """The method by which the weights are quantized; empty if they are not."""
    configs = (folder.config, folder.config.get("text_config"))
    found = next(
        (each["quantization_config"] for each in configs if isinstance(each, dict) and each.get("quantization_config")), None
    )
    return str(found.get("quant_method", "of an unknown method")) if isinstance(found, dict) else ""


def refuse_quantization(folder: CheckpointFolder, config: "PreTrainedConfig", options: Options) -> None:
    """UsageError with transformers' reason if it cannot load these quantized weights here."""
    from transformers.quantizers.auto import AutoHfQuantizer, get_hf_quantizer

    if not (method := quantization(folder)):
        return
    place = options.device_map or {"": options.device}
    try:
        if not AutoHfQuantizer.supports_quant_method({"quant_method": method}):
            raise ValueError("it does not know the method")
        with quiet():
            get_hf_quantizer(deepcopy(config), None, place, True, {})
    except (AttributeError, ImportError, RuntimeError, TypeError, ValueError) as error:
        what = f"transformers cannot load its quantized weights ({method}) here: {reason(error)}"
        raise folder.refused(
            what, "Install what it names, use another device, or a checkpoint that is not quantized."
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no remarks of transformers: what matters of them is an error here."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
