"""Parses and formats sizes, rates and durations; stored values stay in bytes and nanoseconds."""

import re
from fractions import Fraction

from moeprof.records.marks import keeps_origin

BINARY_SUFFIXES = ("B", "KiB", "MiB", "GiB", "TiB")
FACTORS = (
    {"": 1, "B": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    | {suffix: 2 ** (10 * power) for power, suffix in enumerate(BINARY_SUFFIXES) if power}
    | {f"{prefix}B": 10 ** (3 * power) for power, prefix in enumerate("KMGT", start=1)}
)

DURATIONS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
NS_PER_S = DURATIONS["s"]


def parse_bytes(text: str) -> int:
    """Bytes in `1.5GiB`, `200 MB` or `4096`; ValueError if it is not a size."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if not match or match[2] not in FACTORS:
        raise ValueError(f"{text!r} is not a size such as 512MiB or 2GiB")
    return int(Fraction(match[1]) * FACTORS[match[2]])


def parse_bandwidth(text: str) -> int:
    """Bytes per second in `12GB/s`; ValueError if it is not a rate above 0."""
    size, slash, second = text.strip().partition("/")
    rate = parse_bytes(size) if (slash, second.strip()) in (("", ""), ("/", "s")) else 0
    if not rate:
        raise ValueError(f"{text!r} is not a bandwidth such as 12GB/s")
    return rate


def parse_duration(text: str) -> int:
    """Nanoseconds in `2ms` or `1.5 s`; ValueError if it is not a duration."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ns|us|ms|s)\s*", text)
    if not match:
        raise ValueError(f"{text!r} is not a duration such as 2ms or 350us")
    return int(Fraction(match[1]) * DURATIONS[match[2]])


@keeps_origin
def format_bytes(size_bytes: float) -> str:
    """`1.50 GiB`: three significant digits in the largest binary unit that leaves at least 1."""
    scaled, power = float(size_bytes), 0
    while round(abs(scaled)) >= 1024 and power < len(BINARY_SUFFIXES) - 1:
        scaled, power = scaled / 1024, power + 1
    return f"{format_significant(scaled) if power else round(scaled)} {BINARY_SUFFIXES[power]}"


@keeps_origin
def format_duration(duration_ns: float) -> str:
    """`3.21 ms`: three significant digits in ns, us, ms or s."""
    for factor, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "us")):
        if abs(duration_ns) >= 0.9995 * factor:
            return f"{format_significant(duration_ns / factor)} {unit}"
    return f"{duration_ns:.0f} ns"


@keeps_origin
def format_count(count: float) -> str:
    """`51.8 B`, `3.75 M`, `960`: counts of parameters, tokens or slots."""
    for least, factor, unit in ((0.9995e9, 1e9, "B"), (0.9995e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(count) >= least:
            return f"{format_significant(count / factor)} {unit}"
    return format_significant(count)


@keeps_origin
def format_significant(value: float) -> str:
    """Three significant digits without scientific notation; integers keep all digits."""
    if value == int(value):
        return f"{int(value)}"
    exponent = int(f"{value:.2e}".partition("e")[2])
    return f"{value:.{max(0, 2 - exponent)}f}"
