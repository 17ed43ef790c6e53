"""Where a model looks up the embeddings of its tokens, which predictors read."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from moeprof.huggingface.model import HuggingFaceModel
from moeprof.models.build import Model


def embeddings_of(model: Model | HuggingFaceModel) -> list[nn.Module]:
    """The modules whose outputs (B, L, D) are the embeddings of tokens; an encoder and a decoder may have their own."""
    if not isinstance(model, HuggingFaceModel):
        return [model.embedding]
    whole = model.whole
    parts = [whole, *([whole.get_encoder(), whole.get_decoder()] if whole.config.is_encoder_decoder else [])]
    return list(dict.fromkeys(part.get_input_embeddings() for part in parts))


@contextmanager
def embeddings_observed(model: Model | HuggingFaceModel, see: Callable[[Tensor], None]) -> Iterator[None]:
    """Calls `see` with the embeddings (B, L, D) of each forward pass in the block, before any MoE layer runs."""
    with ExitStack() as hooks:
        for module in embeddings_of(model):
            hooks.callback(module.register_forward_hook(lambda module, args, output: see(output)).remove)
        yield
