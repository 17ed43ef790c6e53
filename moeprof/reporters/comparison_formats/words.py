"""The parts of a finding as text, on one line and without control characters, whatever the compared files contain."""

import math

from moeprof.analysis.comparison.verdicts import Finding
from moeprof.records.errors import escaped
from moeprof.records.units import format_bytes, format_duration, format_significant
from moeprof.reporters.cells import MISSING, percent, times

SMALLEST, LARGEST = 1e-6, 1e15
"""Numbers outside this range are written with a power of ten: no metric reaches them, but a file may contain anything."""


def one_line(text: str, width: int = 0) -> str:
    """Text without line breaks, terminal sequences and CI commands; truncated to `width` if it is not 0."""
    # CI runners obey ##[...], ##vso[...] and ##teamcity[...] anywhere in a line of a log
    safe = escaped(text).replace("##", r"#\x23")
    return f"{safe[: width - 1]}…" if 0 < width < len(safe) else safe


def amount(value: float | None, unit: str) -> str:
    """A value with its unit: `1.50 GiB`, `3.21 ms`, `12.3%`, `1,234 tokens/s`."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value and not SMALLEST <= abs(value) < LARGEST:
        return f"{value:.3g} {one_line(unit)}"
    match unit:
        case "bytes":
            return format_bytes(value)
        case "ns":
            return format_duration(value)
        case "fraction":
            return percent(value)
        case "ratio":
            return times(value)
    number = f"{value:,.0f}" if abs(value) >= 1000 else format_significant(value)
    return f"{number}%" if unit == "percent" else f"{number} {one_line(unit)}"


def every_digit(value: float | None, unit: str) -> str:
    """A value with all its digits: `12,345,678 bytes`."""
    if value is None or not math.isfinite(value):
        return MISSING
    whole = value.is_integer() and abs(value) < LARGEST
    return f"{f'{int(value):,}' if whole else repr(value)} {one_line(unit)}"


def amounts(finding: Finding) -> tuple[str, str]:
    """Baseline and candidate; with all digits if two different values would look the same."""
    values = (finding.baseline, finding.candidate)
    before, after = (amount(value, finding.unit) for value in values)
    if before == after and values[0] != values[1]:
        before, after = (every_digit(value, finding.unit) for value in values)
    return before, after


def signed(change: float) -> str:
    """A relative change with three significant digits: `-12.3%`, `+0.00012%`."""
    shown = 100 * change
    if not math.isfinite(shown):
        return MISSING
    return f"{shown:+,.0f}%" if 999.5 <= abs(shown) < LARGEST else f"{shown:+.3g}%"


def changed(finding: Finding) -> str:
    """The change with its 95% interval, if there is one: `-12.3% [-14.1% to -10.2%]`."""
    if finding.change is None:
        return MISSING if None in (finding.baseline, finding.candidate) else "from 0"
    if finding.interval is None:
        return signed(finding.change)
    low, high = map(signed, finding.interval)
    return f"{signed(finding.change)} [{low} to {high}]"


def changed_briefly(finding: Finding) -> str:
    """The change with its 95% interval in the same unit: `-12.3% [-14.1, -10.2]`."""
    if finding.change is None or finding.interval is None:
        return changed(finding)
    low, high = (signed(end).removesuffix("%") for end in finding.interval)
    return f"{signed(finding.change)} [{low}, {high}]"


def chance(p: float | None) -> str:
    """A p value with two digits: `0.0013`, `<0.0001`."""
    if p is None or not math.isfinite(p):
        return MISSING
    return "<0.0001" if p < 0.0001 else f"{p:.2g}"


def place(finding: Finding) -> str:
    """The recipe and address: `lm-tiny, score, static`."""
    return one_line(", ".join(part for part in (finding.recipe, finding.where) if part))


def both(finding: Finding) -> str:
    """Both values, `1.50 GiB -> 2.00 GiB`, or the only one and its side."""
    before, after = amounts(finding)
    if finding.candidate is None:
        return f"{before} in the baseline only"
    return f"{before} -> {after}" if finding.baseline is not None else f"{after} in the candidate only"


def from_to(finding: Finding) -> str:
    """Both values, with their unit once if it is the same: `1,000 → 880 tokens/s`."""
    before, after = amounts(finding)
    number, _, unit = before.partition(" ")
    return f"{number if unit and after.endswith(f' {unit}') else before} → {after}"


def described(finding: Finding) -> str:
    """Values, change, p value and note: `1,000 tokens/s -> 880 tokens/s, -12% [-14% to -10%], p 0.0013`."""
    p = "" if finding.p is None else f"p {chance(finding.p)}"
    parts = [both(finding), changed(finding), p, one_line(note(finding))]
    return ", ".join(part for part in parts if part not in ("", MISSING))


def note(finding: Finding) -> str:
    """The reason for the verdict, and the spread between the processes of each side."""
    spreads = finding.spread or (None, None)
    known = [
        f"{name} {100 * size:.2g}%" for name, size in zip(("baseline", "candidate"), spreads, strict=True) if size is not None
    ]
    return "; ".join(filter(None, [finding.why, f"spread between processes: {', '.join(known)}" if known else ""]))
