"""safe_pickle.py: a file of `torch.save` read as data: names, containers, tensors; nothing is ever called."""

from __future__ import annotations

import pickletools
import reprlib
from collections import OrderedDict
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from viper_e2e.errors import ViperError
from viper_e2e.published.archive import Archive, Refused

MAX_INSTRUCTIONS = 2_000_000

DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
}
CLASS_PACKAGES = ("torch.nn.modules.", "transformers.")
"""Instances of their classes are read, as inert stubs."""
VALUES = {
    *(f"torch.{name}" for name in (*DTYPES, "float32", "float64", "float16", "bfloat16")),
    *("torch._C._nn.gelu", "torch.nn.functional.gelu"),
}
"""Further names that may occur; they stay names."""
CALLABLES = {
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    "collections.OrderedDict",
    "__builtin__.set",
    "builtins.set",
    "torch.Size",
}
"""Callables that a file may name; `_call` answers in their place."""


@dataclass(frozen=True)
class Name:
    """The name of a global in a pickle; it is never looked up."""

    text: str


@dataclass(eq=False, repr=False)
class Stub:
    """An instance in a pickle: the name of its class, and its attributes."""

    kind: str
    attributes: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"an instance of {self.kind[:80]}"


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring = 2, 80

    def repr_instance(self, x: object, level: int) -> str:
        return repr(x) if isinstance(x, bool | float | Stub | None) else f"a {type(x).__name__}"


def shown(value: object) -> str:
    """A value out of a file, for a message: one short line, also of a list that holds itself many times."""
    return _Short().repr(value)


def read(path: Path) -> Any:
    """The object in a file of `torch.save`: tensors, plain values, and a `Stub` for each instance.

    Python's unpickler looks up names that the file gives and calls what it finds. Here the two dozen
    instructions that such a file needs run over a stack of inert values: no name is ever resolved, so there is
    nothing to call. Any other instruction, name or call is refused. Tensors are views of the file mapped into
    memory: a file of 1 GB costs only the pages that are read.

    Raises `ViperError` that says what was found.
    """
    if not path.is_file():
        raise ViperError(f"{path}: no such file; give a released .model file")
    try:
        archive = Archive(path)
        return _Machine(archive).run(archive.pickle())
    except Refused as error:
        raise ViperError(f"{path}: refused, and nothing in it was run: found {error}") from None


class _Mark:
    """The beginning of a group of values on the stack."""


class _Machine:
    def __init__(self, archive: Archive):
        self._archive = archive
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._storages: dict[tuple, Tensor] = {}

    def run(self, pickle: bytes) -> Any:
        try:
            for count, (instruction, argument, _) in enumerate(pickletools.genops(pickle)):
                if instruction.name == "STOP":
                    return self._pop()
                if count == MAX_INSTRUCTIONS:
                    raise Refused(f"more than {MAX_INSTRUCTIONS} instructions")
                self._step(instruction.name, argument)
        except (ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError) as error:
            # What malformed pickles do to pickletools and to the plain containers of this machine.
            raise Refused(f"a malformed pickle ({type(error).__name__}: {shown(str(error))})") from None
        raise Refused("a pickle without an end")

    # As pickletools has it: text, a number or nothing, by the instruction.
    def _step(self, instruction: str, argument: Any) -> None:
        push = self._stack.append
        match instruction:
            case "PROTO" | "FRAME":
                pass
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                push({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[instruction])
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                push(argument)
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8":
                push(argument)
            case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT" | "EMPTY_SET":
                push({"T": tuple, "L": list, "D": dict, "S": set}[instruction[6]]())
            case "MARK":
                push(_Mark())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                push(tuple(self._pop() for _ in range(int(instruction[-1])))[::-1])
            case "TUPLE":
                push(tuple(self._pop_group()))
            case "APPEND" | "APPENDS":
                values = self._pop_group() if instruction == "APPENDS" else [self._pop()]
                self._top(list).extend(values)
            case "SETITEM" | "SETITEMS":
                values = self._pop_group() if instruction == "SETITEMS" else [self._pop(), self._pop()][::-1]
                self._top(dict).update(zip(_keys(values[::2]), values[1::2], strict=True))
            case "ADDITEMS":
                values = self._pop_group()
                self._top(set).update(_keys(values))
            case "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                self._memo[len(self._memo) if argument is None else argument] = self._top(object)
            case "BINGET" | "LONG_BINGET":
                push(self._memo[argument])
            case "GLOBAL":
                push(_name(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                name, module = self._pop(str), self._pop(str)
                push(_name(module, name))
            case "REDUCE":
                arguments, function = self._pop(tuple), self._pop(Name)
                push(_call(function.text, arguments))
            case "NEWOBJ":
                arguments, kind = self._pop(tuple), self._pop(Name)
                if arguments or not kind.text.startswith(CLASS_PACKAGES):
                    raise Refused(f"an instance of {shown(kind.text)} made from {len(arguments)} arguments")
                push(Stub(kind.text))
            case "BUILD":
                attributes = self._pop(dict)
                # Those of an ordered dict are a state dict's version numbers.
                if not isinstance(self._top(object), OrderedDict):
                    self._top(Stub).attributes.update(attributes)
            case "BINPERSID":
                push(self._storage(*self._pop(tuple)))
            case _:
                raise Refused(f"the instruction {instruction}, which no released checkpoint has")

    def _top(self, kind: type) -> Any:
        if not self._stack or not isinstance(self._stack[-1], kind) or isinstance(self._stack[-1], _Mark):
            found = type(self._stack[-1]).__name__ if self._stack else "nothing"
            raise Refused(f"a {found} in the pickle where a {kind.__name__} belongs")
        return self._stack[-1]

    def _pop(self, kind: type = object) -> Any:
        value = self._top(kind)
        self._stack.pop()
        return value

    def _pop_group(self) -> list[Any]:
        start = len(self._stack) - 1
        while not isinstance(self._stack[start], _Mark):
            start -= 1
            if start < 0:
                raise Refused("a group without a beginning")
        group = self._stack[start + 1 :]
        del self._stack[start:]
        return group

    def _storage(
        self, kind: object, storage: object, key: object, _device: object, num_elements: object
    ) -> Tensor:
        # Whatever device it was saved from, it is read into memory.
        if kind != "storage" or not isinstance(storage, Name) or not isinstance(key, str):
            raise Refused("a persistent id that is no storage")
        if not isinstance(num_elements, int) or isinstance(num_elements, bool):
            raise Refused("a persistent id that is no storage")
        dtype = DTYPES.get(storage.text.removeprefix("torch."))
        if dtype is None:
            raise Refused(f"a storage of {shown(storage.text)}")
        identity = (key, dtype, num_elements)
        if identity not in self._storages:
            self._storages[identity] = self._archive.storage(key, dtype, num_elements)
        return self._storages[identity]


def _name(module: str, name: str) -> Name:
    text = f"{module}.{name}"
    is_class = text.startswith(CLASS_PACKAGES) and all(part.isidentifier() for part in text.split("."))
    if not is_class and text not in VALUES and text not in CALLABLES:
        raise Refused(f"the name {shown(text)}")
    return Name(text)


def _call(function: str, arguments: tuple) -> Any:
    """The value that an allowed function would have made."""
    match function.rpartition(".")[2] if function in CALLABLES else None, arguments:
        case "OrderedDict", ():
            return OrderedDict()
        case "set", (list() as items,):
            return set(_keys(items))
        case "Size", (tuple() as sizes,):
            return sizes
        case "_rebuild_parameter", (Tensor() as data, bool(), _):
            return data
        case "_rebuild_tensor_v2", (
            Tensor() as storage,
            offset,
            tuple() as size,
            tuple() as stride,
            bool(),
            _,
            *_,
        ):
            return _tensor(storage, offset, size, stride)
    raise Refused(f"a call of {shown(function)} with {len(arguments)} arguments")


# Whatever the file has in its place; judged below.
def _tensor(storage: Tensor, offset: Any, size: tuple, stride: tuple) -> Tensor:
    numbers = (offset, *size, *stride)
    if len(size) == len(stride) <= 4 and all(type(n) is int and 0 <= n <= len(storage) for n in numbers):
        # Only plain layouts: a stride of 0 would grow out of its storage when it is copied.
        row_major = tuple(prod(size[i + 1 :]) for i in range(len(size)))
        if stride == row_major and 0 < prod(size) <= len(storage) - offset:
            return storage[offset : offset + prod(size)].view(size)
    raise Refused(f"a tensor of size {shown(size)}, stride {shown(stride)} in a storage of {len(storage)}")


def _keys(values: list[Any]) -> list[Any]:
    # Text and numbers only: hashing a tuple nested a million deep overflows the C stack.
    if not all(isinstance(value, str | int) for value in values):
        raise Refused("a key that is neither text nor a number")
    return values
