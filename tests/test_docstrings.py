"""Docstrings begin with the thing that they document, or with a function's verb, not with half a sentence."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "viper_e2e"
FRAGMENTS = ("what ", "of ", "that ", "which ", "as ")


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Docstrings with their lines: of modules, classes and functions, and those below fields and constants."""
    for node in ast.walk(tree):
        for statement in node.body if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) else []:
            match statement:
                case ast.Expr(ast.Constant(str() as text)):
                    yield statement.lineno, text.strip()


def test_no_docstring_begins_with_a_relative_clause():
    begun = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for line, text in docstrings(ast.parse(path.read_text(encoding="utf-8"))):
            said = text.partition(": ")[2] if line == 1 else text  # a file's own begins with its name
            if said.lower().startswith(FRAGMENTS):
                begun.append(f"{path.relative_to(PACKAGE)}:{line}: {text.splitlines()[0]}")
    assert not begun, "name what is documented: 'Settings of …', 'Number of …', 'Read …'"
