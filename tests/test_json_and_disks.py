"""What we write: JSON that every program reads, files that others may read, and disks that are full."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import tempfile
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from support.training_runs import arguments, lines

from viper_e2e.commands.cli import main
from viper_e2e.config.presets import micro
from viper_e2e.errors import ViperError
from viper_e2e.model import checkpoint
from viper_e2e.model.checkpoint import CheckpointError
from viper_e2e.model.viper import ViPER
from viper_e2e.runtime import explain, plain_json, settle_folder

Usage = namedtuple("Usage", "total used free")


def refuse(word: str) -> None:
    raise AssertionError(f"{word} is not JSON")


def test_what_is_no_number_becomes_null():
    data = {"a": [math.nan, 1.5, {"b": math.inf}], "c": (-math.inf, 2), "ü": True}
    assert json.loads(plain_json.dumps(data), parse_constant=refuse) == {
        "a": [None, 1.5, {"b": None}],
        "c": [None, 2],
        "ü": True,
    }
    assert "ü" in plain_json.dumps(data)


def test_every_file_of_a_checkpoint_is_as_readable_as_the_user_lets_files_be(tmp_path):
    before = os.umask(0o027)
    try:
        ViPER(micro()).save_pretrained(tmp_path / "model")
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "model").rglob("*") if path.is_file()]
    assert len(files) > 3
    assert {oct(path.stat().st_mode & 0o777) for path in files} == {"0o640"}


def test_too_little_room_is_told_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10_000, 9_000, 1_000))
    with pytest.raises(OSError, match="needs 4,000 bytes, 1,000 are free, 3,000 are missing") as caught:
        checkpoint.save_tensors(tmp_path / "model.safetensors", {"a": torch.zeros(1000)})
    assert caught.value.errno == errno.ENOSPC
    assert not (tmp_path / "model.safetensors").exists()
    with pytest.raises(CheckpointError, match=r"model: not written \(no space left: .* are missing\)"):
        ViPER(micro()).save_pretrained(tmp_path / "model")


def test_room_is_told_of_the_disk_that_is_full_and_of_no_other(tmp_path):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert explain(full) == "no space is left on this disk; make room, or name a folder elsewhere"
    copied = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/elsewhere/a", None, str(tmp_path / "b"))
    assert explain(copied).startswith(f"{tmp_path / 'b'}: no space is left")
    assert re.match(
        rf"{tmp_path / 'a'}: no space is left on this disk \([\d,]+ MB\);", explain(full, tmp_path / "a")
    )


def test_a_full_disk_is_found_before_the_work_by_the_option_that_names_it(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: open("/dev/full", "wb"))  # noqa: PTH123, SIM115
    with pytest.raises(
        ViperError, match=rf"--run-dir {tmp_path}: cannot be written into \(No space left on device\)"
    ):
        settle_folder(tmp_path, "--run-dir")
    assert settle_folder(tmp_path, "--cache", may_be_full=True) == tmp_path


@pytest.mark.slow
def test_a_disk_that_fills_while_weights_are_written_ends_no_training_before_its_end(
    corpus, tmp_path, monkeypatch, capfd
):
    def full(*_: object) -> None:
        raise checkpoint.safetensors.SafetensorError("Error while serializing: I/O error: No space left")

    monkeypatch.setattr(checkpoint, "save_file", full)
    words = ("--modalities=visual", "--epochs=2", "--batch-size=8")
    assert main(["train", *arguments(corpus, tmp_path / "run", *words)]) == 1
    said = capfd.readouterr().err
    assert "checkpoints/last: not saved (Error while serializing" in said
    assert "bytes were to be written); training continues" in said
    assert "Traceback" not in said
    assert "nothing is saved; make room" in said
    assert len(lines(tmp_path / "run", "metrics.jsonl")) == 2


@pytest.mark.slow
def test_a_training_state_that_cannot_be_written_ends_no_training_before_its_end(
    corpus, tmp_path, monkeypatch, capfd
):
    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    words = ("--modalities=visual", "--epochs=1", "--batch-size=8")
    assert main(["train", *arguments(corpus, tmp_path / "run", *words)]) == 1
    assert "bytes are free); training continues" in capfd.readouterr().err


def test_a_copy_of_a_checkpoint_names_the_file_that_had_no_room(tmp_path, monkeypatch):
    model, new = tmp_path / "model", tmp_path / "new"
    ViPER(micro()).save_pretrained(model)
    checkpoint.copy_files(model, new)
    names = {path.relative_to(model) for path in model.rglob("*")}
    assert {path.relative_to(new) for path in new.rglob("*")} == names - {Path("manifest.json")}

    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source), None, str(target))

    monkeypatch.setattr(shutil, "copy2", full)
    with pytest.raises(OSError, match="No space left") as caught:
        checkpoint.copy_files(model, new)
    assert explain(caught.value).startswith(f"{new}/")
