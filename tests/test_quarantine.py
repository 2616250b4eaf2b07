"""A clip to train on and one to validate on that have the same key, or a folder's name in it, are two clips."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.media import make_clip
from support.tars import record, write_foreign
from support.training_runs import lines, run

from viper_e2e.encoders import PreparedClip
from viper_e2e.errors import ClipError
from viper_e2e.loading import ClipKey, RunQuarantine, SkipBudget, SkipRecord
from viper_e2e.model import ViPER
from viper_e2e.training.absent_modalities import AbsentModalities

TRAINED, VALIDATED = ClipKey("train", "validation/8"), ClipKey("val", "8")


def test_a_quarantine_comes_back_out_of_a_checkpoint_split_by_split():
    quarantine, again = RunQuarantine(), RunQuarantine()
    for clip in (TRAINED, VALIDATED, ClipKey("train", "8"), ClipKey("val", "validation/8")):
        quarantine.add(clip, f"{clip.split} {clip.key}")
    again.restore(quarantine.to_json())
    assert again == quarantine
    assert again.val.reason_of("8") == "val 8"
    assert again.val.reason_of("9") is None


def test_a_quarantine_that_earlier_versions_saved_is_read():
    quarantine = RunQuarantine()
    quarantine.restore({"a": "killed", "validation/b": "hangs", "train": "leaves"})
    assert quarantine.train.reasons == {"a": "killed", "train": "leaves"}
    assert quarantine.val.reasons == {"b": "hangs"}


def test_clips_that_were_written_down_are_told_apart_also_after_a_checkpoint():
    trained = SkipRecord("val/8", "train.tar", "decode", "no frame", 0, 3)
    validated = replace(trained, key="8", split="val", step=1)
    budget, again = SkipBudget(), SkipBudget()
    assert [budget.skip(one) for one in (trained, validated)] == [True, True]
    again.load_state_dict(budget.state_dict())
    assert [again.skip(one) for one in (trained, validated)] == [False, False]
    older = SkipBudget()
    older.load_state_dict(budget.state_dict() | {"known": ["a", "val/8"]})
    assert older.skip(trained)
    assert not older.skip(validated)


@pytest.mark.slow
@pytest.mark.parametrize(("more", "trained"), [((), ""), (("--seeds=2",), "seed-1")], ids=["one", "seeds"])
def test_clips_that_are_reused_are_those_of_their_split(tmp_path, more, trained):
    """Folders are parts of keys in shards of others; one is called as what stood before keys of validation."""
    for split, folder in (("train", "validation/"), ("val", "")):
        members = []
        for i in range(4):
            shade = 40 + 40 * i if split == "train" else 220 - 40 * i
            frames = [np.full((64, 96, 3), shade, np.uint8)] * 4
            clip = make_clip(tmp_path / f"{split}{i}.mp4", frames=frames, fps=4, sound=None)
            members += [(f"{folder}{i}.json", record(i, joy=i / 4)), (f"{folder}{i}.mp4", clip.read_bytes())]
        write_foreign(tmp_path / f"{split}-0.tar", members)
    words = ("--modalities=visual", "--epochs=1", "--batch-size=4", *more)
    val, shards = f"--val-shards={tmp_path}/val-*.tar", f"--train-shards={tmp_path}/train-*.tar"
    told = []
    for budget in ("0", "1GB"):
        folder = run(tmp_path, tmp_path / budget, val, shards, *words, f"--reuse-memory={budget}")
        told.append(lines(folder / trained, "metrics.jsonl"))
    assert told[0] == told[1]


@pytest.mark.slow
@pytest.mark.parametrize("words", [("--loss=mse=1",), ("--loss=ccc=1",), ("--head=ridge",)])
def test_a_clip_that_fails_only_in_the_module_is_left_out_written_down_and_not_tried_again(
    corpus, tmp_path, monkeypatch, words
):
    prepare, met = ViPER.prepare, []

    def failing(self: ViPER, clips: list) -> list:
        prepared = prepare(self, clips)
        for row, clip in enumerate(prepared):
            if isinstance(clip, PreparedClip) and clip.name == "3":
                met.append(clip.name)
                prepared[row] = ClipError("decoding it again failed: killed", stage="worker", clip="3")
        return prepared

    seen: list[float] = []
    add = AbsentModalities.add

    def see(self: AbsentModalities, output: object, weights: torch.Tensor) -> None:
        seen.extend(weights.tolist())
        add(self, output, weights)

    monkeypatch.setattr(ViPER, "prepare", failing)
    monkeypatch.setattr(AbsentModalities, "add", see)
    more = () if "--head=ridge" in words else ("--epochs=2", "--batch-size=1")
    val = f"--val-shards={corpus}/shards/val-*.tar"
    folder = run(corpus, tmp_path / "run", "--modalities=visual", val, *words, *more)
    skipped = lines(folder, "skipped.jsonl")
    assert [(line["key"], line["stage"]) for line in skipped] == [("3", "worker")]
    assert met == ["3"]
    assert seen.count(0.0) == (1 if "--head=ridge" in words else 2)
    for line in lines(folder, "metrics.jsonl"):
        assert line["train_loss"] is None or math.isfinite(line["train_loss"])
