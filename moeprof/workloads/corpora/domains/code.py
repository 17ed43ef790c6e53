"""Python-like programs: every document parses, and every name that a function reads was bound before."""

from collections.abc import Callable
from typing import NamedTuple

from moeprof.workloads.corpora.domains.code_names import ACTIONS, EXCEPTIONS, PURPOSES, REMARKS, RESULTS, THEMES, Theme
from moeprof.workloads.corpora.english import with_articles
from moeprof.workloads.corpora.randomness import RandomStream

INDENT = "    "
PROBLEMS = ("out of range", "is missing", "too large", "too small", "not supported")
OPERATORS = ("+", "-", "*", "//", "%", "+", "*")
COMPARISONS = ("<", ">", "<=", ">=", "==", "!=")
SMALL = ("0", "1", "2", "3", "4", "5", "7", "8", "10", "12", "16", "20", "32", "60", "64", "100", "255", "1000")


class Function(NamedTuple):
    """A function that later code may call with as many numbers as it has parameters."""

    name: str
    num_parameters: int


class Program:
    """What a document has defined so far."""

    def __init__(self, stream: RandomStream) -> None:
        self.stream = stream
        self.theme: Theme = stream.pick(THEMES)
        self.constants = [f"MAX_{field.upper()}" for field in stream.sample(self.theme.fields, 2)]
        self.functions: list[Function] = []
        self.taken: set[str] = set()

    def new_name(self, name: str) -> str:
        """`name`, numbered where the module has a function of that name already."""
        number = 1
        unique = name
        while unique in self.taken:
            number += 1
            unique = f"{name}_{number}"
        self.taken.add(unique)
        return unique

    def number(self, names: list[str], besides: str = "") -> str:
        """A name in scope other than `besides`, a constant of the module or a literal."""
        way = self.stream.below(6)
        if way == 0:
            return self.stream.pick(SMALL)
        name = self.stream.pick(self.constants if way == 1 else names)
        return self.stream.pick(SMALL) if name == besides else name

    def expression(self, names: list[str]) -> str:
        """Arithmetic on one or two numbers, or a call of an earlier function."""
        way = self.stream.below(8)
        if way < 3 and self.functions:
            function = self.stream.pick(self.functions)
            return f"{function.name}({', '.join(self.number(names) for _ in range(function.num_parameters))})"
        left = self.stream.pick(names)
        right = self.number(names, besides=left)
        if way == 3:
            return f"{self.stream.pick(('min', 'max'))}({left}, {right})"
        if way == 4:
            return f"({left} {self.stream.pick(OPERATORS)} {right}) {self.stream.pick(OPERATORS)} {self.stream.pick(SMALL)}"
        return f"{left} {self.stream.pick(OPERATORS)} {right}"

    def condition(self, names: list[str]) -> str:
        """A comparison of a name in scope with something else."""
        left = self.stream.pick(names)
        return f"{left} {self.stream.pick(COMPARISONS)} {self.number(names, besides=left)}"

    def complaint(self) -> str:
        """The message of an error."""
        return f'"{self.stream.pick(self.theme.fields)} of {self.theme.thing} {self.stream.pick(PROBLEMS)}"'

    def remark(self) -> str:
        """A comment of one line."""
        theme, stream = self.theme, self.stream
        return "# " + stream.pick(REMARKS).format(
            thing=theme.thing,
            things=theme.things,
            container=theme.container,
            field=stream.pick(theme.fields),
            label=stream.pick(theme.labels),
        )


def code_document(stream: RandomStream) -> str:
    """A module: docstring, constants, a class and some functions, ASCII, without blank lines at the ends."""
    program = Program(stream)
    theme = program.theme
    lines = [f'"""{stream.pick(PURPOSES)} {theme.things} of a {theme.container}."""', ""]
    lines += [f"{constant} = {stream.between(1, 9)}{stream.pick(('', '0', '00', '2', '5'))}" for constant in program.constants]
    pieces = [CLASS, *(stream.pick(FUNCTIONS) for _ in range(stream.between(1, 3)))]
    for piece in pieces if stream.percent(70) else reversed(pieces):
        lines += ["", "", *piece(program)]
    return with_articles("\n".join(lines))


def block(program: Program, names: list[str], depth: int, num_statements: int) -> list[str]:
    """Statements over the numbers in `names`; new names of this block are appended to it."""
    lines = [INDENT * depth + program.remark()] if program.stream.percent(15) else []
    for _ in range(num_statements):
        lines += statement(program, names, depth)
    return lines


def statement(program: Program, names: list[str], depth: int) -> list[str]:
    """An assignment, a message, or at little depth a loop or a condition whose body has names of its own."""
    stream, indent = program.stream, INDENT * depth
    way = stream.below(12)
    if way < 4 or (depth > 2 and way < 9):
        name = stream.pick(RESULTS)
        line = f"{indent}{name} = {program.expression(names)}"
        if name not in names:
            names.append(name)
        return [line]
    if way < 6:
        name = stream.pick(names)
        return [f"{indent}{name} {stream.pick(('+=', '-=', '*='))} {program.number(names, besides=name)}"]
    if way < 8:
        return [f"{indent}if {program.condition(names)}:", *block(program, list(names), depth + 1, stream.between(1, 2))]
    if way == 8:
        index = "ijk"[depth - 1]
        return [f"{indent}for {index} in range({program.number(names)}):", *block(program, [*names, index], depth + 1, 1)]
    if way == 9:
        return [f'{indent}print("{program.theme.container}:", {program.number(names)}, {program.number(names)})']
    if way == 10:
        return [f"{indent}assert {program.condition(names)}, {program.complaint()}"]
    raised = f"raise {stream.pick(EXCEPTIONS)}({program.complaint()})"
    return [f"{indent}if {program.condition(names)}:", f"{indent}{INDENT}{raised}"]


def computation(program: Program) -> list[str]:
    """A function of numbers with a free body."""
    stream, theme = program.stream, program.theme
    parameters = stream.sample(theme.fields, stream.between(1, 2))
    name = program.new_name(f"{stream.pick(ACTIONS)}_{parameters[0]}")
    names = list(parameters)
    lines = [f"def {name}({', '.join(parameters)}):", *block(program, names, 1, stream.between(2, 5))]
    lines.append(f"{INDENT}return {stream.pick(names[::-1][:2])}")
    program.functions.append(Function(name, len(parameters)))
    return lines


def accumulation(program: Program) -> list[str]:
    """A function that sums or counts over a list of the program's things."""
    stream, theme = program.stream, program.theme
    field, result = stream.pick(theme.fields), stream.pick(("total", "count"))
    added = f"{theme.thing}.{field}" if result == "total" else "1"
    lines = [
        f"def {program.new_name(f'{result}_{field}')}({theme.things}, limit):",
        f"    {result} = 0",
        f"    for {theme.thing} in {theme.things}:",
        f"        if {theme.thing}.{stream.pick(theme.fields)} {stream.pick(COMPARISONS)} limit:",
        f"            {result} += {added}",
    ]
    if stream.percent(40):
        lines += block(program, [result, "limit"], 1, 1)
    return [*lines, f"    return {result}"]


def search(program: Program) -> list[str]:
    """A function that finds the first thing with a property, or gives up."""
    stream, theme = program.stream, program.theme
    field, thing = stream.pick(theme.fields), theme.thing
    missing = stream.pick(("return None", f'raise KeyError("no such {thing}")', f"return {theme.things}[0]"))
    return [
        f"def {program.new_name(f'find_{stream.pick((thing, field))}')}({theme.things}, {field}):",
        f"    for {thing} in {theme.things}:",
        f"        if {thing}.{field} {stream.pick(COMPARISONS)} {field}:",
        f"            return {thing}",
        f"    {missing}",
    ]


def selection(program: Program) -> list[str]:
    """A function of one comprehension."""
    stream, theme = program.stream, program.theme
    label, thing = stream.pick(theme.labels), theme.thing
    way = stream.below(3)
    if way == 0:
        body = f"[{thing} for {thing} in {theme.things} if {stream.pick(('', 'not '))}{thing}.{label}]"
    elif way == 1:
        body = f"sorted({theme.things}, key=lambda {thing}: {thing}.{stream.pick(theme.fields)})"
    else:
        body = f"{{{thing}.name: {thing}.{stream.pick(theme.fields)} for {thing} in {theme.things} if {thing}.{label}}}"
    return [f"def {program.new_name(f'{label}_{theme.things}')}({theme.things}):", f"    return {body}"]


def container_class(program: Program) -> list[str]:
    """A class that keeps what its constructor was given, and methods that use only that."""
    stream, theme = program.stream, program.theme
    kept = stream.sample(theme.fields, 2)
    attributes = [f"self.{name}" for name in kept]
    lines = [f"class {theme.container.capitalize()}:", f"    def __init__(self, {', '.join(kept)}):"]
    lines += [f"        self.{name} = {name}" for name in kept]
    lines.append(f"        self.{theme.things} = []")
    for method in stream.sample((add_method, measure_method, change_method), stream.between(1, 3)):
        lines += ["", *method(program, attributes)]
    return lines


def add_method(program: Program, attributes: list[str]) -> list[str]:
    """A method that appends unless a limit is reached."""
    stream, theme = program.stream, program.theme
    guarded = stream.pick(attributes)
    return [
        f"    def add_{theme.thing}(self, {theme.thing}):",
        f"        if len(self.{theme.things}) {stream.pick(('>', '>='))} {guarded}:",
        f'            raise {stream.pick(EXCEPTIONS)}("{theme.container} is full")',
        f"        self.{theme.things}.append({theme.thing})",
    ]


def measure_method(program: Program, attributes: list[str]) -> list[str]:
    """An aggregate of one field, scaled by an attribute."""
    stream, theme = program.stream, program.theme
    field = stream.pick(theme.fields)
    word, function = stream.pick((("total", "sum"), ("highest", "max"), ("lowest", "min")))
    return [
        f"    def {word}_{field}(self):",
        f"        {word} = {function}({theme.thing}.{field} for {theme.thing} in self.{theme.things})",
        f"        return {program.expression([word, *attributes])}",
    ]


def change_method(program: Program, attributes: list[str]) -> list[str]:
    """A method with a free body that ends by changing an attribute."""
    stream, theme = program.stream, program.theme
    field = stream.pick(theme.fields)
    names = [field, *attributes]
    lines = [f"    def {stream.pick(ACTIONS)}_{field}(self, {field}):", *block(program, names, 2, stream.between(1, 3))]
    return [*lines, f"        {attributes[0]} = {stream.pick([names[-1], field])}"]


Piece = Callable[[Program], list[str]]
CLASS: Piece = container_class
FUNCTIONS: tuple[Piece, ...] = (computation, computation, computation, accumulation, search, selection)
