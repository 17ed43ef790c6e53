"""Parameters, FLOPs and memory of a recipe's model from closed formulas, without weights or torch.

Those of a Hugging Face model follow from what its section says of its modules.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from moeprof.records.recipe.gating import expert_slots
from moeprof.records.recipe.model import AnyModel, HuggingFaceSection, ModelSection
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import DENSE, STATIC, Variant
from moeprof.records.system.files import PAGE

TENSOR_BYTES = 4  # router weights and gates are float32 whatever the dtype
INDEX_BYTES = 8


def ffn_parameters(model: ModelSection) -> int:
    """Parameters of one FFN, dense or expert; D x F + F + F x D + D for `mlp`."""
    return model.ffn_form.num_parameters(model.dim, model.ffn_dim, bias=model.ffn_bias)


def num_moe_layers(model: ModelSection) -> int:
    """Number of MoE layers of both stacks."""
    return len(model.encoder_moe_layers) + len(model.decoder_moe_layers)


def parameters_by_part(model: ModelSection, *, dense: bool = False) -> dict[str, int]:
    """Parameters of the embedding (tied, counted once), attention, dense FFNs, norms, routers and experts."""
    layers = model.encoder_layers + model.decoder_layers
    attentions = layers + (model.decoder_layers if model.encoder_decoder else 0)
    sparse = 0 if dense else num_moe_layers(model)
    final_norms = 2 if model.encoder_decoder else 1
    return {
        "embedding": model.vocab_size * model.dim,
        "attention": attentions * 4 * (model.dim**2 + model.dim),
        "dense_ffn": (layers - sparse) * ffn_parameters(model),
        "norm": (attentions + layers + final_norms) * 2 * model.dim,
        "router": sparse * model.experts * model.dim,
        "experts": sparse * model.experts * ffn_parameters(model),
    }


def num_parameters(model: AnyModel, *, dense: bool = False) -> int:
    """Number of all parameters."""
    if isinstance(model, HuggingFaceSection):
        return model.num_parameters
    return sum(parameters_by_part(model, dense=dense).values())


def expert_parameters(model: AnyModel) -> int:
    """Number of the parameters in all experts of all layers."""
    if isinstance(model, HuggingFaceSection):
        return sum(layer.experts * layer.expert_parameters for layer in model.layers.values())
    return parameters_by_part(model)["experts"]


def expert_sizes(model: AnyModel) -> dict[str, int]:
    """Bytes of one expert of every MoE layer, by layer."""
    if isinstance(model, HuggingFaceSection):
        return {name: layer.expert_bytes for name, layer in model.layers.items()}
    return dict.fromkeys(model.moe_layers_of("all"), expert_bytes(model))


def routed_bytes(model: AnyModel) -> int:
    """Bytes of all experts of all layers."""
    if isinstance(model, HuggingFaceSection):
        return sum(layer.experts * layer.expert_bytes for layer in model.layers.values())
    return parameters_by_part(model)["experts"] * model.bytes_per_element


def weight_bytes(model: AnyModel, *, dense: bool = False, ranks: int = 1) -> int:
    """Bytes of the parameters that a rank holds: its share of the experts, all of the rest; routers are float32."""
    if isinstance(model, HuggingFaceSection):
        return model.weight_bytes
    parts = parameters_by_part(model, dense=dense)
    parts["experts"] //= ranks
    return sum(count * (TENSOR_BYTES if part == "router" else model.bytes_per_element) for part, count in parts.items())


def expert_bytes(model: ModelSection) -> int:
    """Size of one expert's weights."""
    return ffn_parameters(model) * model.bytes_per_element


def entry_bytes(model: ModelSection) -> int:
    """Size of one expert in a cache slot or the expert file: whole pages."""
    return -(-expert_bytes(model) // PAGE) * PAGE


def entry_sizes(model: AnyModel) -> dict[str, int]:
    """Bytes of one expert in a cache slot, whole pages, by MoE layer."""
    return {layer: -(-size // PAGE) * PAGE for layer, size in expert_sizes(model).items()}


def experts_of(recipe: Recipe, layer: str) -> int:
    """Number of experts with weights that a rank holds of a layer, without replicas."""
    if isinstance(recipe.model, HuggingFaceSection):
        return recipe.model.layers[layer].experts
    return local_experts(recipe)


def local_experts(recipe: Recipe) -> int:
    """Number of experts of a layer on a rank, without replicas."""
    return recipe.model.experts // recipe.parallel.ranks


def resident_layers(recipe: Recipe, variant: Variant) -> int:
    """How many MoE layers keep all of their experts on the device."""
    return 0 if variant.dense else num_moe_layers(recipe.own_model) - len(recipe.buffered_layers(variant))


def slot_bytes(recipe: Recipe, variant: Variant) -> int:
    """Size of a rank's cache slots under a variant; 0 if all experts are resident."""
    sizes = entry_sizes(recipe.model)
    return sum(min(variant.slots, experts_of(recipe, layer)) * sizes[layer] for layer in recipe.buffered_layers(variant))


def static_bytes(recipe: Recipe, variant: Variant) -> int:
    """Static bytes of a rank under a variant: its weights with replicas, with cache slots instead of buffered experts, and a predictor."""
    whole = weight_bytes(recipe.model, dense=variant.dense, ranks=recipe.parallel.ranks)
    if not variant.in_slots and not variant.replicas:
        return whole
    copies = resident_layers(recipe, variant) * variant.replicas * expert_bytes(recipe.own_model) if variant.replicas else 0
    return (
        whole
        - behind_bytes(recipe, recipe.buffered_layers(variant))
        + copies
        + slot_bytes(recipe, variant)
        + variant.predictor_bytes
    )


def behind_bytes(recipe: Recipe, layers: Iterable[str]) -> int:
    """Size of a rank's experts of some layers, which are not in memory if the layers are buffered."""
    sizes = expert_sizes(recipe.model)
    return sum(experts_of(recipe, layer) * sizes[layer] for layer in layers)


def placed_bytes(recipe: Recipe, variant: Variant) -> int:
    """Size of the second set of experts that a rank holds for a variant with a placement; 0 for variants without one."""
    if not variant.placed:
        return 0
    held = local_experts(recipe) + variant.replicas
    return resident_layers(recipe, variant) * held * expert_bytes(recipe.own_model)


def slots_to_try(most: int, chosen: int) -> list[int]:
    """Powers of two up to the number of a rank's experts of a layer, that number, and the chosen one."""
    return sorted({*(2**power for power in range(most.bit_length())), most, chosen})


def flops_per_token(recipe: Recipe, *, dense: bool = False) -> int:
    """2 FLOPs per weight that a token uses: attention, dense FFNs, routers, top_k experts and the head, but no norms.

    The products between queries and keys depend on the length and are omitted, as in the usual 2N estimate.
    """
    model, top_k = recipe.model, recipe.gating.top_k
    if isinstance(model, HuggingFaceSection):
        return 2 * (model.token_parameters + sum(top_k * layer.expert_parameters for layer in model.layers.values()))
    parts = parameters_by_part(model, dense=dense)
    used = parts["embedding"] + parts["attention"] + parts["dense_ffn"] + parts["router"]
    return 2 * (used + (0 if dense else num_moe_layers(model) * top_k * ffn_parameters(model)))


def static_layer_bytes(recipe: Recipe, num_tokens: int) -> int:
    """Peak of what one MoE layer allocates under static gating for S tokens.

    Combine weights, expert rows and drops are live throughout; in addition first the mask with the choices' positions and cells,
    then the hidden buffers of the FFN (before and after the activation), then one of them and the outputs, then outputs and the result.
    The gates (scores and softmax) are freed by then. Over several ranks, received rows are live in addition to sent ones.
    """
    model, choices = recipe.own_model, recipe.gating.top_k * num_tokens
    slots = expert_slots(model.experts, recipe.gating.capacity_fraction, num_tokens)
    mask, rows, hidden, result = (
        elements * model.bytes_per_element
        for elements in (num_tokens * slots, slots * model.dim, slots * model.ffn_dim, num_tokens * model.dim)
    )
    beside = max(mask + 2 * INDEX_BYTES * choices, model.ffn_form.hidden_buffers * hidden, hidden + rows, rows + result)
    arrived = rows if recipe.parallel.ranks > 1 else 0
    return max(mask + rows + choices + arrived + beside, 2 * num_tokens * model.experts * TENSOR_BYTES)


def dynamic_layer_bytes(recipe: Recipe, num_tokens: int) -> int:
    """Peak of what one MoE layer allocates under dynamic gating for S tokens: rows in and out, and the FFN's hidden buffers."""
    model, rows = recipe.own_model, recipe.gating.top_k * num_tokens
    arrived = rows * model.dim if recipe.parallel.ranks > 1 else 0
    hidden = model.ffn_form.hidden_buffers * rows * model.ffn_dim
    elements = 2 * rows * model.dim + hidden + num_tokens * model.dim + arrived
    return max(elements * model.bytes_per_element, 2 * num_tokens * model.experts * TENSOR_BYTES)


HELD = 3.0
"""Bytes of RAM that a process on a CPU may hold per live byte of activations. glibc keeps freed memory, and how much of it fits the next
tensor differs between runs: runs of lm-tiny at batch 22 held 1.1 to 2.8 times their live activations."""


@dataclass(frozen=True)
class MemoryNeed:
    """Memory that a rank needs on its device, bytes."""

    weights: int
    twin_weights: int
    activations: int
    kept: int
    """Freed memory that a process on a CPU keeps in pieces that are too small for the largest tensors."""

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return self.weights + self.twin_weights + self.activations + self.kept


def memory_need(recipe: Recipe, batch_size: int | None = None, variants: Sequence[Variant] = (STATIC, DENSE)) -> MemoryNeed:
    """Weights of all variants, and the largest step of any phase and variant: a layer's peak or the logits, plus KV caches."""
    if isinstance(recipe.model, HuggingFaceSection):
        return huggingface_need(recipe, recipe.model, batch_size or recipe.load.batch_size, variants)
    model, load = recipe.own_model, recipe.load
    batch = batch_size or load.batch_size
    element = model.bytes_per_element
    steps = {
        "score": (batch * load.sequence_length, model.vocab_size),
        "encode": (batch * load.sequence_length, 0),
        "decode": (batch * (1 if recipe.workload == "mt" else load.prompt_length), model.vocab_size),
    }
    wanted = dict.fromkeys(recipe.phases) | ({"encode": None} if recipe.workload == "mt" else {})
    layer_bytes = static_layer_bytes if any(one.dispatch_entry.padded for one in variants) else dynamic_layer_bytes
    peaks = []
    for phase in wanted:
        tokens, vocabulary = steps[phase]
        hidden = tokens * (8 * model.dim + model.ffn_form.hidden_buffers * model.ffn_dim) * element
        peaks.append(hidden + max(layer_bytes(recipe, tokens), 2 * tokens * vocabulary * element))
    positions = load.prompt_length + load.decode_steps + (load.sequence_length if recipe.workload == "mt" else 0)
    caches = 2 * 2 * batch * model.decoder_layers * positions * model.dim * element if "decode" in wanted else 0
    twin = weight_bytes(model, dense=True) if any(one.dense for one in variants) else 0
    return MemoryNeed(shared_weights(recipe, variants), twin, max(peaks) + caches, kept_bytes(recipe, max(peaks) + caches))


def kept_bytes(recipe: Recipe, activations: int) -> int:
    """Freed memory that a process on a CPU keeps beside live activations."""
    return int((HELD - 1) * activations) if recipe.measure.device == "cpu" else 0


def huggingface_need(recipe: Recipe, model: HuggingFaceSection, batch: int, variants: Sequence[Variant]) -> MemoryNeed:
    """The weights, logits of a whole batch in the model's type and once more in float32, and the rows of one layer's experts."""
    tokens, load = batch * recipe.load.sequence_length, recipe.load
    logits = tokens * model.vocab_size * (model.bytes_per_element + 4) if "score" in recipe.phases else 0
    rows = 4 * tokens * (recipe.gating.top_k + 4) * model.dim * model.bytes_per_element
    positions = max(load.sequence_length, load.prompt_length + load.decode_steps)
    caches = 2 * len(model.layers) * batch * positions * model.dim * model.bytes_per_element
    activations = logits + rows + caches
    return MemoryNeed(shared_weights(recipe, variants), 0, activations, kept_bytes(recipe, activations))


def always_buffered(recipe: Recipe, variants: Sequence[Variant]) -> set[str]:
    """MoE layers that are buffered under every variant."""
    behind = [set(recipe.buffered_layers(one)) for one in variants if not one.dense]
    return set.intersection(*behind) if behind else set()


def shared_weights(recipe: Recipe, variants: Sequence[Variant]) -> int:
    """Bytes of the weights of all MoE variants: one shared set, one predictor, and the cache slots and moved experts of each."""
    resident = weight_bytes(recipe.model, ranks=recipe.parallel.ranks)
    resident -= behind_bytes(recipe, always_buffered(recipe, variants))
    resident += max((one.predictor_bytes for one in variants), default=0)
    return resident + sum(slot_bytes(recipe, one) + placed_bytes(recipe, one) for one in variants)


def largest_batch(recipe: Recipe, budget_bytes: int, variants: Sequence[Variant] = (STATIC, DENSE)) -> int:
    """The largest batch that fits the budget; 0 if not even one sequence fits."""
    low, high = 0, recipe.load.batch_size
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if memory_need(recipe, middle, variants).total <= budget_bytes else (low, middle - 1)
    return low
