"""How the parts of a finding are written, on one line and without control characters, whatever the compared files hold."""

import math

from moeprof.analysis.comparison.verdicts import Finding
from moeprof.records.units import format_bytes, format_duration, format_significant
from moeprof.reporters.cells import MISSING, percent, times

SMALLEST, LARGEST = 1e-6, 1e15
"""Numbers beyond are written with a power of ten: no metric is so small or large, but a file may say anything."""


def one_line(text: str, width: int = 0) -> str:
    """Text that starts no line, no terminal sequence and no command of a CI log; cut to `width` where that is not 0."""
    shown = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text)
    safe = shown.replace("##", r"#\x23")  # runners obey ##[...], ##vso[...] and ##teamcity[...] anywhere in a line of a log
    return f"{safe[: width - 1]}…" if 0 < width < len(safe) else safe


def amount(value: float | None, unit: str) -> str:
    """`1.50 GiB`, `3.21 ms`, `12.3%`, `1,234 tokens/s`."""
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
    """`12,345,678 bytes`."""
    if value is None or not math.isfinite(value):
        return MISSING
    whole = value.is_integer() and abs(value) < LARGEST
    return f"{f'{int(value):,}' if whole else repr(value)} {one_line(unit)}"


def amounts(finding: Finding) -> tuple[str, str]:
    """Baseline and candidate; two values that differ never look the same."""
    values = (finding.baseline, finding.candidate)
    before, after = (amount(value, finding.unit) for value in values)
    if before == after and values[0] != values[1]:
        before, after = (every_digit(value, finding.unit) for value in values)
    return before, after


def signed(change: float) -> str:
    """`-12.3%`; a change that is not nothing never looks like nothing."""
    shown = 100 * change
    if not math.isfinite(shown):
        return MISSING
    return f"{shown:+,.0f}%" if 999.5 <= abs(shown) < LARGEST else f"{shown:+.3g}%"


def changed(finding: Finding) -> str:
    """`-12.3% [-14.1% to -10.2%]`: the change with its 95% interval where there is one."""
    if finding.change is None:
        return MISSING if None in (finding.baseline, finding.candidate) else "from 0"
    if finding.interval is None:
        return signed(finding.change)
    low, high = map(signed, finding.interval)
    return f"{signed(finding.change)} [{low} to {high}]"


def chance(p: float | None) -> str:
    """`0.0013`, `<0.0001`."""
    if p is None or not math.isfinite(p):
        return MISSING
    return "<0.0001" if p < 0.0001 else f"{p:.2g}"


def place(finding: Finding) -> str:
    """`lm-tiny, score, static`: the recipe and where in it."""
    return one_line(", ".join(part for part in (finding.recipe, finding.where) if part))


def both(finding: Finding) -> str:
    """`1.50 GiB -> 2.00 GiB`, or which side alone has the number."""
    before, after = amounts(finding)
    if finding.candidate is None:
        return f"{before} in the baseline only"
    return f"{before} -> {after}" if finding.baseline is not None else f"{after} in the candidate only"


def told(finding: Finding) -> str:
    """`1,000 tokens/s -> 880 tokens/s, -12% [-14% to -10%], p 0.0013`, and the reason where there is one."""
    p = "" if finding.p is None else f"p {chance(finding.p)}"
    parts = [both(finding), changed(finding), p, one_line(note(finding))]
    return ", ".join(part for part in parts if part not in ("", MISSING))


def note(finding: Finding) -> str:
    """The reason, and how much processes of one side differ where there are several."""
    spreads = finding.spread or (None, None)
    known = [
        f"{name} {100 * size:.2g}%" for name, size in zip(("baseline", "candidate"), spreads, strict=True) if size is not None
    ]
    return "; ".join(filter(None, [finding.why, f"from process to process: {', '.join(known)}" if known else ""]))
