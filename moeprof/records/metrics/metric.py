"""The declaration of a metric."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["exact", "routed", "timed", "modelled", "forced"]
Better = Literal["higher", "lower", "neither"]


@dataclass(frozen=True)
class Metric:
    """A number that moeprof reports, declared once.

    `kind` is `exact` (the same on every machine), `routed` (exact given the routing), `timed`, `modelled` or `forced`.
    """

    name: str
    unit: str
    better: Better
    kind: Kind
    formula: str
