"""The column `point` of `metrics.csv`, which names the swept quantities: `policy=lru;slots=16`."""

from collections.abc import Mapping

ORDER = (
    "batch",
    "policy",
    "slots",
    "budget_bytes",
    "balancer",
    "devices",
    "replicas",
    "schedule",
    "every",
    "tokens",
    "experts",
    "percent",
)
"""The canonical order, in which equal points are equal texts."""


def format_point(swept: Mapping[str, str | int]) -> str:
    """`policy=lru;slots=16` in canonical order; ValueError for a name that is not in ORDER."""
    if foreign := set(swept) - set(ORDER):
        raise ValueError(f"{min(foreign)!r} is none of {', '.join(ORDER)}")
    return ";".join(f"{name}={swept[name]}" for name in ORDER if name in swept)


def parse_point(text: str) -> dict[str, str]:
    """The value of each swept quantity; parts without `=` are ignored."""
    return {name: value for name, mark, value in (part.partition("=") for part in text.split(";")) if mark}
