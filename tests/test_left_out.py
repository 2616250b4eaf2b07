"""Clips that cannot be used: written down, counted, never twice; where they are too many the run ends."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from accelerate import Accelerator
from support.media import make_clip
from support.predictions import predictions_of
from support.training_runs import arguments, lines, settings, spoiled_steps

from viper_e2e.commands.cli import main
from viper_e2e.labels import LabelSet
from viper_e2e.packing import pack
from viper_e2e.report import RunLog, ScoreRecord
from viper_e2e.report.run_log import Judgement
from viper_e2e.scoring import scores_of
from viper_e2e.tables import write_labels
from viper_e2e.training import validation
from viper_e2e.training.trainer import open_trainer
from viper_e2e.training.validation import improved

pytestmark = pytest.mark.slow

WORDS = ("--modalities=visual", "--epochs=2", "--batch-size=4")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    frames = [np.full((64, 96, 3), 90, np.uint8)] * 4
    return make_clip(
        tmp_path_factory.mktemp("clip") / "clip.mp4", frames=frames, fps=4, sound=None
    ).read_bytes()


@pytest.fixture
def shards(tmp_path, clip):
    """`shards(train, val)`: packed clips, `.` one that can be read, `x` one without its index."""

    def make(train: str, val: str = ""):
        (tmp_path / "videos").mkdir()
        rows = []
        for i, sign in enumerate(train + val):
            whole = sign == "."
            (tmp_path / "videos" / f"{i}.mp4").write_bytes(clip if whole else clip[: clip.find(b"moov") - 4])
            split = "train" if i < len(train) else "val"
            rows.append({"File_ID": f"[{i}]", "Split": split, "Joy": i / 20, "Fear": (i % 3) / 2})
        write_labels(tmp_path / "labels.csv", rows)
        pack(tmp_path / "videos", tmp_path / "labels.csv", tmp_path / "shards")
        return tmp_path

    return make


def trained(folder, *words: str) -> int:
    return main(["train", *arguments(folder, folder / "run", *WORDS, *words)])


def validating(folder, *words: str) -> int:
    return trained(folder, f"--val-shards={folder}/shards/val-*.tar", *words)


def test_a_run_that_could_use_no_clip_fails_and_leaves_no_checkpoint(shards, capfd):
    folder = shards("xxx")
    assert trained(folder) == 1
    said = capfd.readouterr().err
    assert "none of the 3 clips of an epoch could be used" in said
    assert "loss 0.0" not in said
    assert not (folder / "run" / "checkpoints").exists()
    assert len(lines(folder / "run", "skipped.jsonl")) == 3


def test_a_small_set_of_which_most_is_unreadable_is_refused(shards, capfd):
    assert trained(shards("xxxxxx..xxxx")) == 1
    assert "of the 12 clips of an epoch could not be used" in capfd.readouterr().err


def test_a_few_unreadable_clips_of_a_small_set_are_endured_and_said(shards, capfd):
    folder = shards("..x..x")
    assert trained(folder) == 0
    assert "2 of 6 clips could not be used" in capfd.readouterr().err
    assert [record["key"] for record in lines(folder / "run", "skipped.jsonl")] in (["2", "5"], ["5", "2"])
    assert len(lines(folder / "run", "skipped.jsonl")) == 2


def test_unreadable_validation_clips_are_written_down_once_and_said(shards, capfd):
    folder = shards("....", "..xxx")
    assert validating(folder) == 0
    records = lines(folder / "run", "skipped.jsonl")
    assert [(r["split"], r["stage"], r["epoch"], r["step"]) for r in records] == [
        ("val", "container", 0, 1)
    ] * 3
    assert sorted(r["key"] for r in records) == ["6", "7", "8"]
    assert [r["position"] for r in records] == sorted({r["position"] for r in records})
    assert [line["val"]["num_left_out"] for line in lines(folder / "run", "metrics.jsonl")] == [3, 3]
    assert "3 validation clips could not be used; see skipped.jsonl" in capfd.readouterr().err


def test_unreadable_validation_clips_obey_on_error(shards, capfd):
    folder = shards("....", "...x")
    assert validating(folder, "--on-error=raise") == 1
    assert "--on-error raise" in capfd.readouterr().err


def test_a_validation_without_one_usable_clip_ends_the_run(shards, capfd):
    assert validating(shards("....", "xx")) == 1
    assert "validation: none of the 2 clips" in capfd.readouterr().err


@pytest.mark.campaign
def test_clips_left_out_after_going_back_do_not_count_again(shards):
    folder = shards("." * 40)
    words = (*WORDS, "--epochs=8", "--batch-size=2", "--reuse-memory=1GB")
    trainer = open_trainer(
        settings(folder, folder / "run", *words),
        Accelerator(cpu=True, step_scheduler_with_optimizer=False),
        hooks=spoiled_steps(range(21, 24)),
    )
    assert trainer.train() == 0
    trainer.close()
    assert len(trainer.run.quarantine.train.reasons) == 6
    assert trainer.run.guard.skips.num_skipped == 0
    assert json.loads(json.dumps(trainer.run.guard.skips.state_dict()))["num_used"] == 34


def test_the_loss_of_an_epoch_without_a_finite_one_is_null(shards, capfd):
    folder = shards("." * 4)
    trainer = open_trainer(
        settings(folder, folder / "run", *WORDS),
        Accelerator(cpu=True, step_scheduler_with_optimizer=False),
        hooks=spoiled_steps(range(1)),
    )
    assert trainer.train() == 0
    trainer.close()
    first, second = (line["train_loss"] for line in lines(folder / "run", "metrics.jsonl"))
    assert first is None
    assert second > 0
    assert "loss –" in capfd.readouterr().err


def test_one_line_stands_in_the_log_for_an_epoch_that_was_stopped_and_gone_on_with(shards):
    folder = shards("." * 8)
    assert trained(folder, "--max-steps=1") == 0
    assert [line["step"] for line in lines(folder / "run", "metrics.jsonl")] == [1]
    assert trained(folder, "--resume", "--max-steps=4") == 0
    assert [(line["epoch"], line["step"]) for line in lines(folder / "run", "metrics.jsonl")] == [
        (0, 2),
        (1, 4),
    ]


@pytest.mark.parametrize(("scores", "steps"), [((0.9, 0.1, 0.2), [1, 2, 4]), ((0.1, 0.9, 0.2), [2, 4])])
def test_the_line_of_the_best_model_stays_where_its_epoch_was_gone_on_with(shards, monkeypatch, scores, steps):
    told, judged = iter(scores), validation.judged

    def judge(predictions, best_by=""):
        return replace(judged(predictions, best_by), judgement=Judgement("chosen here", next(told)))

    monkeypatch.setattr(validation, "judged", judge)
    folder = shards("." * 8, "..")
    val = f"--val-shards={folder}/shards/val-*.tar"
    assert trained(folder, val, "--max-steps=1") == 0
    assert trained(folder, val, "--resume", "--max-steps=4") == 0
    log = lines(folder / "run", "metrics.jsonl")
    assert [line["step"] for line in log] == steps
    best = json.loads((folder / "run/checkpoints/best/config.json").read_text())
    assert best["provenance"]["step"] == RunLog.from_json(log).best.epoch.step


def record_of(predicted: list[float], true: list[float]):
    found = predictions_of(*(np.array(values)[:, None] for values in (predicted, true)), LabelSet(("joy",)))
    return ScoreRecord.of(scores_of(found, num_resamples=0))


def test_best_is_chosen_by_mse_where_pearson_is_undefined():
    best: dict[str, float] = {}
    assert improved(record_of([0.1], [0.5]), best) == ["best", "best_mse"]
    assert improved(record_of([0.0], [0.5]), best) == []
    assert improved(record_of([0.4], [0.5]), best) == ["best", "best_mse"]
    assert improved(record_of([0.9, 0.1], [0.5, 0.4]), best) == ["best"]
    assert improved(record_of([0.4], [0.4]), best) == ["best_mse"]
