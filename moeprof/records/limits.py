"""The largest numbers that an input may state; they are far above any model, and refused before anything is built."""

from typing import Annotated

from pydantic import Field

MAX_LAYERS = 10_000
MAX_EXPERTS = 2**16
MAX_RANKS = 4096
MAX_COUNT = 2**31 - 1
MAX_ROUNDS = 10_000
MAX_STEPS = 1_000_000
"""Repetitions of a measurement, and steps of a phase or of a training: more would run for days on the smallest model."""

MAX_SIZE = 2**62
"""Bytes, nanoseconds or bytes per second, as an int64."""

ExpertCount = Annotated[int, Field(ge=1, le=MAX_EXPERTS)]
Positive = Annotated[int, Field(ge=1, le=MAX_COUNT)]
NonNegative = Annotated[int, Field(ge=0, le=MAX_COUNT)]
RoundCount = Annotated[int, Field(ge=0, le=MAX_ROUNDS)]
StepCount = Annotated[int, Field(ge=1, le=MAX_STEPS)]
Size = Annotated[int, Field(ge=1, le=MAX_SIZE)]


def whole_number(name: str, text: str, most: int) -> int:
    """The number that a text states for a key; ValueError if it is not between 1 and `most`."""
    if not text.isdecimal() or len(text) > len(str(most)) or not 1 <= int(text) <= most:
        raise ValueError(f"{name}={text[:24]} is not a whole number from 1 to {most}")
    return int(text)
