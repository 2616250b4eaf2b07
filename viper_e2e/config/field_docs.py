"""field_docs.py: docstrings below the fields of dataclasses, for help and pages."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from itertools import pairwise


@cache
def field_docs(kind: type) -> Mapping[str, str]:
    """Name of a field → its docstring as one line, also of fields that a base class declares."""
    found: dict[str, str] = {}
    for owner in reversed(kind.__mro__[:-1]):
        found |= _docs_in(owner.__module__).get(owner.__name__, {})
    return {field.name: found.get(field.name, "") for field in fields(kind)}


def title_of(kind: type) -> str:
    """A dataclass's own docstring as a heading: its first paragraph without the full stop."""
    return " ".join((kind.__doc__ or "").split("\n\n")[0].split()).removesuffix(".")


@cache
def _docs_in(module: str) -> Mapping[str, Mapping[str, str]]:
    """Docstrings below fields by class; a docstring is no part of a field, so that only the source has it."""
    import sys

    classes = [
        node
        for node in ast.parse(inspect.getsource(sys.modules[module])).body
        if isinstance(node, ast.ClassDef)
    ]
    return {
        node.name: {
            field.target.id: " ".join(text.value.value.split())
            for field, text in pairwise(node.body)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
            if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
            if isinstance(text.value.value, str)
        }
        for node in classes
    }
