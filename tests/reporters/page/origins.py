"""What the tests of the page have in common: every origin of a page, and its value computed from the run directory alone."""

import json
import math
import re
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import pandas as pd
from lxml import html

from moeprof.records.units import FACTORS
from tests.reporters.page.formulas import FORMULAS

OPERATIONS: dict[str, Callable[[float, float], float]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
}
KEYS = ["workload", "phase", "domain", "variant", "point", "rank", "layer", "region", "category", "metric"]


class Recorded:
    """The rows of a `metrics.csv`, and `run.json`, read without moeprof."""

    def __init__(self, run: Path) -> None:
        table = pd.read_csv(run / "metrics.csv", dtype=dict.fromkeys(KEYS, str), keep_default_na=False)
        self.record = json.loads((run / "run.json").read_text())
        self.values = dict(zip(map(tuple, table[KEYS].to_numpy()), table["value"].astype(float), strict=True))

    def evaluate(self, origin: Any) -> float:
        """The value of a row, of a key of `run.json`, a constant, or a formula over them."""
        match origin:
            case {"file": "run.json", "key": key}:
                return float(reduce(lambda found, name: found[name], key.split("."), self.record))
            case dict():
                assert set(origin) <= set(KEYS)
                return self.values[tuple(origin.get(key, "") for key in KEYS)]
            case [sign, left, right]:
                return OPERATIONS[sign](self.evaluate(left), self.evaluate(right))
            case _:
                return float(origin)


NUMBER = re.compile(r"([+-]?\d[\d,]*(?:\.(\d+))?)(?:e([+-]?\d+))? ?([A-Za-z%]*)")
UNITS = {
    "%": 0.01,
    "ns": 1.0,
    "us": 1e3,
    "ms": 1e6,
    "s": 1e9,
    **{unit: float(factor) for unit, factor in FACTORS.items() if unit},
}
COUNTS = {"k": 1e3, "M": 1e6, "B": 1e9}
CONSTANT = re.compile(
    r"95%(?: interval|:)|(?:no padding|even load): 1x|worth a move from: 5.0%|with [\d.]+ [KMGT]?i?B:|IQR > 10%"
    r"|99% at most|exceeds 5%|5% better|5% of its load|within 1%|even would be [\d.]+%|(?:a budget of|at) [\d.]+ [KMGT]?i?B"
)
"""Figures of the method and of the request, which no row has."""
MEASURED = re.compile(r"\d (?:ns|us|ms|s|B|[KMGT]iB)\b|\d[%x]")
"""The end of a number with a unit."""


def shows(text: str, value: float) -> bool:
    """Whether a text begins with a value, or with its amount, rounded to the digits that it shows."""
    if text.strip()[0] in "<>":
        return True
    found = NUMBER.search(text)
    assert found, text
    digits, decimals, power, unit = found.groups()
    number, last = float(digits.replace(",", "")), 10.0 ** -len(decimals or "")
    for factor in {UNITS.get(unit, 1.0), COUNTS.get(unit, 1.0)}:
        scale = factor * 10.0 ** int(power or 0)
        if min(abs(number * scale - value), abs(number * scale - abs(value))) <= 0.5001 * last * scale + 1e-12:
            return True
    return False


def check_numbers(run: Path, page: str) -> int:
    """Asserts that every number with an origin outside figures is what its rows say, and what is shown; how many there are."""
    recorded, found = Recorded(run), tree(page).xpath("//*[@data-origin]")
    for element in found:
        value = recorded.evaluate(json.loads(element.get("data-origin")))
        assert equal(value, float(element.get("data-value"))), element.get("data-origin")
        assert shows(element.text_content(), value), (element.text_content(), value)
    return len(found)


def unexplained(page: str) -> list[str]:
    """The verdicts, key numbers, doubts, sentences and readouts of a page that have a number with a unit and no origin."""
    places = (
        "//*[@class='verdict'] | //*[@class='key']/dd | //*[contains(@class, 'light')]//li"
        " | //h3[.='What would change it']/following::ul[1]/li | //figure/p[not(@class)] | //p[@class='readout']"
    )
    texts = ["".join(element.xpath(".//text()[not(ancestor::*[@data-origin])]")) for element in tree(page).xpath(places)]
    readouts = [view["readout"] for data in figure_data(page).values() for view in data["views"]]
    texts += ["".join(piece for piece in parts if isinstance(piece, str)) for parts in readouts]
    return [text for text in texts if MEASURED.search(CONSTANT.sub("", text))]


def tree(page: str) -> html.HtmlElement:
    """The parsed page; `script` elements hold the JSON of figures."""
    return html.document_fromstring(page)


def visible(page: str) -> str:
    """The page without its scripts and its style: what a reader may see, and the data of figures."""
    return re.sub(r"<(script|style)>.*?</\1>", "", page, flags=re.DOTALL)


def words(document: str) -> str:
    """The text of a page as a reader sees it, or of a document in markdown."""
    return " ".join(tree(visible(document)).text_content().split())


def figure_data(page: str) -> dict[str, Any]:
    """The data of every figure by the id of its element."""
    return {figure.get("id"): json.loads(figure.findtext("script")) for figure in tree(page).iter("figure")}


def series_of(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The parts of a figure that hold values: series, marks, and heat maps, whose rows are joined."""
    yield from data["common"]
    for view in data["views"]:
        yield from view["series"]
        yield from ({**mark, "values": [mark["value"]]} for mark in view["marks"])
        if heat := view["heat"]:
            yield {
                **heat,
                "values": [value for row in heat["values"] for value in row if value is not None],
                "low": [],
                "high": [],
            }


def equal(ours: float, theirs: float) -> bool:
    """Whether two numbers agree to the digits that a page writes."""
    return math.isclose(ours, theirs, rel_tol=2e-6, abs_tol=1e-12)


def check_values(run: Path, page: str) -> dict[str, Any]:
    """Asserts that every value of a figure is that of its rows, or has a source; the figures by the id of their element."""
    recorded, figures = Recorded(run), figure_data(page)
    for name, data in figures.items():
        for part in series_of(data):
            checked = 0
            for kind, origins in part["origins"].items():
                values = part[kind] if isinstance(part[kind], list) else [part[kind]]
                assert len(values) == len(origins), name
                assert all(equal(recorded.evaluate(each), value) for each, value in zip(origins, values, strict=True)), name
                checked += len(values)
            assert checked or "source" in part, name
    return figures


def check_formulas(run: Path, page: str) -> set[str]:
    """Computes every formula over a file again; the formulas."""
    seen = set()
    for data in figure_data(page).values():
        for view in data["views"]:
            for part in (*data["common"], *view["series"], *([view["heat"]] if view["heat"] else []), *view["marks"]):
                if "source" in part:
                    seen.add(part["source"]["formula"])
                    FORMULAS[part["source"]["formula"]](run, view["facets"], part)
    return seen


def spoken(view: dict[str, Any]) -> str:
    """The readout of a view as a reader sees it."""
    return "".join(piece if isinstance(piece, str) else piece["text"] for piece in view["readout"])
