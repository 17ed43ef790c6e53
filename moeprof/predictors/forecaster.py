"""A predictor at work on a model: before the first layer of a step runs, it reads the embeddings of the step's tokens.

B sequences, L positions, D width.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

from torch import Tensor

from moeprof.huggingface.model import HuggingFaceModel
from moeprof.instrument.probe import region
from moeprof.instrument.step import Step
from moeprof.models.build import Model
from moeprof.moe.forecast import Forecast
from moeprof.moe.sparse_layer import SparseLayer, sparse_layers
from moeprof.policies.offloading.demands import demands_of
from moeprof.predictors.embeddings import embeddings_observed
from moeprof.predictors.network import NetworkState
from moeprof.predictors.predictor import ExpertPredictor, Prediction, stack_of
from moeprof.records.recipe.offloading import Offloading
from moeprof.store.offloaded import OffloadedStore

CONTINUED = ("prefill", "decode")
"""The phases after which sequences continue."""


class Reached(NamedTuple):
    """How far the sequences of a batch are."""

    positions: int
    state: NetworkState


class Forecaster:
    """Predicts every step of a model while it is attached, for the variants that ask it; other variants cost nothing."""

    def __init__(self, model: Model | HuggingFaceModel, predictor: ExpertPredictor) -> None:
        self.model, self.predictor = model, predictor
        self.reached: dict[bytes, tuple[Reached, Reached]] = {}
        """By sequences of a batch: after their first step, where every round of decoding begins again, and after the last one."""
        layers: dict[str, SparseLayer] = {layer.name: layer for layer in sparse_layers(model)}
        self.first = {stack: layers[next(iter(shape.layers))] for stack, shape in predictor.header.stacks.items()}
        self.attached = ExitStack()
        self.attached.enter_context(embeddings_observed(model, self.embedded))

    def forecast(self, layers: Sequence[SparseLayer], choice: Offloading) -> Forecast:
        """What will be predicted for the layers of one stack while they run under a system."""
        sizes = {layer.name: layer.weights.num_experts for layer in layers}
        return Forecast(
            choice, sizes, self.predictor.header.top_k, demands_of(choice), list(self.predictor.modules.parameters())
        )

    def embedded(self, x_BLD: Tensor) -> None:
        """Predicts the step that begins, if the variant in use asks, and has its store load what is expected.

        Its time counts as that of the first layer's router.
        """
        step = self.model.step
        assert step is not None, "a model knows its step before it embeds tokens"
        layer = self.first.get(stack_of(step.phase))
        if layer is None or layer.forecast is None:
            return
        with region("gate", layer.name):
            layer.forecast.begin(step, self.predicted(step, x_BLD).gates)
        if isinstance(layer.store, OffloadedStore):
            with region("expert_load", layer.name):
                layer.store.offload.foretell()

    def predicted(self, step: Step, x_BLD: Tensor) -> Prediction:
        """What the network says about a step, whose sequences may continue those of the step before."""
        assert step.sequence_T is not None
        assert step.position_T is not None
        batch, position = step.sequence_T[:: x_BLD.shape[1]].tobytes(), int(step.position_T[0])
        real_BL = None if step.real_T is None else step.real_T.view(x_BLD.shape[:2])
        found, state = self.predictor.predict(step.phase, x_BLD, self.state_at(batch, position), real_BL)
        if step.phase in CONTINUED:
            now = Reached(position + x_BLD.shape[1], state)
            self.reached[batch] = (self.reached[batch][0] if position else now, now)
        return found

    def state_at(self, batch: bytes, position: int) -> NetworkState | None:
        """The state of the network after so many positions of a batch's sequences; None at their beginning."""
        if not position:
            return None
        return next(one.state for one in self.reached[batch] if one.positions == position)

    def close(self) -> None:
        """Detaches the predictor from the model."""
        self.attached.close()
