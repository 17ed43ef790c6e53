"""What variants are called in a sentence."""

from moeprof.policies.balancing.registry import BALANCERS

DISPATCHES = {
    "static": "static gating",
    "tutel": "Tutel",
    "tutel-dropless": "dropless Tutel",
    "dynamic": "dynamic gating",
    "dense": "the dense twin",
}

CHOICES = {balancer: f"{balancer} placement" for balancer in BALANCERS} | {
    "file": "a placement from a file",
    "buffered": "buffered experts",
}


def name_of(label: str) -> str:
    """`dynamic gating`, or `dynamic gating with loop and greedy placement` for the label `dynamic+loop+greedy`."""
    dispatch, *choices = label.split("+")
    name = DISPATCHES.get(dispatch, dispatch)
    return f"{name} with {' and '.join(CHOICES.get(choice, choice) for choice in choices)}" if choices else name
