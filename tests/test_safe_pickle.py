"""Files of torch.save are read as data: nothing in them is called, and what they claim is checked first."""

from __future__ import annotations

import builtins
import copyreg
import os
import pickle
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support.released_heads import perceiver, released
from support.selection import some_of

from viper_e2e.errors import ViperError
from viper_e2e.published import (
    read_released,
    safe_pickle,
)


class Runs:
    """Pickles to a call of ``function``."""

    def __init__(self, function: Callable, *arguments: object):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class Made:
    """An empty class that takes attributes: pickles to NEWOBJ and BUILD."""


class MadeWithKeywords:
    def __new__(cls, **keywords):
        return super().__new__(cls)

    def __getnewargs_ex__(self):
        return (), {"a": 1}


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def zipped(path: Path, data: bytes, **members: bytes) -> Path:
    """The zip of torch.save around any pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        for name, content in members.items():
            archive.writestr(f"archive/data/{name.removeprefix('storage_')}", content)
    return path


def assert_refused(path: Path, canary: Path, what: str) -> None:
    with pytest.raises(ViperError, match=what) as caught:
        read_released(path)
    assert not canary.exists()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    assert str(path) in str(caught.value)


CALLS = {
    "os.system": lambda canary: Runs(os.system, f"touch {canary}"),
    "builtins.eval": lambda canary: Runs(builtins.eval, f"open({str(canary)!r}, 'w').close()"),
    "builtins.exec": lambda canary: Runs(builtins.exec, f"open({str(canary)!r}, 'w').close()"),
    "subprocess": lambda canary: Runs(subprocess.check_call, ["touch", str(canary)]),
    "getattr": lambda canary: Runs(getattr, Path(canary), "touch"),
}


@pytest.mark.slow
@pytest.mark.parametrize("call", sorted(CALLS))
@pytest.mark.parametrize("where", ["alone", "attribute", "parameters", "config", "key"])
@pytest.mark.parametrize("protocol", some_of([2, 4], lambda _, number: number == 4))
def test_calls_are_refused_wherever_they_hide_and_nothing_runs(tmp_path, call, where, protocol):
    canary = tmp_path / "canary"
    evil = CALLS[call](canary)
    model: object = perceiver()
    if where == "alone":
        model = evil
    elif where == "attribute":
        model.encoder.mlp_ratio = [{"deep": (evil,)}]
    elif where == "parameters":
        model._parameters["evil"] = evil
    elif where == "config":
        model.config.__dict__["hidden_act"] = evil
    else:
        model._evil = {evil: 1}
    path = tmp_path / "hostile.model"
    torch.save(model, path, pickle_protocol=protocol)
    assert_refused(path, canary, "refused, and nothing in it was run")
    if call != "getattr":
        # The file is hostile indeed: the usual way of loading it runs it.
        torch.load(path, weights_only=False)
        assert canary.exists()


def test_a_file_that_loads_another_file_is_refused(tmp_path):
    canary = tmp_path / "canary"
    inner = tmp_path / "inner.model"
    torch.save(Runs(os.system, f"touch {canary}"), inner)
    outer = tmp_path / "outer.model"
    torch.save(Runs(torch.load, str(inner)), outer)
    assert_refused(outer, canary, r"torch\.serialization\.load")


def raw(instructions: str, canary: Path) -> bytes:
    command = text(f"touch {canary}")
    return {
        "REDUCE": b"\x80\x02cos\nsystem\n" + command + b"\x85R.",
        "INST": b"(" + command + b"ios\nsystem\n.",
        "OBJ": b"(cos\nsystem\n" + command + b"o.",
        "NEWOBJ": b"\x80\x02csubprocess\nPopen\n" + command + b"\x85\x81.",
        "NEWOBJ of an allowed name": b"\x80\x02ctorch._utils\n_rebuild_parameter\n)\x81.",
        "NEWOBJ with arguments": b"\x80\x02ctorch.nn.modules.linear\nLinear\nK\x01K\x01\x86\x81.",
        "NEWOBJ_EX": b"\x80\x04\x8c\x02os\x8c\x06system\x93)}\x92.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93" + command + b"\x85R.",
        "dotted name": b"\x80\x04\x8c\x18torch.nn.modules.linear\x8c\x09os.system\x93" + command + b"\x85R.",
        "line in a name": b"\x80\x04\x8c\x18torch.nn.modules.linear\x8c\x04a\nb:\x93)\x81.",
        "call of a class": b"\x80\x02ctorch.nn.modules.linear\nLinear\nK\x01K\x01\x86R.",
        "call of an instance": b"\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81)R.",
        "call of a text": b"\x80\x02" + command + b")R.",
        "BUILD of a function": b"\x80\x02ctorch._utils\n_rebuild_parameter\n}X\x01\x00\x00\x00aK\x01sb.",
        "BUILD with slots": b"\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81N}\x86b.",
        "BUILD with a call": b"\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81cos\nsystem\n"
        + command
        + b"\x85Rb.",
        "PERSID": b"Pstorage\n.",
        "persistent id that is a text": command + b"Q.",
        "persistent id of a call": b"\x80\x02("
        + text("storage")
        + b"cos\nsystem\n"
        + command
        + command
        + b"K\x01tQ.",
        "EXT1": b"\x80\x02\x82\xf0" + command + b"\x85R.",
        "EXT2": b"\x80\x02\x83\xf0\x00" + command + b"\x85R.",
        "EXT4": b"\x80\x02\x84\xf0\x00\x00\x00" + command + b"\x85R.",
        "reconstructor": b"ccopy_reg\n_reconstructor\n(c__builtin__\nobject\nc__builtin__\nobject\nNtR.",
        "NEXT_BUFFER": b"\x80\x05\x97.",
    }[instructions]


RAW = [
    *("REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ of an allowed name", "NEWOBJ with arguments", "NEWOBJ_EX"),
    *("STACK_GLOBAL", "dotted name", "line in a name", "call of a class", "call of an instance"),
    *("call of a text", "BUILD of a function", "BUILD with slots", "BUILD with a call", "PERSID"),
    *("persistent id that is a text", "persistent id of a call", "EXT1", "EXT2", "EXT4", "reconstructor"),
    "NEXT_BUFFER",
]


@pytest.mark.parametrize("instructions", RAW)
def test_every_instruction_that_could_run_something_is_refused(tmp_path, instructions):
    canary = tmp_path / "canary"
    # A registry entry would let EXT reach a function without naming it.
    copyreg.add_extension("posix", "system", 0xF0)
    try:
        path = zipped(tmp_path / "raw.model", raw(instructions, canary))
        assert_refused(path, canary, "refused, and nothing in it was run")
    finally:
        copyreg.remove_extension("posix", "system", 0xF0)


@pytest.mark.parametrize("instructions", ["REDUCE", "INST", "OBJ", "STACK_GLOBAL", "EXT1"])
def test_the_hostile_instructions_are_hostile_indeed(tmp_path, instructions):
    canary = tmp_path / "canary"
    copyreg.add_extension("posix", "system", 0xF0)
    try:
        pickle.loads(raw(instructions, canary))
    finally:
        copyreg.remove_extension("posix", "system", 0xF0)
        copyreg.clear_extension_cache()
    assert canary.exists()


def test_keyword_construction_and_foreign_classes_are_refused(tmp_path):
    for index, thing in enumerate((MadeWithKeywords(), Made(), {"a": Path("x")}, np.ones(2))):
        path = tmp_path / f"{index}.model"
        torch.save(thing, path, pickle_protocol=4)
        assert_refused(path, tmp_path / "canary", "refused")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b"\x80\x02",
        b"\x80\x02)R.",
        b"\x80\x02K\x01K\x02s.",
        b"\x80\x02h\x05.",
        b"\x80\x02]}]K\x01s.",
        b"\x80\x02}(K\x01u.",
        b"\x80\x02t.",
        b"\xff\xff",
        b"\x80\x02" + b"(" * 1000,
        b"\x80\x02" + b")" + b"\x85" * 20_000 + b"}" + b"h\x00",
        b"\x80\x02}" + b")" + b"\x85" * 30_000 + b"K\x01s.",
        b"\x80\x02I" + b"9" * 100_000 + b"\n.",
        b"\x80\x02(" + b"\x85" * 5 + b"Q.",
    ],
)
def test_malformed_pickles_are_refused(tmp_path, data):
    assert_refused(zipped(tmp_path / "torn.model", data), tmp_path / "canary", "found")


def doubling(levels: int) -> bytes:
    """A list that holds itself twice, ``levels`` deep: 2^levels items when walked."""
    return b"]q\x00" + b"".join(
        b"]q" + bytes([level]) + b"(h" + bytes([level - 1]) + b"h" + bytes([level - 1]) + b"e"
        for level in range(1, levels)
    )


@pytest.mark.slow
def test_memo_bombs_are_neither_walked_nor_printed(tmp_path):
    bomb = zipped(tmp_path / "bomb.model", b"\x80\x02" + doubling(200) + b".")
    assert_refused(bomb, tmp_path / "canary", r"holds \[\[")
    deep: list = []
    for _ in range(60):
        deep = [deep, deep]
    model = perceiver()
    model.config.__dict__["num_blocks"] = deep  # its own check would print it
    assert_refused(released(tmp_path, model), tmp_path / "canary", r"num_blocks is \[\[")


def test_too_many_instructions_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(safe_pickle, "MAX_INSTRUCTIONS", 1000)
    assert_refused(released(tmp_path), tmp_path / "canary", "more than 1000 instructions")


@pytest.mark.parametrize(
    ("storage", "size", "stride", "offset", "found"),
    [
        ((16, 4), (2, 2), (2, 1), 0, None),
        ((16, 4), (2, 1), (1, 1), 2, None),
        ((16, 4), (3,), (1,), 2, "a tensor of size"),
        ((16, 4), (1 << 40,), (0,), 0, "a tensor of size"),
        ((16, 4), (2, 2), (0, 0), 0, "a tensor of size"),
        ((16, 4), (2, 2), (1, 2), 0, "a tensor of size"),
        ((16, 4), (-1,), (1,), 0, "a tensor of size"),
        ((16, 4), (0,), (1,), 0, "a tensor of size"),
        ((16, 4), (1,), (1,), -1, "a tensor of size"),
        ((16, 4), (1, 1, 1, 1, 1), (1, 1, 1, 1, 1), 0, "a tensor of size"),
        ((16, 1 << 40), (2,), (1,), 0, "storage 'k' of 16 bytes"),
        ((16, 8), (2,), (1,), 0, "storage 'k' of 16 bytes"),
        ((16, -4), (2,), (1,), 0, "storage 'k' of 16 bytes"),
    ],
)
def test_sizes_are_checked_before_anything_is_allocated(tmp_path, storage, size, stride, offset, found):
    member, num_elements = storage

    def numbers(values):
        return pickle.dumps(values, 2)[2:-1]

    data = (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(("
        + text("storage")
        + b"ctorch\nFloatStorage\n"
        + text("k")
        + text("cuda:0")
        + numbers(num_elements)
        + b"tQ"
        + numbers(offset)
        + b"("
        + b"".join(map(numbers, size))
        + b"t("
        + b"".join(map(numbers, stride))
        + b"t\x89NtR."
    )
    path = zipped(tmp_path / "sizes.model", data, storage_k=np.arange(member // 4, dtype="<f4").tobytes())
    if found is None:
        expected = torch.arange(4.0)[offset:].reshape(size)
        assert torch.equal(safe_pickle.read(path), expected)
    else:
        assert_refused(path, tmp_path / "canary", found)


def test_odd_zips_are_refused(tmp_path):
    good = released(tmp_path).read_bytes()
    canary = tmp_path / "canary"
    cases = {
        "torn.model": (good[: len(good) // 2], "damaged zip"),
        "short.model": (good[:2], "no zip of torch.save"),
        "text.model": (b"version https://git-lfs.github.com/spec/v1\n", "no zip of torch.save"),
        "pickle.model": (pickle.dumps(Runs(os.system, f"touch {canary}")), "no zip of torch.save"),
    }
    for name, (data, found) in cases.items():
        (tmp_path / name).write_bytes(data)
        assert_refused(tmp_path / name, canary, found)
    with pytest.raises(ViperError, match="no such file"):
        read_released(tmp_path / "absent.model")


def test_compressed_doubled_and_overlapping_members_are_refused(tmp_path):
    squeezed, twice, overlapping = (tmp_path / f"{name}.model" for name in ("squeezed", "twice", "overlapping"))
    with zipfile.ZipFile(squeezed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02N.")
        archive.writestr("a/data/0", bytes(1 << 20))
    assert_refused(squeezed, tmp_path / "canary", "compressed")
    with zipfile.ZipFile(twice, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02N.")
        archive.NameToInfo.clear()
        archive.writestr("a/data.pkl", b"\x80\x02K\x01.")
    assert_refused(twice, tmp_path / "canary", "twice")
    with zipfile.ZipFile(overlapping, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02N.")
        archive.writestr("a/data/0", bytes(4096))
        for index in range(1, 40):
            info = zipfile.ZipInfo(f"a/data/{index}")
            first = archive.getinfo("a/data/0")
            info.header_offset, info.file_size, info.compress_size, info.CRC = (
                first.header_offset,
                first.file_size,
                first.compress_size,
                first.CRC,
            )
            archive.filelist.append(info)
            archive.NameToInfo[info.filename] = info
    assert_refused(overlapping, tmp_path / "canary", "overlap")


@pytest.mark.slow
def test_a_file_from_before_pytorch_1_6_is_refused_with_the_reason(tmp_path):
    path = released(tmp_path, _use_new_zipfile_serialization=False)
    assert_refused(path, tmp_path / "canary", r"before PyTorch 1\.6")
