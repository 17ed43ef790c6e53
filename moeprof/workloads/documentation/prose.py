"""reStructuredText to plain English: paragraphs without markup, code, tables and directives."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

DIRECTIVE = re.compile(r"\.\. ([\w:-]+)::")
FIELD = re.compile(r":[^:`]+:(\s|$)")
ITEM = re.compile(r"([*+-]|(#|\d+)[.)])\s+")
RULE = re.compile(r"([=\-~^\"'`#*+.:_])\1{2,}")
TABLE = re.compile(r"[=+|][-=+ ]*[=+|]|\|.*\||.*\S {3,}\S.*")
UNCOMMON = re.compile(r"[\d_]|[^\w ,.']")

WITHOUT_PROSE = frozenset(
    """
    code code-block console csv-table default-role figure graphviz highlight image include index list-table literalinclude
    math parsed-literal productionlist raw rst-class sourcecode table templatetag toctree
    """.split()  # noqa: SIM905
)
"""Directives whose content is not prose; that of any other is kept, without the directive's own line."""

INLINE = (
    (re.compile(r"(?<!\w):[a-z][\w:.+-]*:`!?~?(?:[\w.]*\.)(\w+(?:\(\))?)`"), r"\1"),  # :class:`~module.Name`
    (re.compile(r"(?<!\w):[a-z][\w:.+-]*:`([^`<]+?)\s*<[^`>]*>`"), r"\1"),  # :ref:`words <target>`
    (re.compile(r"(?<!\w):[a-z][\w:.+-]*:`!?([^`]+)`"), r"\1"),
    (re.compile(r"`([^`<]+?)\s*<[^`>]*>`__?"), r"\1"),  # `words <address>`_
    (re.compile(r"``([^`]+)``"), r"\1"),
    (re.compile(r"`([^`]+)`_{0,2}"), r"\1"),
    (re.compile(r"\*\*([^*]+)\*\*"), r"\1"),
    (re.compile(r"(?<![\w*])\*([^*\s][^*]*)\*(?!\w)"), r"\1"),
    (re.compile(r"\s*\[#?\w*\]_"), ""),
    (re.compile(r"\\(.)"), r"\1"),
    (re.compile(r"\s+"), " "),
)
"""Inline markup and what is left of it, in the order in which they are replaced."""


def paragraphs(source: str) -> Iterator[str]:
    """The paragraphs, list items and titles of a document that hold prose, each on one line."""
    for raw in raw_paragraphs(source):
        text = plain(raw)
        if is_prose(text):
            yield text


def plain(text: str) -> str:
    """Text without inline markup."""
    for markup, rest in INLINE:
        text = markup.sub(rest, text)
    return text.strip()


def is_prose(text: str) -> bool:
    """Whether nearly all of the text is words: at least two, and nine tenths letters, blanks and common punctuation."""
    return " " in text and len(UNCOMMON.findall(text)) <= 0.1 * len(text)


@dataclass(eq=False)
class Reader:
    """The lines of the paragraph that is being read, and the indentation of the block that is being omitted."""

    lines: list[str] = field(default_factory=list)
    indent: int = 0
    omitted: int | None = None

    def ended(self) -> Iterator[str]:
        """The paragraph so far, if there is one; the next line begins another."""
        if self.lines:
            yield " ".join(self.lines)
        self.lines = []

    def read(self, line: str) -> Iterator[str]:
        """Reads a line; yields the paragraphs that it ends."""
        text, indent = line.strip(), len(line) - len(line.lstrip())
        if not text:
            yield from self.ended()
        elif self.omitted is not None and indent > self.omitted:
            return
        else:
            self.omitted = None
            yield from self.read_text(text, indent)

    def read_text(self, text: str, indent: int) -> Iterator[str]:
        """Reads a line that belongs to no omitted block."""
        item = ITEM.match(text)
        if item:
            text, indent = text[item.end() :], indent + item.end()
        if item or indent != self.indent or is_markup(text):
            yield from self.ended()
        self.indent = indent
        if is_markup(text):
            self.omitted = indent if omits_block(text) else None
            return
        if text.endswith("::"):
            self.omitted, text = indent, text[:-1]
        self.lines.append(text)


def raw_paragraphs(source: str) -> Iterator[str]:
    """Paragraphs with inline markup, each on one line."""
    reader = Reader()
    for line in source.expandtabs().splitlines():
        yield from reader.read(line)
    yield from reader.ended()


def is_markup(text: str) -> bool:
    """Whether a whole line is markup: a directive, comment, field, rule, table or session of an interpreter."""
    started = text == ".." or text.startswith((".. ", ">>>", "...", "$ ", "::"))
    return started or bool(FIELD.match(text) or RULE.fullmatch(text) or TABLE.fullmatch(text))


def omits_block(text: str) -> bool:
    """Whether the lines indented below a line of markup are no prose."""
    directive = DIRECTIVE.match(text)
    return directive[1] in WITHOUT_PROSE if directive else not RULE.fullmatch(text)
