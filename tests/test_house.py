"""The rules of CONTRIBUTING.md that ruff, mypy and import-linter do not check: names, sizes and plain technical English."""

import ast
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAX_MODULE_LINES, MAX_FUNCTION_LINES, MIN_DOCSTRING_WORDS = 400, 60, 4
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager"}
TYPE_NAME = re.compile(r"_?[A-Z]\w*[a-z]\w*")
FOREIGN = re.compile(
    r"\b(told|untold|tells?|nobody|somebody|everybody|whom|mend(?:s|ed)?|leave (?:it|them|this) away|stands? (?:still|in it|twice)"
    r"|there is none of|has no say|looking on|look(?:s|ed)? on|look at them with care|a defect of moeprof)\b",
    re.IGNORECASE,
)
"""Words and phrases that read as translated from another language."""


class Module:
    """A source file and its syntax tree."""

    def __init__(self, path: Path, source: str) -> None:
        self.path, self.source, self.tree = path, source, ast.parse(source)

    def nodes(self, *kinds: type[ast.AST]) -> list[ast.AST]:
        return [node for node in ast.walk(self.tree) if isinstance(node, kinds)]


def vague_names(module: Module) -> Iterator[str]:
    if module.path.stem in VAGUE_NAMES:
        yield f"{module.path}: the name does not say what the module is for"


def long_modules(module: Module) -> Iterator[str]:
    if (lines := module.source.count("\n")) > MAX_MODULE_LINES:
        yield f"{module.path}: {lines} lines, more than {MAX_MODULE_LINES}"


def long_functions(module: Module) -> Iterator[str]:
    for node in module.nodes(ast.FunctionDef, ast.AsyncFunctionDef):
        if (lines := node.end_lineno - node.lineno + 1) > MAX_FUNCTION_LINES:
            yield f"{module.path}:{node.lineno}: {node.name} has {lines} lines, more than {MAX_FUNCTION_LINES}"


def short_docstrings(module: Module) -> Iterator[str]:
    for node in module.nodes(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef):
        text = ast.get_docstring(node)
        if text is not None and len(text.split()) < MIN_DOCSTRING_WORDS:
            yield f"{module.path}:{node.lineno}: the docstring of {node.name} is no sentence: {text!r}"


def foreign_words(module: Module) -> Iterator[str]:
    """Words of the default corpora are data and may be any."""
    if "corpora" in module.path.parts:
        return
    for node in module.nodes(ast.Constant):
        if isinstance(node.value, str) and (found := FOREIGN.search(node.value)):
            yield f"{module.path}:{node.lineno}: {found.group()!r} is not plain technical English"


def other_readers_of_documents(module: Module) -> Iterator[str]:
    """Readers that do not refuse deep nesting and repeated keys."""
    if module.path.name == "parsing.py":
        return
    for node in module.nodes(ast.Attribute):
        if (called := ast.unparse(node)) in (
            "json.load",
            "json.loads",
            "tomllib.load",
            "tomllib.loads",
        ) or "validate_json" in called:
            yield f"{module.path}:{node.lineno}: {called}; use parsed_json or parsed_toml"


def shared_type_names(modules: Iterable[Module]) -> Iterator[str]:
    owners: dict[str, set[str]] = defaultdict(set)
    for module in modules:
        for name in type_names(module.tree):
            owners[name].add(str(module.path))
    yield from (f"{name} is defined in {', '.join(sorted(paths))}" for name, paths in owners.items() if len(paths) > 1)


def type_names(tree: ast.Module) -> Iterator[str]:
    """Classes and aliases in CapWords that a module defines."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            yield from (name for name in names if TYPE_NAME.fullmatch(name))


def early_returns(module: Module) -> Iterator[str]:
    """Tests that may pass without an assertion."""
    for test in module.nodes(ast.FunctionDef):
        if test.name.startswith("test_"):
            for node in ast.walk(test):
                if isinstance(node, ast.Return) and node.value is None:
                    yield f"{module.path}:{node.lineno}: {test.name} returns early; parametrize it, skip it or use assume"


Rule = Callable[[Module], Iterator[str]]
RULES: list[Rule] = [vague_names, long_modules, long_functions, short_docstrings, foreign_words, other_readers_of_documents]


def modules_below(folder: str) -> list[Module]:
    return [Module(path.relative_to(ROOT), path.read_text()) for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.fixture(scope="module")
def modules() -> list[Module]:
    return modules_below("moeprof")


@pytest.mark.parametrize("rule", RULES)
def test_no_module_has(rule: Rule, modules: list[Module]) -> None:
    found = [finding for module in modules for finding in rule(module)]
    assert not found, "\n".join(found)


def test_every_type_name_has_one_owner(modules: list[Module]) -> None:
    found = list(shared_type_names(modules))
    assert not found, "\n".join(found)


def test_no_test_returns_early() -> None:
    found = [finding for module in modules_below("tests") for finding in early_returns(module)]
    assert not found, "\n".join(found)


def test_no_module_of_a_package_without_torch_imports_it_indirectly() -> None:
    """The contract of import-linter forbids the direct import."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (packages,) = (contract["source_modules"] for contract in contracts if contract.get("forbidden_modules") == ["torch"])
    code = (
        "import importlib, pkgutil, sys\n"
        "for name in sys.argv[1:]:\n"
        "    package = importlib.import_module(name)\n"
        "    for module in pkgutil.walk_packages(package.__path__, name + '.'):\n"
        "        importlib.import_module(module.name)\n"
        "        assert 'torch' not in sys.modules, module.name\n"
    )
    ended = subprocess.run([sys.executable, "-c", code, *packages], capture_output=True, text=True, cwd=ROOT)
    assert ended.stderr == ""


# The rules find what they are for


@pytest.mark.parametrize(
    ("rule", "name", "source"),
    [
        (vague_names, "utils.py", ""),
        (long_modules, "long.py", "\n" * 401),
        (long_functions, "long.py", "async def f():\n" + "    1\n" * 60),
        (short_docstrings, "short.py", 'class C:\n    """Of its records."""\n'),
        (foreign_words, "foreign.py", 'def f():\n    """A sentence that nobody reads."""\n'),
        (foreign_words, "foreign.py", "f'{1} Mend the file'\n"),
    ],
)
def test_a_rule_reports_its_violation_alone(rule: Rule, name: str, source: str) -> None:
    module = Module(Path("moeprof") / name, source)
    assert [other for other in RULES if list(other(module))] == [rule]


def test_an_early_return_of_a_test_is_reported() -> None:
    module = Module(Path("tests/test_x.py"), "def test_x():\n    if y:\n        return\ndef made():\n    return\n")
    assert [finding.split(":")[1] for finding in early_returns(module)] == ["3"]


def test_the_limits_themselves_are_allowed_and_corpora_hold_any_word() -> None:
    function = "def f():\n    '''A docstring of four.'''\n" + "    1\n" * 58
    longest = Module(Path("moeprof/longest.py"), function + "\n" * 340)
    corpus = Module(Path("moeprof/workloads/corpora/words.py"), "WORDS = 'nobody told'\n")
    assert [finding for rule in RULES for module in (longest, corpus) for finding in rule(module)] == []


def test_classes_and_aliases_count_as_types_and_constants_do_not() -> None:
    tree = ast.parse("class Key: ...\nPair = tuple[int, int]\nLIMIT = 3\nfrom a import Other\nx = 1\n")
    assert list(type_names(tree)) == ["Key", "Pair"]
    first, second, third = (
        Module(Path(f"{name}.py"), text) for name, text in (("a", "class Key: ..."), ("b", "Key = int"), ("c", ""))
    )
    assert list(shared_type_names([first, second, third])) == ["Key is defined in a.py, b.py"]
