"""A comparison as one JSON document: the verdict, the exit codes, and every finding."""

import json
import math
from typing import Any

from moeprof.analysis.comparison.compare import Comparison
from moeprof.analysis.comparison.verdicts import Finding
from moeprof.records.metrics.registry import METRICS
from moeprof.reporters.comparison_formats.verdict import counts, outcome, sentence


def render(comparison: Comparison) -> str:
    """Pretty-printed JSON; numbers are finite or null, and text is unchanged after parsing."""
    text = json.dumps(document(comparison), indent=1, allow_nan=False)
    return text.replace("##", r"#\u0023") + "\n"  # CI runners obey ##[...] anywhere in a line of a log


def document(comparison: Comparison) -> dict[str, Any]:
    """The document: `verdict` is fine, worse or undecided; `findings` are in the order of the comparison."""
    return {
        "baseline": unicode(comparison.baseline),
        "candidate": unicode(comparison.candidate),
        "verdict": outcome(comparison),
        "sentence": sentence(comparison),
        "exit_code": comparison.exit_code(strict=False),
        "exit_code_strict": comparison.exit_code(strict=True),
        "counts": counts(comparison),
        "remarks": [unicode(remark) for remark in comparison.remarks],
        "findings": [entry(one) for one in comparison.findings],
    }


def entry(finding: Finding) -> dict[str, Any]:
    """One finding without its empty key cells; `better` is the direction of improvement."""
    cells = {key: unicode(cell) for key, cell in finding.address._asdict().items() if cell}
    metric = METRICS.get(finding.metric)
    return {
        "verdict": finding.verdict,
        "gated": finding.gated,
        "recipe": unicode(finding.recipe),
        "command": unicode(finding.command),
        **cells,
        "unit": unicode(finding.unit),
        "kind": unicode(finding.kind),
        "better": metric.better if metric else None,
        "baseline": finite(finding.baseline),
        "candidate": finite(finding.candidate),
        "change": finite(finding.change),
        "interval": None if finding.interval is None else [finite(end) for end in finding.interval],
        "p": finite(finding.p),
        "spread": None if finding.spread is None else [finite(side) for side in finding.spread],
        "why": unicode(finding.why),
    }


def finite(value: float | None) -> float | None:
    """The value, or None for infinity and NaN, which JSON does not have."""
    return value if value is not None and math.isfinite(value) else None


def unicode(text: str) -> str:
    """Valid Unicode: half a surrogate pair, as in a path that is not UTF-8, becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
