"""A Hugging Face model as passes run it: the same calls and probes as moeprof's own models.

B sequences, L positions, M source positions, T tokens (B x L), D width, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from inspect import signature
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from moeprof.huggingface.adapters.adapter import Kept
from moeprof.huggingface.capture import Call, Capture
from moeprof.huggingface.layer import ExpertsLayer
from moeprof.huggingface.scores import scores_of
from moeprof.huggingface.sites import Site
from moeprof.huggingface.tally import computed_rows, counted, tally
from moeprof.huggingface.timed_regions import timed_regions
from moeprof.instrument.probe import Probe, active
from moeprof.instrument.step import Step
from moeprof.store.tier import Fill

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Cached = Any
"""Keys, values and states of one batch, of the class that the model chooses."""


CallSeen = Callable[[ExpertsLayer, Step, Tensor, Callable[[], Tensor]], None]
"""Takes a layer, its step, its outputs (T, D), and what computes them again, as the variant says that the layer then has."""


class HuggingFaceModel(nn.Module):
    """A model of transformers; hooks are on it only while a probe observes it."""

    def __init__(
        self, whole: "PreTrainedModel", sites: Sequence[Site], layers: nn.ModuleList | None = None, fill: Fill | None = None
    ) -> None:
        """`sites` are the experts of the model's layers; a dense model has none.

        `layers` execute them under variants other than the model's own way; `fill` reads experts that were not loaded.
        """
        super().__init__()
        self.layers, self.fill = layers, fill
        self.whole, self.sites = whole, sites
        whole.train(False).requires_grad_(False)
        self.cache_argument = "cache" if "cache" in signature(whole.forward).parameters else "past_key_values"
        """Its name in this version of transformers."""
        self.kinds: dict[str, str] = {}
        """What the scores of each layer's router are, since the first call that showed it; one row alone may mislead."""
        self.step: Step | None = None
        """The forward pass that is running."""
        self.decoding: ExitStack | None = None
        """Holds the backend that decoding uses, while it is in use."""

    def forward(self, tokens_BL: Tensor, step: Step, cache: "Cached | None" = None, **more: Tensor) -> Tensor:
        """Logits (B, L, V); with a cache, the tokens continue the cached sequences."""
        with self.running(step, "enc." if more else ""):
            found: Any = self.whole(
                **({"decoder_input_ids": tokens_BL} if more else {"input_ids": tokens_BL}),
                **({} if more else mask_of(step, tokens_BL)),
                **more,
                **{self.cache_argument: cache},
                use_cache=cache is not None,
            )
        logits_BLV: Tensor = found.logits
        return logits_BLV

    def encode(self, source_BM: Tensor, step: Step) -> Any:
        """What the encoder gives the decoder; its `last_hidden_state` is (B, M, D)."""
        with self.running(step, "dec."):
            return self.whole.get_encoder()(input_ids=source_BM, **mask_of(step, source_BM))

    @contextmanager
    def running(self, step: Step, other_stack: str) -> Iterator[None]:
        """Reports what the block does to the active probe, if any; layers of the other stack are not called in it."""
        self.step, probe, in_use = step, active(), self.layers_in_use
        for layer in in_use.values():
            layer.real_T = step.real_T
        if probe is None:
            yield
            return
        called = [site for site in self.sites if not (other_stack and site.layer.startswith(other_stack))]
        scored, timed = type(probe).scored is not Probe.scored, type(probe).region is not Probe.region
        with ExitStack() as hooks:
            if type(probe).routed is not Probe.routed:
                pending: dict[str, Call] = {}
                hooks.enter_context(Capture(called, lambda call: pending.update({call.site.layer: call}), scores=scored))
                done = self.outputs_observed(
                    lambda layer, step, _: self.report(probe, pending.pop(layer), step, in_use.get(layer))
                )
                hooks.enter_context(done)
            if timed:
                hooks.enter_context(timed_regions(self.whole, called, in_use))
            yield

    def report(self, probe: Probe, call: Call, step: Step, changed: ExpertsLayer | None) -> None:
        """Gives a probe the choices of one layer, and its router's distribution if it asks for it.

        `changed` executed the experts if not the model itself did.
        """
        layer = call.site.layer
        counts = tally(call, step.real_T)
        if call.recorded_TC is not None:
            found = scores_of(call, self.kinds.get(layer, ""))
            if found.gates_TC is not None:
                self.kinds[layer] = found.kind
                probe.scored(layer, step, found.gates_TC)
        num_rows, kept_TK, backend = computed_rows(call, counts), call.kept_TK, call.backend
        if changed is not None:
            num_rows, backend = changed.num_rows, changed.backend
            if changed.dropped_TK is not None:
                kept_TK = kept_TK.masked_fill(changed.dropped_TK & (kept_TK == Kept.ROUTED), Kept.DROPPED)
                counts = counted(kept_TK, step.real_T)
        probe.routed(layer, step, call.experts_TK, call.weights_TK, kept_TK != Kept.ROUTED, num_rows)
        probe.called(layer, step, backend, counts._asdict())

    @property
    def layers_in_use(self) -> dict[str, ExpertsLayer]:
        """The layers, by name, whose experts are not executed as the model itself would."""
        layers = () if self.layers is None else self.layers
        return {layer.name: layer for layer in layers if isinstance(layer, ExpertsLayer) and layer.replaced}

    def new_cache(self) -> "Cached":
        """An empty cache of the class that `generate` would use."""
        from transformers import DynamicCache, EncoderDecoderCache

        config = self.whole.config
        cache: Any = DynamicCache(config=config.get_text_config(decoder=True))
        return EncoderDecoderCache(cache, DynamicCache()) if config.is_encoder_decoder else cache

    def use_decoding(self, decoding: bool) -> None:
        """Selects the experts' backend that `generate` uses for single tokens, or that of whole sequences."""
        if decoding and self.decoding is None:
            self.decoding = ExitStack()
            self.decoding.enter_context(self.whole._optimize_model_for_decode())
        elif not decoding and self.decoding is not None:
            self.decoding.close()
            self.decoding = None

    @contextmanager
    def outputs_observed(self, see: Callable[[str, Step, Tensor], None]) -> Iterator[None]:
        """Calls `see` with the outputs (T, D) of the experts of every layer in the block."""
        with ExitStack() as hooks:
            for site in self.sites:
                hooks.callback(site.experts.register_forward_hook(self.output_hook(site, see)).remove)
            yield

    @contextmanager
    def calls_observed(self, see: CallSeen) -> Iterator[None]:
        """Calls `see` with each call in the block of a layer that variants can change."""
        with ExitStack() as hooks:
            for layer in self.layers or ():
                assert isinstance(layer, ExpertsLayer)
                hooks.callback(layer.experts.register_forward_hook(self.call_hook(layer, see), with_kwargs=True).remove)
            yield

    def call_hook(self, layer: ExpertsLayer, see: CallSeen) -> Callable[..., None]:
        """A hook that passes a call of a layer's experts on."""

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], y_TD: Tensor) -> None:
            assert self.step is not None
            layer.real_T = self.step.real_T
            see(layer, self.step, y_TD, lambda: layer.forward(*args, **kwargs))

        return hook

    def output_hook(self, site: Site, see: Callable[[str, Step, Tensor], None]) -> Callable[..., None]:
        """A hook that passes the outputs of a layer's experts on."""

        def hook(module: nn.Module, args: object, output: Any) -> None:
            y = output[0] if isinstance(output, tuple) else output
            assert self.step is not None
            see(site.layer, self.step, y.reshape(-1, y.shape[-1]))

        return hook


def mask_of(step: Step, tokens_BL: Tensor) -> dict[str, Tensor]:
    """The argument that says which tokens are padding; none if there is no padding."""
    return {} if step.real_T is None else {"attention_mask": step.real_T.view(tokens_BL.shape).long()}


class CachedGeneration:
    """Decoding with the model's own cache, after a prompt or a source.

    Every round begins with the cache as it was after the prompt: what follows is cropped if the model's cache can be, otherwise a copy
    of the whole takes its place, which is made before the first round.
    """

    def __init__(self, model: HuggingFaceModel, first_B: Tensor, cache: "Cached", more: dict[str, Any]) -> None:
        self.model, self.first_B, self.more, self.cache = model, first_B, more, cache
        self.croppable = bool(getattr(cache, "is_croppable", False))
        self.kept: Cached | None = None
        self.num_new = 0
        """Tokens in the cache after the prompt or the source."""

    @classmethod
    def after_prompt(cls, model: HuggingFaceModel, prompt_BL: Tensor, step: Step) -> "CachedGeneration":
        """Generation by a language model after its prompts."""
        model.use_decoding(False)
        cache = model.new_cache()
        first_B = model(prompt_BL, step, cache)[:, -1].argmax(dim=1)
        return cls(model, first_B, cache, {})

    @classmethod
    def after_source(cls, model: HuggingFaceModel, source_BM: Tensor, step: Step) -> "CachedGeneration":
        """Generation by an encoder-decoder after its sources."""
        model.use_decoding(False)
        memory = model.encode(source_BM, step)
        config = model.whole.generation_config
        start = config.decoder_start_token_id if config.decoder_start_token_id is not None else model.whole.config.pad_token_id
        first_B = torch.full((len(source_BM),), int(start or 0), device=source_BM.device)
        return cls(model, first_B, model.new_cache(), {"encoder_outputs": memory, **mask_of(step, source_BM)})

    def forward(self, tokens_B1: Tensor, step: Step) -> Tensor:
        """Logits (B, 1, V) of the next token."""
        self.keep()
        self.model.use_decoding(True)
        logits_B1V: Tensor = self.model(tokens_B1, step, self.cache, **self.more)
        self.num_new += 1
        return logits_B1V

    def rewind(self) -> None:
        """Discards everything after the prompt or the source."""
        if self.num_new and self.croppable:
            self.cache.crop(-self.num_new)
        elif self.num_new:
            self.cache = deepcopy(self.kept)
        self.num_new = 0
        self.keep()

    def keep(self) -> None:
        """Copies a cache that cannot be cropped, before anything follows the prompt or the source."""
        if not self.croppable and self.kept is None:
            self.kept = deepcopy(self.cache)
