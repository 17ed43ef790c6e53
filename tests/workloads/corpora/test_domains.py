"""What holds within the documents of each domain, so that there is something to learn from them."""

import ast
import builtins
import json
import re
from itertools import pairwise

import pytest

from moeprof.workloads.corpora.domains.code import code_document
from moeprof.workloads.corpora.domains.phrase_grammar import Grammar
from moeprof.workloads.corpora.domains.prose import prose_document
from moeprof.workloads.corpora.domains.records import record_document
from moeprof.workloads.corpora.randomness import RandomStream

SEEDS = range(250)


def test_a_grammar_expands_symbols_and_bound_names() -> None:
    grammar = Grammar("greeting: {word}, [name]{mark}\nword: hello | good\n  evening\nmark: !")
    texts = {grammar.expand("greeting", 0, RandomStream(seed), {"name": "anna"}) for seed in range(40)}
    assert texts == {"hello, anna!", "good, anna!", "evening, anna!"}
    assert sorted(grammar.order("word", RandomStream(1))) == [0, 1, 2]


def test_a_grammar_with_an_unknown_symbol_is_not_built() -> None:
    with pytest.raises(KeyError, match="nobody"):
        Grammar("greeting: hello, {nobody}")


def test_sentences_begin_with_a_capital_and_end_with_a_full_stop() -> None:
    for paragraph in "\n".join(prose_document(RandomStream(seed)) for seed in SEEDS).split("\n"):
        assert re.fullmatch(r'"?[A-Z].*[a-z0-9"]\.', paragraph)
        assert not re.search(r"\ba [aeio]|\ban [^aeio]|  |[{}\[\]]", paragraph)


def test_a_town_was_founded_in_the_same_year_in_every_document() -> None:
    founded: dict[str, set[str]] = {}
    for seed in range(3000):
        text = prose_document(RandomStream(seed))
        for town in re.findall(r"\A(?:The \w+ town of )?(\w+) (?:is a|lies on)", text):
            for year in re.findall(r"It was founded in (\d+)", text):
                founded.setdefault(town, set()).add(year)
    assert len(founded) > 50
    assert all(len(years) == 1 for years in founded.values())


def test_a_person_is_either_he_or_she() -> None:
    texts = [prose_document(RandomStream(seed)) for seed in range(600)]
    people = [text for text in texts if re.search(r"\(\d+ to \d+\)| was born in \d+ in ", text[:120])]
    assert len(people) > 40
    assert not [text for text in people if re.search(r"\b[Hh]e\b", text) and re.search(r"\b[Ss]he\b", text)]


def test_every_program_parses_and_reads_only_names_that_it_has_bound() -> None:
    for module in programs():
        known = {name for node in module.body for name in bound_names(node)} | set(dir(builtins))
        for function in (node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)):
            local = known | {name for node in ast.walk(function) for name in bound_names(node)}
            read = {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
            assert read <= local, ast.unparse(function)


def bound_names(node: ast.AST) -> set[str]:
    """The names that this node itself binds."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Assign):
        return {name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return {node.id}
    return {node.arg} if isinstance(node, ast.arg) else set()


def test_functions_are_called_with_as_many_numbers_as_they_take() -> None:
    checked = 0
    for module in programs():
        functions = {node.name: len(node.args.args) for node in module.body if isinstance(node, ast.FunctionDef)}
        assert len(functions) == sum(isinstance(node, ast.FunctionDef) for node in module.body)  # no name twice
        for call in ast.walk(module):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in functions:
                assert len(call.args) == functions[call.func.id]
                checked += 1
    assert checked > 50


def programs() -> list[ast.Module]:
    return [ast.parse(code_document(RandomStream(seed))) for seed in SEEDS]


def documents_with(start: str) -> list[list[str]]:
    texts = (record_document(RandomStream(seed)) for seed in range(400))
    return [text.split("\n") for text in texts if text.startswith(start)]


def test_orders_count_up_and_their_totals_are_quantity_times_price() -> None:
    prices: dict[str, set[float]] = {}
    for lines in documents_with("{"):
        orders = [json.loads(line) for line in lines]
        assert [order["id"] for order in orders] == list(range(orders[0]["id"], orders[0]["id"] + len(orders)))
        for order in orders:
            prices.setdefault(order["article"], set()).add(order["price"])
            assert order["total"] == pytest.approx(order["qty"] * order["price"])
    assert len(prices) == 28
    assert all(len(known) == 1 for known in prices.values())


def test_readings_are_evenly_spaced_and_the_alarm_names_what_is_too_high() -> None:
    thresholds = {"pressure": 108, "temperature": 27, "humidity": 55, "voltage": 3306, "flow": 80, "speed": 1490}
    for heading, *lines in documents_with("station"):
        names = [column.split("/")[0] for column in heading.split(";")[3:-1]]
        rows = [line.split(";") for line in lines]
        seconds = [sum(int(part) * 60**power for power, part in enumerate(reversed(row[2].split(":")))) for row in rows]
        assert len({(later - earlier) % 86400 for earlier, later in pairwise(seconds)}) == 1
        for row in rows:
            high = [name for name, level in zip(names, row[3:-1], strict=True) if int(level) > thresholds[name]]
            assert row[-1] == ("+".join(high) or "ok")


def test_every_request_is_answered_by_the_next_line_and_fails_when_it_is_slow() -> None:
    for lines in documents_with("20"):
        for request, answer in zip(lines[::2], lines[1::2], strict=True):
            [asked] = re.findall(r"(\w+\[.*) from", request)
            [(answered, status, took_ms)] = re.findall(r"(\w+\[.*) -> (\d+) in (\d+) ms", answer)
            assert asked == answered
            assert (status == "200") == (int(took_ms) < 80) == (" INFO " in answer)
