"""Findings made by hand, and what reads the formats independently of what wrote them."""

import json
from pathlib import Path
from typing import Any

import lxml.etree
from hypothesis import strategies as st

from moeprof.analysis.comparison.compare import Comparison
from moeprof.analysis.comparison.verdicts import Finding, Rules, Verdict
from moeprof.records.metrics.registry import KEYS, METRICS
from moeprof.records.metrics.row import RowKey, row_key

HOSTILE = (
    "<script>alert(1)</script>",
    "../../x",
    "a\n\n# b\n::error::c\r\n- d",
    "a|b",
    "]]>",
    "&lt;&amp;",
    "`c` *d* [e](http://f)",
    "##[add-mask]e ##vso[task.complete]",
    "\x1b]0;title\x07\x00\ufffe",
    "\ud800 half a pair",
    "\u202egnp.exe \u2028 \x85",
    "100%0A::warning::g",
    "[bold]h[/bold]",
)


def found(verdict: Verdict = "worse", metric: str = "throughput", **changes: Any) -> Finding:
    """1,000 tokens a second before and 880 after, at lm-tiny, score, static, or whatever `changes` say."""
    cells = {"workload": "lm", "phase": "score", "variant": "static", **{k: changes.pop(k) for k in KEYS if k in changes}}
    known = METRICS.get(metric)
    fields: dict[str, Any] = {
        "recipe": "lm-tiny",
        "command": "characterize",
        "unit": known.unit if known else "units",
        "kind": known.kind if known else "exact",
        "baseline": None if verdict == "new" else 1000.0,
        "candidate": None if verdict == "removed" else 880.0,
        "gated": verdict in ("worse", "better", "same", "inconclusive"),
        "change": None if verdict in ("new", "removed") else -0.12,
    }
    return Finding(address=row_key(metric, **cells), verdict=verdict, **fields | changes)


def comparison(*findings: Finding, baseline: str = "old", candidate: str = "new") -> Comparison:
    """Of what was found."""
    return Comparison(baseline, candidate, findings, Rules({}))


def one_of_each() -> Comparison:
    """Every verdict once, and a timed metric that is described."""
    timed = {"interval": (-0.14, -0.1), "p": 0.0013}
    return comparison(
        found("worse", **timed),
        found("inconclusive", variant="dynamic", why="about 40 rounds per side would decide", **timed),
        found("better", "memory_total_peak"),
        found("same", "waste_factor", candidate=1000.0, change=0.0),
        found("inconclusive", "throughput_low", candidate=870.0, gated=False, why="timed, not gated"),
        found("inconclusive", "throughput_high", candidate=890.0, gated=False, why="timed, not gated"),
        found("not comparable", "perplexity", why="different routing"),
        found("not comparable", "region_time", region="experts", why="different machines: cpu A, B"),
        found("new", "chrf"),
        found("removed", "dead_experts"),
    )


def hostile() -> Comparison:
    """Every verdict with every hostile text wherever text can stand."""
    verdicts: tuple[Verdict, ...] = ("worse", "better", "same", "inconclusive", "not comparable", "new", "removed")
    findings = [
        found(verdict, metric, recipe=text, phase=text, domain=text, variant=text, point=text, unit=text, why=text)
        for verdict in verdicts
        for text in HOSTILE
        for metric in ("throughput", "memory_static", text)
    ]
    return comparison(*findings, baseline="\n".join(HOSTILE), candidate=HOSTILE[0])


text = st.one_of(st.text(max_size=12), st.sampled_from(HOSTILE))
number = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([0.0, 1.0, 1e308, 5e-324]))

any_finding = st.builds(
    Finding,
    recipe=text,
    address=st.builds(RowKey, *[text] * (len(KEYS) - 1), st.one_of(text, st.sampled_from(sorted(METRICS)))),
    unit=st.one_of(text, st.sampled_from(sorted({metric.unit for metric in METRICS.values()}))),
    kind=st.sampled_from(["exact", "routed", "timed", "modelled", "forced"]),
    verdict=st.sampled_from(["better", "worse", "same", "inconclusive", "not comparable", "new", "removed"]),
    baseline=number,
    candidate=number,
    gated=st.booleans(),
    change=st.one_of(number, st.just(float("inf"))),
    interval=st.one_of(st.none(), st.tuples(st.floats(), st.floats())),
    p=st.one_of(st.none(), st.floats(0, 1)),
    why=text,
)
any_comparison = st.builds(Comparison, text, text, st.lists(any_finding, max_size=6), st.just(Rules({})))

SCHEMA = lxml.etree.XMLSchema(lxml.etree.parse(Path(__file__).with_name("junit.xsd")))


def read_json(written: str) -> Any:
    """As a reader that takes neither NaN nor infinity, nor half a surrogate pair."""

    def refused(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    document = json.loads(written, parse_constant=refused)
    json.dumps(document, ensure_ascii=False).encode()
    return document


def read_xml(written: str) -> Any:
    """The root, after validation against the schema."""
    root = lxml.etree.fromstring(written.encode())
    SCHEMA.assertValid(root)
    return root


def read_commands(log: str) -> list[tuple[str, dict[str, str], str]]:
    """Level, properties and message of every line, as actions/runner reads them (ActionCommand.TryParseV2)."""
    commands = []
    for line in log.splitlines():
        assert line.startswith("::")
        head, separator, message = line[2:].partition("::")
        assert separator
        level, _, properties = head.partition(" ")
        pairs = dict(pair.split("=", 1) for pair in properties.split(",") if pair)
        commands.append((level, {key: unescaped(value, True) for key, value in pairs.items()}, unescaped(message, False)))
    return commands


def unescaped(value: str, is_property: bool) -> str:
    """In the runner's order: the percent sign last."""
    for token, code in (("\r", "%0D"), ("\n", "%0A"), *([(":", "%3A"), (",", "%2C")] if is_property else []), ("%", "%25")):
        value = value.replace(code, token)
    return value
