"""Names of variants in sentences."""

from moeprof.policies.balancing.registry import BALANCERS
from moeprof.records.recipe.dispatch import dispatch_of

CHOICES = {balancer: f"{balancer} placement" for balancer in BALANCERS} | {
    "file": "a placement from a file",
    "buffered": "buffered experts",
}


def name_of(label: str) -> str:
    """The name of a label: `dynamic gating`, or `dynamic gating with loop and greedy placement` for the label `dynamic+loop+greedy`."""
    choices, name = label.split("+")[1:], dispatch_of(label).title
    return f"{name} with {' and '.join(CHOICES.get(choice, choice) for choice in choices)}" if choices else name
