"""typechecks.py: every annotation of viper_e2e is checked when tests run, at half jaxtyping's cost.

`--jaxtyping-packages` in setup.cfg puts `jaxtyping.jaxtyped` above each function and class of the package. That
makes two more calls of each, one for the arguments and one for these and the result, and binds arguments to
names although few annotations read them: it doubled the time of a training. Here beartype wraps the function,
and what only shapes need is done only where an annotation has one. What is accepted and what is refused stays
the same: `test_typechecks` compares both.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import jaxtyping
from beartype import beartype
from beartype.roar import BeartypeCallHintViolation
from jaxtyping._storage import pop_shape_memo, push_shape_memo, shape_str

slowly = jaxtyping.jaxtyped


def install() -> None:
    """From here on; functions that are there already keep what they have."""
    jaxtyping.jaxtyped = checked


def checked(fn: Any = None, *, typechecker: Any) -> Any:
    """As `jaxtyping.jaxtyped`, which also does what is rare: classes, descriptors, generators."""
    if fn is None:
        return functools.partial(checked, typechecker=typechecker)
    if not inspect.isfunction(fn) or _does_not_run_when_called(fn) or hasattr(fn, "__no_type_check__"):
        return slowly(fn, typechecker=typechecker)
    hints = {name: _resolved(hint, fn.__globals__) for name, hint in fn.__annotations__.items()}
    shapes = [shape for hint in hints.values() for shape in _shapes(hint)]
    if not shapes:
        return _beartyped(fn, hints)
    return _shaped(
        fn, _beartyped(fn, hints), reads_arguments=any("{" in str(shape.dim_str) for shape in shapes)
    )


def _does_not_run_when_called(fn: Callable) -> bool:
    """Beartype would look at each item that a generator gives, and at no argument before the first one."""
    return any(
        kind(fn)
        for kind in (inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    )


def _resolved(hint: Any, names: dict[str, Any]) -> Any:
    """What an annotation means; what is imported for type checkers alone means anything, as in jaxtyping."""

    def holder() -> None: ...

    holder.__annotations__ = {"value": hint}
    try:
        return get_type_hints(holder, names, include_extras=True)["value"]
    except NameError:
        return Any


def _shapes(hint: Any) -> list[Any]:
    if inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
        return [hint]
    return [shape for inner in get_args(hint) for shape in _shapes(inner)]


def _beartyped(fn: Callable, hints: dict[str, Any]) -> Callable:
    written = fn.__annotations__
    fn.__annotations__ = hints
    try:
        made = beartype(fn)
    finally:
        fn.__annotations__ = written
    if made is not fn:
        made.__annotations__ = written
    return made


def _shaped(fn: Callable, made: Callable, *, reads_arguments: bool) -> Callable:
    """Letters of shapes hold for one call; those in braces are names of arguments."""
    signature = inspect.signature(fn)

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        arguments = {}
        if reads_arguments:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            arguments = bound.arguments
        memos = push_shape_memo(arguments)
        try:
            return made(*args, **kwargs)
        except BeartypeCallHintViolation as error:
            error.add_note(shape_str(memos))
            raise
        finally:
            pop_shape_memo()

    return call
