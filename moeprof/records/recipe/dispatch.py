"""What the rest of moeprof asks about a dispatch; a new one is a file in `moe/dispatch/` and one `register` line here.

Torch-free: a layer imports the `function` of an entry when it first runs it, so that reports need none of it.
"""

from dataclasses import dataclass
from typing import Literal

CapacityRule = Literal["fraction", "largest load", "none"]
"""How many capacity slots an expert has: ceil(C x S), as many as the busiest expert of any rank needs, or no limit at all."""


@dataclass(frozen=True)
class Dispatch:
    """One way in which tokens become expert rows."""

    name: str
    """As variant labels, recipes and `--against` write it."""
    title: str
    """As a sentence in a report calls it."""
    function: str = ""
    """`module:function` that dispatches tensors."""
    padded: bool = False
    """Whether all experts compute equally many capacity slots, filled or not: memory and traffic then follow the slots."""
    capacity: CapacityRule = "none"
    masked: bool = False
    """Whether rows are made by a product with a mask (S x E x c), whose size grows with the square of the tokens."""
    baseline: bool = False
    """Whether models are deployed with it today, so that `--against` accepts it."""


TITLES = {"dense": "the dense twin", "own": "the model's own backend"}
"""What is not dispatched by moeprof: a model without experts, and one from elsewhere that executes its experts itself."""

DISPATCHES: dict[str, Dispatch] = {}
"""All registered entries by name, in the order of registration."""


def register(dispatch: Dispatch) -> None:
    """Adds an entry, known everywhere from then on; ValueError if its name is taken."""
    if dispatch.name in DISPATCHES:
        raise ValueError(f"dispatch {dispatch.name!r} is registered already")
    DISPATCHES[dispatch.name] = dispatch


def dispatch_of(label: str) -> Dispatch:
    """The entry behind a variant's label; one without any capacity or padding for the dense twin and for unknown names."""
    name = label.partition("+")[0]
    return DISPATCHES.get(name) or Dispatch(name, TITLES.get(name, name))


HOME = "moeprof.moe.dispatch"


register(
    Dispatch("static", "static gating", f"{HOME}.static:dispatch", padded=True, capacity="fraction", masked=True, baseline=True)
)
register(Dispatch("tutel", "Tutel", f"{HOME}.tutel:dispatch", padded=True, capacity="fraction", baseline=True))
register(
    Dispatch(
        "tutel-dropless",
        "dropless Tutel",
        f"{HOME}.tutel:dispatch_dropless",
        padded=True,
        capacity="largest load",
        baseline=True,
    )
)
register(Dispatch("dynamic", "dynamic gating", f"{HOME}.dynamic:dispatch"))
