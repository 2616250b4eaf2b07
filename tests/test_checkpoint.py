"""Checkpoint folders are whole or not there; every damage is found and named."""

from __future__ import annotations

import contextlib
import os
import shutil

import pytest
import torch

from viper_e2e.model import checkpoint
from viper_e2e.model.checkpoint import CheckpointError


def fill(value: float):
    def write(folder):
        (folder / "inner").mkdir()
        (folder / "inner" / "a.json").write_text(f'{{"value": {value}}}')
        checkpoint.save_tensors(folder / "w.safetensors", {"w": torch.full((3,), value)})

    return write


def value_in(folder) -> float:
    return checkpoint.load_tensors(folder / "w.safetensors")["w"][0].item()


def test_a_second_save_replaces_the_first_and_leaves_nothing_beside_it(tmp_path):
    target = tmp_path / "last"
    checkpoint.write_folder(target, fill(1.0))
    checkpoint.write_folder(target, fill(2.0))
    checkpoint.verify(target)
    assert value_in(target) == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_a_failure_while_filling_leaves_the_old_folder_and_no_scraps(tmp_path):
    target = tmp_path / "last"
    checkpoint.write_folder(target, fill(1.0))

    def fail(folder):
        fill(2.0)(folder)
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        checkpoint.write_folder(target, fail)
    assert value_in(target) == 1.0
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_a_run_that_has_saved_nothing_is_told_from_a_wrong_path(tmp_path):
    assert checkpoint.folder_of(tmp_path) == tmp_path
    (tmp_path / "config.yaml").touch()
    with pytest.raises(CheckpointError, match=r"no checkpoint yet; `viper train --resume --run-dir"):
        checkpoint.folder_of(tmp_path)


def test_what_was_never_finished_is_no_damaged_checkpoint(tmp_path):
    target, unfinished = tmp_path / "last", tmp_path / "last.new"
    checkpoint.write_folder(target, fill(1.0))
    shutil.copytree(target, unfinished)
    (unfinished / "w.safetensors").write_bytes(b"half")
    shutil.move(target, tmp_path / "last.previous")
    assert checkpoint.newest_whole(target) == (tmp_path / "last.previous", [])
    (tmp_path / "last.previous" / "w.safetensors").write_bytes(b"half")
    found, (complaint,) = checkpoint.newest_whole(target)
    assert found is None
    assert "last.previous" in complaint


class Killed(BaseException):
    """Stands for the power going away: nothing may clean up after it."""


@pytest.mark.parametrize("dies_at", range(12))
def test_death_at_any_step_leaves_a_whole_folder(tmp_path, monkeypatch, dies_at):
    target = tmp_path / "last"
    checkpoint.write_folder(target, fill(1.0))
    calls = 0

    def counted(function):
        def wrapper(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls > dies_at:
                raise Killed
            return function(*args, **kwargs)

        return wrapper

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", counted(shutil.rmtree))
        patch.setattr(type(target), "replace", counted(type(target).replace))
        patch.setattr(checkpoint, "write_json", counted(checkpoint.write_json))
        patch.setattr(os, "fsync", counted(os.fsync))
        with contextlib.suppress(Killed):
            checkpoint.write_folder(target, fill(2.0))
    whole, _ = checkpoint.newest_whole(target)
    assert whole is not None
    assert value_in(whole) in (1.0, 2.0)


@pytest.mark.parametrize("name", ["inner/a.json", "w.safetensors", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "delete", "empty"])
def test_every_damage_is_found_and_the_file_named(tmp_path, name, damage):
    target = tmp_path / "last"
    checkpoint.write_folder(target, fill(1.0))
    path = target / name
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    with pytest.raises(CheckpointError) as caught:
        checkpoint.verify(target)
    # A flipped bit in the manifest may show in the file it speaks of.
    assert str(target) in str(caught.value)
    if name != "manifest.json":
        assert path.name in str(caught.value)
    assert checkpoint.newest_whole(target)[0] is None


def test_a_manifest_that_points_outside_is_refused(tmp_path):
    target = tmp_path / "last"
    checkpoint.write_folder(target, fill(1.0))
    checkpoint.write_json(
        target / "manifest.json", {"schema": 1, "files": {"../secret": {"size": 1, "sha256": "0" * 64}}}
    )
    with pytest.raises(CheckpointError, match="outside"):
        checkpoint.verify(target)


@pytest.mark.parametrize("text", ["[1, 2]", "{", "[" * 100_000, '"\ud800"'])
def test_json_that_is_not_an_object_is_an_error_with_the_files_name(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        checkpoint.read_json(path)


def test_weights_that_are_a_pickle_are_refused_unread(tmp_path):
    path = tmp_path / "model.safetensors"
    torch.save({"w": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        checkpoint.load_tensors(path)
