"""Parameters, FLOPs and memory of a recipe's model by closed forms: no weights, no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from moeprof.records.gating import expert_slots
from moeprof.records.recipe import ModelSection, Recipe
from moeprof.records.variant import DENSE, STATIC, Variant

TENSOR_BYTES = 4  # of what is float32 whatever the dtype: router weights, gates
INDEX_BYTES = 8


def ffn_parameters(model: ModelSection) -> int:
    """Of one FFN, dense or expert: D x F + F + F x D + D."""
    return 2 * model.dim * model.ffn_dim + model.ffn_dim + model.dim


def num_moe_layers(model: ModelSection) -> int:
    """Of both stacks."""
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


def num_parameters(model: ModelSection, *, dense: bool = False) -> int:
    """All of them."""
    return sum(parameters_by_part(model, dense=dense).values())


def weight_bytes(model: ModelSection, *, dense: bool = False, ranks: int = 1) -> int:
    """Bytes of the parameters that a rank holds: its share of the experts, all of the rest; routers are float32."""
    parts = parameters_by_part(model, dense=dense)
    parts["experts"] //= ranks
    return sum(count * (TENSOR_BYTES if part == "router" else model.bytes_per_element) for part, count in parts.items())


def copies_bytes(model: ModelSection, copies: int) -> int:
    """Of so many slots of every MoE layer for copies of experts."""
    return copies * num_moe_layers(model) * ffn_parameters(model) * model.bytes_per_element


def static_bytes(recipe: Recipe, variant: Variant) -> int:
    """Bytes that a rank holds under a variant whatever it computes: its weights, copies of experts included."""
    whole = weight_bytes(recipe.model, dense=variant.dense, ranks=recipe.parallel.ranks)
    return whole + copies_bytes(recipe.model, variant.replicas)


def placed_bytes(recipe: Recipe, variant: Variant) -> int:
    """Of the experts that a rank holds once more for a variant that places them; 0 under any other, which all share a set."""
    share = parameters_by_part(recipe.model)["experts"] // recipe.parallel.ranks * recipe.model.bytes_per_element
    return share + copies_bytes(recipe.model, variant.replicas) if variant.placed else 0


def flops_per_token(recipe: Recipe, *, dense: bool = False) -> int:
    """2 FLOPs per weight that a token meets: all of attention, norms left out, top_k experts, the head but no look-up.

    The products between queries and keys depend on the length and are left out, as in the usual 2N estimate.
    """
    model = recipe.model
    parts = parameters_by_part(model, dense=dense)
    used = parts["embedding"] + parts["attention"] + parts["dense_ffn"] + parts["router"]
    return 2 * (used + (0 if dense else num_moe_layers(model) * recipe.gating.top_k * ffn_parameters(model)))


def static_layer_bytes(recipe: Recipe, num_tokens: int) -> int:
    """Peak of what one MoE layer allocates under static gating for S tokens.

    Combine weights, expert rows and the drops live throughout; beside them first the mask with the choices' places and cells,
    then the hidden buffers before and behind the activation, then one of them and the outputs, then outputs and the result.
    The gates (scores and softmax) are gone by then. Over ranks the rows that came in are there beside those that left.
    """
    model, choices = recipe.model, recipe.gating.top_k * num_tokens
    slots = expert_slots(model.experts, recipe.gating.capacity_fraction, num_tokens)
    mask, rows, hidden, result = (
        elements * model.bytes_per_element
        for elements in (num_tokens * slots, slots * model.dim, slots * model.ffn_dim, num_tokens * model.dim)
    )
    beside = max(mask + 2 * INDEX_BYTES * choices, 2 * hidden, hidden + rows, rows + result)
    arrived = rows if recipe.parallel.ranks > 1 else 0
    return max(mask + rows + choices + arrived + beside, 2 * num_tokens * model.experts * TENSOR_BYTES)


@dataclass(frozen=True)
class MemoryNeed:
    """What a rank needs on its device, bytes."""

    weights: int
    twin_weights: int
    activations: int

    @property
    def total(self) -> int:
        """All of it at once."""
        return self.weights + self.twin_weights + self.activations


def memory_need(recipe: Recipe, batch_size: int | None = None, variants: Sequence[Variant] = (STATIC, DENSE)) -> MemoryNeed:
    """Weights of both models and of moved experts, and the largest step of any phase: a layer's peak, or logits, over KV caches."""
    model, load = recipe.model, recipe.load
    batch = batch_size or load.batch_size
    element = model.bytes_per_element
    steps = {
        "score": (batch * load.sequence_length, model.vocab_size),
        "encode": (batch * load.sequence_length, 0),
        "decode": (batch * (1 if recipe.workload == "mt" else load.prompt_length), model.vocab_size),
    }
    wanted = dict.fromkeys(recipe.phases) | ({"encode": None} if recipe.workload == "mt" else {})
    peaks = []
    for phase in wanted:
        tokens, vocabulary = steps[phase]
        hidden = tokens * (8 * model.dim + 2 * model.ffn_dim) * element
        peaks.append(hidden + max(static_layer_bytes(recipe, tokens), 2 * tokens * vocabulary * element))
    positions = load.prompt_length + load.decode_steps + (load.sequence_length if recipe.workload == "mt" else 0)
    caches = 2 * 2 * batch * model.decoder_layers * positions * model.dim * element if "decode" in wanted else 0
    weights = weight_bytes(model, ranks=recipe.parallel.ranks) + sum(placed_bytes(recipe, variant) for variant in variants)
    return MemoryNeed(weights, weight_bytes(model, dense=True), max(peaks) + caches)


def largest_batch(recipe: Recipe, budget_bytes: int, variants: Sequence[Variant] = (STATIC, DENSE)) -> int:
    """The largest batch whose need stays within the budget; 0 where not even one sequence fits."""
    low, high = 0, recipe.load.batch_size
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if memory_need(recipe, middle, variants).total <= budget_bytes else (low, middle - 1)
    return low
