"""Training from shards: it learns, it leaves alone what is frozen, and it goes on bitwise where it stopped."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from support.training_runs import JOINT, losses, run, same, settings, weights

from viper_e2e.commands.cli import train
from viper_e2e.encoders.audio import AudioEncoder
from viper_e2e.encoders.visual import VisualEncoder
from viper_e2e.errors import ViperError
from viper_e2e.faces import FaceCropper
from viper_e2e.model.checkpoint import CheckpointError
from viper_e2e.model.viper import ViPER
from viper_e2e.packing import pack
from viper_e2e.training.trainer import open_trainer


@pytest.mark.slow
def test_the_loss_falls_and_the_run_folder_holds_everything(corpus, tmp_path):
    words = (f"--val-shards={corpus}/shards/val-*.tar", "--epochs=12", "--reuse-memory=1GB")
    folder = run(corpus, tmp_path / "run", *JOINT, *words)
    assert losses(folder)[-1] < 0.7 * losses(folder)[0]
    made = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {
        "config.yaml",
        "data.json",
        "versions.json",
        "metrics.jsonl",
        "checkpoints/best/model.safetensors",
        "checkpoints/best/config.json",
        "checkpoints/last/training.pt",
    } <= made
    assert not any("training.pt" in name for name in made if name.startswith("checkpoints/best"))
    val = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["val"]
    assert set(val["pearson"]) == {"joy", "fear"}
    assert val["num_clips"] == 4


@pytest.mark.slow
def test_a_clip_that_is_cached_passes_each_frozen_encoder_and_the_detector_once_in_a_run(
    corpus, tmp_path, monkeypatch
):
    passes = Counter()
    for stage in (FaceCropper, VisualEncoder, AudioEncoder):

        def counted(self, *args, forward=stage.forward):
            passes[type(self).__name__] += 1
            return forward(self, *args)

        monkeypatch.setattr(stage, "forward", counted)
    run(corpus, tmp_path / "run", "--epochs=3", "--batch-size=4", "--reuse-memory=1GB")
    # Eight clips; the one that is tried beforehand, for the memory it takes, is among them.
    assert passes == {"FaceCropper": 8, "VisualEncoder": 8, "AudioEncoder": 8}


@pytest.mark.slow
def test_a_run_is_not_overwritten(corpus, tmp_path):
    run(corpus, tmp_path / "run", "--max-steps=1")
    with pytest.raises(ViperError, match="--resume"):
        train(settings(corpus, tmp_path / "run"))


@pytest.mark.slow
def test_a_partly_unfrozen_backbone_changes_in_exactly_its_last_blocks(corpus, tmp_path):
    words = ("--unfreeze=visual=1", "--epochs=1", "--batch-size=4")
    torch.manual_seed(0)
    before = ViPER(settings(corpus, tmp_path / "x", *words).model).state_dict()
    after = weights(run(corpus, tmp_path / "run", *words))
    changed = {
        name
        for name in after
        if name in before and name.startswith("encoders") and not torch.equal(before[name], after[name])
    }
    assert changed
    assert all(".layer.1." in name or ".layers.1." in name for name in changed), changed
    assert all(name.startswith("encoders.visual") for name in changed)


def test_frozen_backbones_have_no_optimizer_state(corpus, tmp_path):
    trainer = open_trainer(settings(corpus, tmp_path / "run", "--freeze=all"), Accelerator(cpu=True))
    trained = {id(p) for group in trainer.learner.optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in trainer.run.module.fusion.parameters()}
    trainer.run.folder.release()


@pytest.mark.slow
@pytest.mark.parametrize(
    "trained",
    # All frozen, it is among what `test_resume::test_a_stopped_run_goes_on_bitwise` compares.
    [pytest.param(("--freeze=all",), id="frozen", marks=pytest.mark.campaign), pytest.param((), id="joint")],
)
def test_reuse_changes_nothing_but_the_work(corpus, tmp_path, trained):
    words = (*JOINT, "--epochs=2", f"--val-shards={corpus}/shards/val-*.tar", *trained)
    plain = run(corpus, tmp_path / "plain", *words)
    cached = run(corpus, tmp_path / "cached", *words, "--reuse-memory=1GB")
    assert same(weights(plain), weights(cached))
    assert (plain / "metrics.jsonl").read_text() == (cached / "metrics.jsonl").read_text()


@pytest.mark.slow
def test_a_cached_clip_is_not_decoded_again(corpus, tmp_path, monkeypatch):
    from viper_e2e.decoding import ClipDecoder

    decoded = []
    original = ClipDecoder.__call__

    def counting(self, *args, **kwargs):
        decoded.append(kwargs["name"])
        return original(self, *args, **kwargs)

    monkeypatch.setattr(ClipDecoder, "__call__", counting)
    val = f"--val-shards={corpus}/shards/val-*.tar"
    run(corpus, tmp_path / "run", "--freeze=all", "--epochs=3", "--reuse-memory=1GB", val)
    assert len(decoded) == len(set(decoded)) == 12


@pytest.mark.campaign  # `test_resume::test_a_stopped_run_goes_on_bitwise` compares two workers with none, too
def test_the_number_of_workers_changes_nothing(corpus, tmp_path):
    alone = run(corpus, tmp_path / "alone", *JOINT, "--epochs=2")
    helped = run(corpus, tmp_path / "helped", *JOINT, "--epochs=2", "--num-workers=2")
    assert same(weights(alone), weights(helped))


@pytest.mark.slow
def test_a_damaged_checkpoint_is_named_and_never_trained_over_from_scratch(corpus, tmp_path):
    folder = run(corpus, tmp_path / "run", "--max-steps=1")
    path = folder / "checkpoints" / "last" / "training.pt"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="no undamaged checkpoint"):
        train(settings(corpus, folder, "--resume", "--max-steps=2"))


@pytest.mark.slow
def test_a_training_state_that_is_code_is_refused_unrun(corpus, tmp_path):
    import pickle

    from viper_e2e.model.checkpoint import write_folder

    folder = run(corpus, tmp_path / "run", "--max-steps=1")
    canary = tmp_path / "canary"

    class Bomb:
        def __reduce__(self):
            return Path.touch, (canary,)

    last = folder / "checkpoints" / "last"
    files = {p.relative_to(last): p.read_bytes() for p in last.rglob("*") if p.is_file()}

    def fill(new: Path) -> None:
        for name, content in files.items():
            if name.name != "manifest.json":
                (new / name).parent.mkdir(parents=True, exist_ok=True)
                (new / name).write_bytes(content)
        with (new / "training.pt").open("wb") as file:
            pickle.dump({"state": Bomb()}, file)

    write_folder(last, fill)
    with pytest.raises(CheckpointError, match=r"training\.pt"):
        train(settings(corpus, folder, "--resume", "--max-steps=2"))
    assert not canary.exists()


@pytest.mark.slow
def test_unreadable_clips_keep_their_place_and_are_written_down_once(corpus, tmp_path):
    (tmp_path / "videos").mkdir()
    for path in (corpus / "videos").iterdir():
        (tmp_path / "videos" / path.name).write_bytes(path.read_bytes())
    broken = tmp_path / "videos" / "3.mp4"
    broken.write_bytes(broken.read_bytes()[:400] + bytes(len(broken.read_bytes()) - 400))
    (tmp_path / "labels.csv").write_text((corpus / "labels.csv").read_text())
    pack(tmp_path / "videos", tmp_path / "labels.csv", tmp_path / "shards")
    folder = run(tmp_path, tmp_path / "run", "--epochs=2")
    skipped = [json.loads(line) for line in (folder / "skipped.jsonl").read_text().splitlines()]
    assert [record["key"] for record in skipped] == ["3"]
    assert (folder / "checkpoints" / "last").is_dir()
    with pytest.raises(ViperError, match="--on-error raise"):
        train(settings(tmp_path, tmp_path / "strict", "--on-error=raise"))


@pytest.mark.slow
def test_unlabelled_shards_are_refused(corpus, tmp_path):
    text = (corpus / "labels.csv").read_text().splitlines()
    header, *rows = text
    blank = [",".join([*row.split(",")[:2], "", "", row.split(",")[4]]) for row in rows]
    (tmp_path / "labels.csv").write_text("\n".join([header, *blank]) + "\n")
    pack(corpus / "videos", tmp_path / "labels.csv", tmp_path / "shards")
    with pytest.raises(ViperError, match="unlabelled"):
        train(settings(tmp_path, tmp_path / "run"))


@pytest.mark.slow
def test_a_full_disk_ends_no_training_before_its_end(corpus, tmp_path, monkeypatch, capsys):
    from viper_e2e.training.run_folder import RunFolder

    folder = run(corpus, tmp_path / "run", *JOINT, "--max-steps=2")
    saved = weights(folder)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        (folder / "metrics.jsonl").unlink()
        patch.setattr(RunFolder, "read_log", lambda self, file: [])
        patch.setattr(RunFolder, "rewind", lambda self, file, keep: None)
        (folder / "metrics.jsonl").symlink_to("/dev/full")
        (folder / "plots" / "curves.png").unlink()
        (folder / "plots").rmdir()
        (folder / "plots").write_text("in the way")
        with pytest.raises(ViperError, match="what is saved ends at step 2 of 3"):
            run(corpus, folder, *JOINT, "--max-steps=3", "--resume")
    told = capsys.readouterr().err
    assert "last: not saved" in told.replace("\n", "")
    assert "metrics.jsonl: not written" in told
    assert "plots: not written" in told
    (folder / "metrics.jsonl").unlink()
    (folder / "plots").unlink()
    assert same(weights(folder), saved)  # the last good checkpoint, from which it can go on
    run(corpus, folder, *JOINT, "--max-steps=3", "--resume")
    assert not same(weights(folder), saved)


@pytest.mark.slow
def test_a_loss_that_is_no_number_never_reaches_the_weights(corpus, tmp_path, monkeypatch):
    trainer = open_trainer(settings(corpus, tmp_path / "run", *JOINT), Accelerator(cpu=True))
    before = {name: p.detach().clone() for name, p in trainer.run.module.named_parameters()}
    original = trainer.run.module.fusion.forward
    monkeypatch.setattr(trainer.run.module.fusion, "forward", lambda *a: original(*a) * float("nan"))
    with pytest.raises(ViperError, match=r"nonfinite\.jsonl"):
        trainer.train()
    trainer.run.folder.release()
    assert all(torch.equal(before[name], p) for name, p in trainer.run.module.named_parameters())
    record = json.loads((tmp_path / "run" / "nonfinite.jsonl").read_text().splitlines()[0])
    assert record["keys"]
