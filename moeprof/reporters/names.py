"""What variants are called in a sentence."""

DISPATCHES = {
    "static": "static gating",
    "tutel": "Tutel",
    "tutel-dropless": "dropless Tutel",
    "dynamic": "dynamic gating",
    "dense": "the dense twin",
}


CHOICES = {"buffered": "buffered experts"}


def name_of(label: str) -> str:
    """`dynamic gating`, or `dynamic gating with loop` for the label `dynamic+loop`."""
    dispatch, *choices = label.split("+")
    name = DISPATCHES.get(dispatch, dispatch)
    return f"{name} with {' and '.join(CHOICES.get(choice, choice) for choice in choices)}" if choices else name
