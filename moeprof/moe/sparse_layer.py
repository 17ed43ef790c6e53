"""What passes, instruments and stores ask of a layer of experts, whatever model it is part of."""

from abc import abstractmethod

from torch import Tensor, nn

from moeprof.moe.experts import FFN
from moeprof.moe.forecast import Forecast
from moeprof.records.recipe.variant import Variant
from moeprof.store.resident import ExpertWeights, Store


class SparseLayer(nn.Module):
    """A layer of experts that is executed as a Variant says; the same weights run under every variant."""

    ffn: FFN
    """What kernels compute with the weights that they get."""
    forecast: Forecast | None = None
    """What a predictor says about the layer's stack, if the variant asks one."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.variant: Variant | None = None
        self.store: Store | None = None
        """The store that supplies weights; None uses those of all experts."""
        self.stores: dict[Variant, Store] = {}
        """The stores of variants that have their own."""
        self.forecasts: dict[Variant, Forecast] = {}
        """The forecasts of variants that ask a predictor."""

    def use(self, variant: Variant | None) -> None:
        """Executes the layer as `variant` says from now on; None selects what the model itself would do."""
        self.variant = variant
        self.store = None if variant is None else self.stores.get(variant)
        self.forecast = None if variant is None else self.forecasts.get(variant)

    @abstractmethod
    def foreseen(self, x_TD: Tensor) -> tuple[Tensor, Tensor] | None:
        """Ids (T, K) and weights (T, K) that its router would choose for rows (T, D) of an earlier layer; None if it cannot be asked."""

    @property
    @abstractmethod
    def weights(self) -> ExpertWeights:
        """The parameters of all experts, not copied."""

    def for_kernels(self, weights: ExpertWeights) -> ExpertWeights:
        """Weights of experts of this layer, such as those in slots, as kernels take them; nothing is copied."""
        return weights

    def weights_under(self, variant: Variant) -> ExpertWeights:
        """The weights that kernels get under a variant: all experts, or the cache slots of its store."""
        store = self.stores.get(variant)
        return self.weights if store is None else store.weights


def sparse_layers(model: nn.Module) -> list[SparseLayer]:
    """The layers of experts of a model, encoder first."""
    return [module for module in model.modules() if isinstance(module, SparseLayer)]
