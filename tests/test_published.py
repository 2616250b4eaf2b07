"""Released checkpoints: read as data, refused where they are more, and giving the published numbers."""

from __future__ import annotations

import builtins
import copyreg
import json
import logging
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support.selection import some_of
from torch import Tensor, nn
from transformers import PerceiverConfig, PerceiverModel
from transformers.models.perceiver.modeling_perceiver import PerceiverClassificationDecoder

from viper_e2e.encoders import Stream
from viper_e2e.errors import ViperError
from viper_e2e.model.checkpoint import load_tensors, verify
from viper_e2e.published import (
    ReleasedHead,
    import_published,
    is_published,
    published_checkpoint,
    read_released,
    safe_pickle,
)
from viper_e2e.published.importing import FILES, approximations
from viper_e2e.published.released import MODALITIES_OF_WIDTH

SMALL = {
    "num_latents": 4,
    "d_latents": 16,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 4,
    "num_cross_attention_heads": 4,
}


def perceiver(width: int = 1280, num_labels: int = 7, residual: bool = True, **changes) -> PerceiverModel:
    """A head as the authors' training script makes it, small."""
    torch.manual_seed(0)
    config = PerceiverConfig(d_model=width, num_labels=num_labels, **(SMALL | changes))
    positions = {"num_channels": config.d_latents, "index_dims": 1}
    decoder = PerceiverClassificationDecoder(
        config,
        num_channels=config.d_latents,
        trainable_position_encoding_kwargs=positions,
        use_query_residual=residual,
    )
    return PerceiverModel(config, decoder=decoder)


def released(
    tmp_path: Path, model: nn.Module | None = None, name: str = "perceiver_2.model", **options
) -> Path:
    path = tmp_path / name
    torch.save(perceiver() if model is None else model, path, **options)
    return path


def streams(features: dict[str, Tensor]) -> dict[str, Stream]:
    found = {}
    for name, tokens in features.items():
        there = torch.ones(tokens.shape[:2], dtype=torch.bool)
        found[name] = Stream(tokens, there, there, torch.zeros(tokens.shape[:2]))
    return found


def outputs(head: ReleasedHead, features: dict[str, Tensor]) -> Tensor:
    first = next(iter(features.values()))
    found = torch.ones(first.shape[:2], dtype=torch.bool)
    with torch.no_grad():
        return head.build()(streams(features), found, torch.ones(len(first)))


# --- what is read ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("width", sorted(MODALITIES_OF_WIDTH))
def test_modalities_follow_from_the_input_and_outputs_are_those_of_the_pickled_module(tmp_path, width):
    model = perceiver(width).eval()
    head = read_released(released(tmp_path, model))
    assert head.modalities == MODALITIES_OF_WIDTH[width]
    assert sum(head.widths.values()) == width
    features = {name: torch.randn(2, 5, size) for name, size in head.widths.items()}
    with torch.no_grad():
        expected = model(inputs=torch.cat(list(features.values()), -1)).logits
    torch.testing.assert_close(outputs(head, features), expected, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_any_usual_pickle_protocol_is_read(tmp_path, protocol):
    model = perceiver()
    head = read_released(released(tmp_path, model, pickle_protocol=protocol))
    for name, tensor in model.state_dict().items():
        assert torch.equal(head.state_dict[name], tensor)


def test_half_precision_is_read_as_float32(tmp_path):
    head = read_released(released(tmp_path, perceiver().half()))
    assert {t.dtype for t in head.state_dict.values()} == {torch.float32}


def test_the_file_may_go_after_reading(tmp_path):
    path = released(tmp_path)
    head = read_released(path)
    before = {k: t.clone() for k, t in head.state_dict.items()}
    path.unlink()
    model = head.build()
    for parameter in model.parameters():
        parameter.data.add_(1)
    assert all(torch.equal(model.perceiver.state_dict()[k], t + 1) for k, t in before.items())


# --- hostile files --------------------------------------------------------------------------------


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


# --- unexpected heads -----------------------------------------------------------------------------


def _swap_activation(model: PerceiverModel) -> None:
    model.encoder.self_attends[1].mlp.intermediate_act_fn = nn.ReLU()


def _double_module(model: PerceiverModel) -> None:
    model.encoder.self_attends[1] = model.encoder.self_attends[0]


def _drop_bias(model: PerceiverModel) -> None:
    model.decoder.decoder.final_layer.bias = None


def _wide_output(model: PerceiverModel) -> None:
    model.encoder.self_attends[0].mlp.dense1.weight = nn.Parameter(torch.zeros(3, 16))


def _other_eps(model: PerceiverModel) -> None:
    model.encoder.cross_attention.layernorm.eps = 1e-3


def _more_heads(model: PerceiverModel) -> None:
    model.encoder.self_attends[0].attention.self.num_heads = 2


def _extra(model: PerceiverModel) -> None:
    model.register_parameter("extra", nn.Parameter(torch.zeros(2)))


def _preprocessor(model: PerceiverModel) -> None:
    model.input_preprocessor = nn.Identity()


def _integers(model: PerceiverModel) -> None:
    model.register_buffer("steps", torch.zeros(3, dtype=torch.long))


def _many_layers(model: PerceiverModel) -> None:
    model.config.num_self_attends_per_block = 10**9


def _many_blocks(model: PerceiverModel) -> None:
    model.config.num_blocks = 10**9


def _no_heads(model: PerceiverModel) -> None:
    model.config.num_self_attention_heads = 0


def _three_heads(model: PerceiverModel) -> None:
    model.config.num_self_attention_heads = 3


def _no_latents(model: PerceiverModel) -> None:
    del model.embeddings.latents


def _wider_mlp(model: PerceiverModel) -> None:
    model.config.self_attention_widening_factor = 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "found"),
    [
        (_swap_activation, r"intermediate_act_fn is a ReLU, expected GELUActivation"),
        (_double_module, r"occurs twice"),
        (_drop_bias, r"1 tensor missing \(decoder\.decoder\.final_layer\.bias\)"),
        (_wide_output, r"dense1\.weight is \(3, 16\)"),
        (_other_eps, r"layernorm\.eps is 0\.001, expected 1e-05"),
        (_more_heads, r"num_heads is 2, expected 4"),
        (_extra, r"1 unknown \(extra\)"),
        (_preprocessor, r"input_preprocessor is a Identity, expected nothing"),
        (_integers, r"steps is a torch\.int64"),
        (_many_layers, r"num_self_attends_per_block is 1000000000 in its configuration, expected 2"),
        (_many_blocks, r"num_blocks is 1000000000 in its configuration, expected 1 to 256"),
        (_no_heads, r"num_self_attention_heads is 0"),
        (_three_heads, r"num_latent_heads=3 does not divide"),
        (_no_latents, r"it has no embeddings\.latents"),
        (_wider_mlp, r"self_attention_widening_factor is 4 in its configuration, expected 1"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_anything_unexpected_is_an_error_that_says_what_was_found(tmp_path, change, found):
    model = perceiver()
    change(model)
    path = released(tmp_path, model)
    with pytest.raises(ViperError, match=found):
        read_released(path).build()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda: perceiver().state_dict(), "holds a OrderedDict, not a whole pickled"),
        (lambda: nn.Linear(3, 4), r"holds an instance of torch\.nn\.modules\.linear\.Linear"),
        (lambda: perceiver(width=900), r"900 wide; released ones are 768 \(visual\)"),
        (lambda: perceiver(residual=False), r"use_query_residual is False, expected True"),
    ],
)
def test_other_modules_are_errors(tmp_path, make, found):
    with pytest.raises(ViperError, match=found):
        read_released(released(tmp_path, make())).build()


# --- into our format ------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_import_is_a_whole_folder_with_the_same_tensors(tmp_path):
    model = perceiver(2048)
    imported = import_published(released(tmp_path, model), tmp_path / "out", overrides={"visual": "some/vit"})
    verify(imported.folder)
    assert imported.modalities == ("visual", "audio", "textual")
    assert any("textual tokens are an approximation" in note for note in imported.notes)
    tensors = load_tensors(imported.folder / "model.safetensors")
    assert {f"fusion.perceiver.{name}" for name in model.state_dict()} == tensors.keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensors[f"fusion.perceiver.{name}"], tensor)
    settings = json.loads((imported.folder / "config.json").read_text())
    assert settings["backbones"]["visual"]["spec"] == "some/vit"
    assert settings["backbones"]["audio"]["spec"] == "microsoft/wavlm-base-plus-sv"
    assert settings["model"]["fusion"]["kind"] == "concat"
    assert settings["model"]["decoding"]["sampling"] == "paper"


@pytest.mark.slow
def test_without_sound_none_is_decoded(tmp_path):
    imported = import_published(released(tmp_path, perceiver(768)), tmp_path / "out")
    assert json.loads((imported.folder / "config.json").read_text())["model"]["decoding"]["sound"] == "none"


def test_a_replacement_for_a_backbone_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(ViperError, match="has no audio; its modalities are visual"):
        import_published(released(tmp_path, perceiver(768)), tmp_path / "out", overrides={"audio": "x"})
    assert not (tmp_path / "out").exists()


def test_a_head_of_other_labels_is_an_error(tmp_path):
    with pytest.raises(ViperError, match="5 outputs; the released ones have 7"):
        import_published(released(tmp_path, perceiver(num_labels=5)), tmp_path / "out")


@pytest.mark.slow
def test_a_folder_with_one_model_file_will_do(tmp_path):
    (tmp_path / "in").mkdir()
    released(tmp_path / "in", name="a.model")
    assert import_published(tmp_path / "in", tmp_path / "out").modalities == ("visual", "audio")
    released(tmp_path / "in", name="b.model")
    with pytest.raises(ViperError, match=r"2 \.model files"):
        import_published(tmp_path / "in", tmp_path / "out")


def test_approximations_are_named_until_they_are_replaced():
    everything = ("visual", "audio", "textual", "action_units")
    assert [note.split()[0] for note in approximations(everything, {})] == ["faces", "textual", "action"]
    replaced = approximations(("textual",), {"image_text": "a", "sentence_bank": "b"})
    assert not any("approximation" in note for note in replaced)
    assert "--sentence-bank" in " ".join(approximations(("textual",), {"image_text": "a"}))


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """A hub cache without a network, holding ViPER-VA at one commit."""
    cache, commit = tmp_path / "hub", "0123456789abcdef0123456789abcdef01234567"
    repository = cache / "models--VaianiLorenzo--ViPER-VA"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    released(snapshot, name=FILES["VaianiLorenzo/ViPER-VA"])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return snapshot


@pytest.mark.slow
def test_a_hub_id_is_converted_once_per_commit_and_again_if_damaged(hub, tmp_path):
    assert is_published("VaianiLorenzo/ViPER-VA")
    first = published_checkpoint("VaianiLorenzo/ViPER-VA")
    assert first.folder.is_relative_to(tmp_path / "cache" / "viper_e2e")
    assert first.folder.name.endswith(hub.name)
    weights = first.folder / "model.safetensors"
    made = weights.stat().st_mtime_ns
    assert published_checkpoint("VaianiLorenzo/ViPER-VA") == first
    assert weights.stat().st_mtime_ns == made
    weights.write_bytes(b"damaged")
    assert published_checkpoint("VaianiLorenzo/ViPER-VA") == first
    verify(first.folder)


def test_the_hubs_retries_are_not_told_line_by_line(monkeypatch):
    logger, told = logging.getLogger("huggingface_hub.utils._http"), []

    def unreachable(*_, **__):
        told.append(logger.isEnabledFor(logging.WARNING))
        raise OSError("no route")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    with pytest.raises(ViperError, match=r"could not be fetched \(the hub cannot be reached: no route\)"):
        published_checkpoint("VaianiLorenzo/ViPER-V")
    assert told == [False]
    assert logger.isEnabledFor(logging.WARNING)


@pytest.mark.slow
def test_a_local_file_is_converted_once_per_content(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = released(tmp_path)
    assert is_published(path)
    assert is_published(str(tmp_path))
    assert not is_published(tmp_path / "nothing.model")
    first = published_checkpoint(path)
    made = (first.folder / "model.safetensors").stat().st_mtime_ns
    assert published_checkpoint(tmp_path) == first
    assert (first.folder / "model.safetensors").stat().st_mtime_ns == made
    assert not is_published(first.folder), "a folder of ours is loaded as it is"
    torch.save(perceiver(768), path)
    assert published_checkpoint(path).folder != first.folder


def test_a_checkpoint_that_cannot_be_fetched_is_one_line_that_says_what_to_do(hub):
    with pytest.raises(ViperError, match=r"perceiver_7\.model is not in the cache and") as caught:
        published_checkpoint("VaianiLorenzo/ViPER-VATF")
    assert "\n" not in str(caught.value)
    assert "import-published" in str(caught.value)


@pytest.mark.campaign
def test_a_file_of_full_size_is_imported_within_3_gb(tmp_path):
    path = tmp_path / "full.model"
    make = (
        "import sys, torch; sys.path.insert(0, 'tests'); from test_published import perceiver\n"
        "torch.save(perceiver(2080, num_latents=256, d_latents=1280, num_self_attends_per_block=26,"
        " num_self_attention_heads=8, num_cross_attention_heads=8), sys.argv[1])"
    )
    load = (
        "import sys; from pathlib import Path; from viper_e2e.published import import_published\n"
        "import_published(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        "sys.path.insert(0, 'tests'); from support.peak_memory import peak_mib; print(peak_mib())"
    )
    root = Path(__file__).resolve().parent.parent
    subprocess.run([sys.executable, "-c", make, path], check=True, cwd=root)
    assert path.stat().st_size > 1.1e9
    done = subprocess.run(
        [sys.executable, "-c", load, path, tmp_path / "out"],
        check=True,
        cwd=root,
        capture_output=True,
        text=True,
    )
    peak = float(done.stdout) * 2**20
    assert peak < 3e9, f"{peak / 1e9:.2f} GB"
    print(f"peak {peak / 1e9:.2f} GB")


@pytest.mark.slow
def test_reading_looks_nothing_up_and_runs_nothing(tmp_path):
    """Python's own audit events, of a genuine file read by us and then by the usual way."""
    path = released(tmp_path)
    safe_pickle.read(path)
    events: list[str] = []
    watching = True
    sys.addaudithook(lambda event, _: events.append(event) if watching else None)
    safe_pickle.read(path)
    ours, events[:] = set(events), []
    torch.load(path, weights_only=False)
    usual, watching = set(events), False
    suspicious = {"import", "exec", "compile", "pickle.find_class", "os.system", "subprocess.Popen"}
    assert "pickle.find_class" in usual
    assert not ours & suspicious
    assert "open" in ours
