"""Names of layers from the paths of their experts: `3`, `enc.3`, `dec.3`, and `3.vision` for further experts beside a layer's own."""

import re
from collections import Counter
from collections.abc import Sequence

STACKS = {"encoder": "enc.", "decoder": "dec."}
ASIDES = {
    "vision": "vision",
    "visual": "vision",
    "audio": "audio",
    "talker": "talker",
    "attention": "attention",
    "attn": "attention",
}
"""Parts of a path, and the suffix of experts that are beside those of the text's layers."""

OTHER_INPUT = {"vision", "audio", "talker"}
"""Suffixes of experts that a forward pass of text alone does not call."""


def layer_names(paths: Sequence[str]) -> list[str]:
    """One name per path, all different."""
    names = [layer_name(path) for path in paths]
    often = Counter(names)
    return [name if often[name] == 1 else f"{name}.{path}" for name, path in zip(names, paths, strict=True)]


def layer_name(path: str) -> str:
    """The first number in the path, with its stack before it and its suffix behind it; the path itself if it has no number."""
    parts = path.split(".")
    number = next((part for part in parts if part.isdecimal()), None)
    if number is None:
        return path
    stack = next((prefix for part, prefix in STACKS.items() if part in parts), "")
    aside = next((suffix for word, suffix in ASIDES.items() if word in path), None)
    return f"{stack}{number}" + (f".{aside}" if aside else "")


def needs_other_input(layer: str) -> bool:
    """Whether the experts of this layer are called only for images, sound or speech."""
    return re.split(r"\d+\.?", layer)[-1] in OTHER_INPUT
