"""Annotations are checked in tests, and our quicker way refuses exactly what jaxtyping's own refuses."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import torch
from beartype import beartype
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float, Int, TypeCheckError
from support import typechecks
from torch import Tensor

if TYPE_CHECKING:
    from nowhere import Imported


def plain(number: int, name: str | None = None) -> str:
    return "x" * number if name is None else 0


def shapes(x: Float[Tensor, "N D"], y: Float[Tensor, "N"], *, crosswise: bool = False) -> Float[Tensor, "D N"]:
    return x if crosswise else x.T


def size_of_an_argument(x: Int[Tensor, "N"], count: int = 2) -> Int[Tensor, "N {count}"]:
    return x[:, None].expand(-1, 2)


def inside(pair: tuple[Float[Tensor, "N"], Float[Tensor, "N"]]) -> list[Float[Tensor, "N"]]:
    return list(pair)


def for_type_checkers(value: Imported, number: int) -> int:
    return number


def generator(count: int) -> Iterator[int]:
    yield from range(count)


@dataclass
class Fields:
    x: Float[Tensor, "N"]
    y: Float[Tensor, "N"]


MATRIX, THREE, TWO = torch.zeros(3, 2), torch.zeros(3), torch.zeros(2)
CASES: list[tuple[Callable, tuple, dict, bool]] = [
    (plain, (1,), {}, True),
    (plain, ("1",), {}, False),
    (plain, (1, "wrong result"), {}, False),
    (plain, (1, b""), {}, False),
    (shapes, (MATRIX, THREE), {}, True),
    (shapes, (MATRIX, TWO), {}, False),
    (shapes, (MATRIX, THREE), {"crosswise": True}, False),
    (shapes, (MATRIX.long(), THREE), {}, False),
    (size_of_an_argument, (THREE.long(),), {}, True),
    (size_of_an_argument, (THREE.long(), 2), {}, True),
    (size_of_an_argument, (THREE.long(),), {"count": 3}, False),
    (inside, ((THREE, THREE),), {}, True),
    (inside, ((THREE, TWO),), {}, False),
    (for_type_checkers, (object(), 1), {}, True),
    (for_type_checkers, (object(), "1"), {}, False),
    (generator, (2,), {}, True),
    (generator, ("2",), {}, False),
    (Fields, (THREE, THREE), {}, True),
    (Fields, (THREE, TWO), {}, False),
]
REFUSED = (TypeCheckError, BeartypeCallHintViolation)


@pytest.mark.parametrize("way", [typechecks.checked, typechecks.slowly])
@pytest.mark.parametrize(("fn", "given", "named", "fits"), CASES)
def test_what_is_refused_is_what_jaxtyping_refuses(way, fn, given, named, fits):
    if isinstance(fn, type):
        fn = type(fn.__name__, (), {"__annotations__": fn.__annotations__})
        fn = dataclass(fn)
    made = way(fn, typechecker=beartype)
    with contextlib.nullcontext() if fits else pytest.raises(REFUSED):
        made(*given, **named)


def test_letters_hold_for_one_call_and_the_error_tells_them():
    made = typechecks.checked(shapes, typechecker=beartype)
    made(MATRIX, THREE)
    made(torch.zeros(5, 4), torch.zeros(5))
    with pytest.raises(BeartypeCallHintViolation) as caught:
        made(MATRIX, TWO)
    assert "N=3" in "".join(caught.value.__notes__)


def test_the_package_is_checked_in_this_way():
    from viper_e2e.faces.summed_area import summed_area

    with pytest.raises(BeartypeCallHintViolation):
        summed_area(torch.zeros(1, 4, 4, 3))
