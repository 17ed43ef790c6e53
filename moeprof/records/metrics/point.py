"""The column `point` of `metrics.csv`: what was swept, as `policy=lru;slots=16`."""

from collections.abc import Mapping

ORDER = ("batch", "policy", "slots", "budget_bytes", "balancer", "devices")
"""Canonical, so that the same point is always the same text."""


def format_point(swept: Mapping[str, str | int]) -> str:
    """`policy=lru;slots=16`, whatever the order of the names; ValueError for one that is not in ORDER."""
    if foreign := set(swept) - set(ORDER):
        raise ValueError(f"{min(foreign)!r} is none of {', '.join(ORDER)}")
    return ";".join(f"{name}={swept[name]}" for name in ORDER if name in swept)


def parse_point(text: str) -> dict[str, str]:
    """What each name stands at; a part without `=` is left out."""
    return {name: value for name, mark, value in (part.partition("=") for part in text.split(";")) if mark}
