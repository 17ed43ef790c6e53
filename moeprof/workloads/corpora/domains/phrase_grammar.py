"""Context-free rules with slots for what a document has already settled, such as its hero's name."""

import re
from collections.abc import Mapping

from moeprof.workloads.corpora.randomness import RandomStream

SLOT = re.compile(r"\{(\w+)\}|\[(\w+)\]")


class Bound:
    """A slot that the document fills."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Rule:
    """The alternatives of one symbol, each a tuple of parts in reverse, ready to be pushed on a stack."""

    __slots__ = ("alternatives",)

    def __init__(self) -> None:
        self.alternatives: list[tuple[str | Bound | Rule, ...]] = []


class Grammar:
    """Rules written as `symbol: first way | second way`, indented lines going on with further ways.

    `{symbol}` in a way stands for any way of that symbol, `[name]` for the text that the document bound to the name. An
    unknown symbol raises KeyError when the grammar is built, an unbound name when it is expanded.
    """

    def __init__(self, text: str) -> None:
        ways = ways_by_symbol(text)
        self._rules = {symbol: Rule() for symbol in ways}
        for symbol, rule in self._rules.items():
            rule.alternatives = [self._parts(way) for way in ways[symbol]]

    def _parts(self, way: str) -> tuple[str | Bound | Rule, ...]:
        parts: list[str | Bound | Rule] = []
        end = 0
        for slot in SLOT.finditer(way):
            parts.append(way[end : slot.start()])
            parts.append(self._rules[slot[1]] if slot[1] else Bound(slot[2]))
            end = slot.end()
        parts.append(way[end:])
        return tuple(part for part in reversed(parts) if part != "")

    def order(self, symbol: str, stream: RandomStream) -> list[int]:
        """The numbers of the symbol's ways, shuffled: who takes them in turn never says the same thing twice in a row."""
        num_ways = len(self._rules[symbol].alternatives)
        return stream.sample(range(num_ways), num_ways)

    def expand(self, symbol: str, way: int, stream: RandomStream, bound: Mapping[str, str]) -> str:
        """One text of that way of `symbol`; iterative, because this loop sets the speed of the whole corpus."""
        text: list[str] = []
        below = stream.below
        stack: list[str | Bound | Rule] = list(self._rules[symbol].alternatives[way])
        while stack:
            part = stack.pop()
            if type(part) is str:
                text.append(part)
            elif type(part) is Rule:
                ways = part.alternatives
                stack.extend(ways[below(len(ways))])
            else:
                assert type(part) is Bound
                text.append(bound[part.name])
        return "".join(text)


def ways_by_symbol(text: str) -> dict[str, list[str]]:
    """Every symbol's ways in the order of the text."""
    ways: dict[str, list[str]] = {}
    symbol = ""
    for line in filter(None, text.splitlines()):
        rest = line
        if not line.startswith(" "):
            symbol, rest = line.split(":", 1)
            ways[symbol] = []
        ways[symbol] += [way.strip() for way in rest.split("|") if way.strip()]
    return ways
