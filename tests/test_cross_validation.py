"""`viper cv`: each clip predicted once by who never saw its subject, folds as they are by hand, one pass."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from support.counted_work import counted_work, interrupt_steps
from support.media import make_clip
from support.training_runs import diverging, lines, same, settings, weights

from viper_e2e.commands.cli import main
from viper_e2e.errors import ViperError
from viper_e2e.experiments.folding import Folding
from viper_e2e.experiments.many_trainings import ManyTrainings
from viper_e2e.packing import pack
from viper_e2e.splits.folds import Folds, read_folds
from viper_e2e.tables import write_labels
from viper_e2e.training.data import open_splits

SLOW, LONG = pytest.mark.slow, pytest.mark.campaign
RESULTS = ("predictions.csv", "metrics.json", "folds.json")


@pytest.fixture(scope="module")
def words(corpus, vit):
    """Of the twelve clips of twelve subjects in the corpus's shards of both splits."""
    shards = f"--train-shards={corpus}/shards/*.tar"
    return [
        "--preset=micro",
        shards,
        "--num-workers=0",
        "--epochs=2",
        "--modalities=visual",
        f"--backbone=visual={vit}",
    ]


@pytest.fixture(scope="module")
def work():
    """How often each clip is decoded and encoded."""
    with counted_work() as counts:
        yield counts


@pytest.fixture(scope="module")
def whole(words, work, tmp_path_factory):
    """A finished cross-validation of three folds."""
    folder = tmp_path_factory.mktemp("cv") / "run"
    assert main(["cv", *words, "--folds=3", f"--run-dir={folder}"]) == 0
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def results(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in RESULTS}


def subjects(shards) -> set[str | None]:
    return {shards.entry(i).subject for i in range(len(shards))}


@SLOW
def test_folds_cost_one_pass_of_decoding_and_encoding(whole, work):
    for counts in work.values():
        assert len(counts) == 12
        assert set(counts.values()) == {1}


@SLOW
def test_every_clip_is_predicted_once_by_a_model_that_never_saw_its_subject(whole, corpus):
    pooled = rows(whole / "predictions.csv")
    assert sorted(row["key"] for row in pooled) == sorted(map(str, range(12)))
    folds = read_folds(whole / "folds.json")
    for fold in folds.names:
        held_out = rows(whole / f"fold-{fold}/held_out.csv")
        assert {row["key"] for row in held_out} == {k for k, name in folds.of_clips.items() if name == fold}
        run_settings = settings(
            corpus,
            whole / f"fold-{fold}",
            f"--train-shards={corpus}/shards/*.tar",
            f"--folds={whole}/folds.json",
            f"--fold={fold}",
        )
        train, val = open_splits(run_settings.train)
        assert not subjects(train) & subjects(val)
        assert subjects(val) == {row["subject"] for row in held_out}
        trained = json.loads((whole / f"fold-{fold}/data.json").read_text())["train"]
        assert (trained["clips"], trained["sha256"]) == (len(train), train.content_id())
        by_key = {row["key"]: row for row in pooled}
        for row in held_out:
            for name in ("predicted_joy", "predicted_fear"):
                assert float(by_key[row["key"]][name]) == pytest.approx(float(row[name]), rel=1e-5)


@SLOW
def test_a_fold_is_bitwise_what_it_is_by_hand(whole, words, tmp_path):
    fold = tmp_path / "by-hand"
    hand = ["--folds", str(whole / "folds.json"), "--fold", "2"]
    assert main(["train", *words, *hand, f"--run-dir={fold}"]) == 0
    assert same(weights(fold), weights(whole / "fold-2"))
    assert lines(fold, "metrics.jsonl") == lines(whole / "fold-2", "metrics.jsonl")
    shards = next(word for word in words if word.startswith("--train-shards")).replace(
        "--train-shards", "--shards"
    )
    how = [shards, *hand, "--batch-size=16", "--num-workers=0", f"--out={tmp_path / 'scores'}"]
    assert main(["eval", "--checkpoint", str(fold / "checkpoints/last"), *how]) == 0
    by_hand = {row["key"]: row for row in rows(tmp_path / "scores/predictions.csv")}
    assert by_hand == {row["key"]: row for row in rows(whole / "predictions.csv") if row["key"] in by_hand}


@SLOW
def test_scores_are_of_all_clips_and_of_each_fold(whole):
    metrics = json.loads((whole / "metrics.json").read_text())
    task = metrics["tasks"]["intensities"]
    assert task["num_clips"] == 12
    assert [one["num_clips"] for one in task["by_fold"].values()] == [4, 4, 4]
    each = [one["mse"] for one in task["by_fold"].values()]
    assert task["over_folds"]["mse"]["mean"] == pytest.approx(sum(each) / 3, rel=1e-4)
    assert task["mse"] == pytest.approx(sum(each) / 3, rel=1e-4)  # folds of the same size
    assert metrics["folds"] | {"by": "Subject", "num_folds": 3, "names": ["1", "2", "3"]} == metrics["folds"]
    assert "after its last epoch; no epoch was chosen" in metrics["predicted_by"]
    assert "intervals over subjects" in metrics["predicted_by"]
    assert (whole / "folds.png").stat().st_size > 1000


@SLOW
def test_a_cross_validation_is_compared_and_no_model(whole, capsys):
    assert main(["compare", str(whole), str(whole), "--names", "one,other"]) == 0
    assert "12 clips; 95 % intervals and p" in " ".join(capsys.readouterr().out.split())
    assert main(["eval", "--checkpoint", str(whole), "--shards", "s.tar", "--out", str(whole / "x")]) == 1
    assert "no such shard" in capsys.readouterr().err
    assert main(["export", "--checkpoint", str(whole), "--out", str(whole / "x")]) == 1
    assert "name the model of one fold, such as" in capsys.readouterr().err


@pytest.mark.campaign
def test_stopped_anywhere_it_goes_on_to_the_same_tables(whole, words, tmp_path, monkeypatch, work):
    folder, calls = tmp_path / "run", Counter()
    predict = ManyTrainings.predict

    def stopping_predict(self, *args):
        calls["predict"] += 1
        if calls["predict"] == 2:  # the fold is trained, and not yet predicted
            raise KeyboardInterrupt
        return predict(self, *args)

    interrupt_steps(monkeypatch, {3})  # in the middle of the second fold
    monkeypatch.setattr(ManyTrainings, "predict", stopping_predict)
    first = ["cv", *words, "--folds=3", f"--run-dir={folder}"]
    assert main(first) == 130
    assert main(first) == 1  # already holds a run
    assert main([*first, "--resume"]) == 130
    assert main(["cv", "--resume", f"--run-dir={folder}"]) == 0
    assert results(folder) == results(whole)
    assert calls["predict"] == 4  # what the first fold held out was predicted once
    work["encoded"].clear()
    assert main(["cv", "--resume", f"--run-dir={folder}"]) == 0
    assert not work["encoded"]
    assert results(folder) == results(whole)


@LONG
@pytest.mark.survival
def test_killed_at_any_moment_it_goes_on_to_the_same_tables(whole, words, fork_server, tmp_path):
    rng, kills, ended = np.random.default_rng(5), 0, 0
    while kills < 30 or not ended:
        folder = tmp_path / f"run-{ended}"
        own = ["cv", *words, "--folds=3", f"--run-dir={folder}", "--save-every-steps=1"]
        # Also before there is anything to go on from.
        child = fork_server.fork("command", [*own, *["--resume"] * (folder / "folds.json").exists()])
        seconds = float(rng.uniform(0.1, 2.0)) if kills < 30 else 300.0
        # Killed, and then without a code, where it takes longer.
        code = fork_server.ask(op="wait", pid=child.pid, seconds=seconds)["code"]
        assert code in (0, None), child.said
        kills += code is None
        if code == 0:
            ended += 1
            for name in RESULTS:
                assert (folder / name).read_bytes() == (whole / name).read_bytes()


@SLOW
def test_a_fold_that_diverges_is_named_and_trained_again_alone(whole, words, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        diverging(patch, "fold-2")
        assert main(["cv", *words, "--folds=3", f"--run-dir={folder}"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "1 of 3 trainings failed (fold 2: step 0: 3 steps in a row" in said
    assert f"viper cv --resume --run-dir {folder} trains" in said
    assert (folder / "fold-3/held_out.csv").exists()
    assert not (folder / "predictions.csv").exists()
    stepping = diverging(monkeypatch)
    assert main(["cv", "--resume", f"--run-dir={folder}"]) == 0
    assert set(stepping) == {"fold-2"}
    assert results(folder) == results(whole)
    diverging(monkeypatch, "fold-1", "fold-2", "fold-3")
    assert main(["cv", *words, "--folds=3", f"--run-dir={tmp_path / 'none'}"]) == 1
    assert "all 3 trainings failed (fold 1:" in capsys.readouterr().err.splitlines()[-1]


def test_a_fold_without_labelled_clips_is_named(tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    of_fold = {"1": (0.1, 0.9), "2": (None, None), "3": (0.4, 0.6)}
    table = []
    for fold, values in of_fold.items():
        for number, joy in enumerate(values):
            key = f"{fold}{number}"
            make_clip(tmp_path / "videos" / f"{key}.mp4")
            table.append({"File_ID": f"[{key}]", "Split": "train", "Joy": joy, "Subject": key, "Fold": fold})
    for folds in ("12", "123"):
        rows = [row for row in table if row["Fold"] in folds]
        write_labels(tmp_path / "labels.csv", rows)
        shards = tmp_path / f"shards{folds}"
        assert pack(tmp_path / "videos", tmp_path / "labels.csv", shards).exit_code in (0, 2)
        made = settings(tmp_path, tmp_path / "run", f"--train-shards={shards}/train-*.tar")
        if folds == "12":
            with pytest.raises(ViperError, match=r"two folds with labelled .* there are: 1; .* in fold 2"):
                Folding(made, source="Fold", by="", stratify="")
        else:
            found = Folding(made, source="Fold", by="", stratify="")
            assert found.names == ("1", "3")
            assert any("no clip with a label is in fold 2" in note for note in found.folds.notes)


@SLOW
def test_an_inner_split_chooses_the_epoch_that_predicts(words, tmp_path):
    folder = tmp_path / "run"
    assert main(["cv", *words, "--folds=2", "--inner-val=0.2", f"--run-dir={folder}"]) == 0
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["checkpoint"] == "best"
    assert "at its best epoch on clips of its own training folds" in metrics["predicted_by"]
    data = json.loads((folder / "fold-1/data.json").read_text())
    assert (data["train"]["clips"], data["val"]["clips"]) == (5, 1)
    assert len(rows(folder / "predictions.csv")) == 12


@SLOW
def test_what_cannot_be_cross_validated_is_refused_before_anything_is_written(corpus, words, tmp_path, capsys):
    leak = tmp_path / "leak.json"
    Folds({str(i): str(i % 2) for i in range(12)}, by="split").write(leak)
    for more, message in (
        ((), "--folds Fold: no clip has it"),
        (("--folds=13",), "--folds 13: only 12 different values of Subject to make folds of; --by clip"),
        (("--folds=1",), "--folds 1: at least 2"),
        (("--folds=2", "--by=Session"), "--by Session: no clip has it"),
        (
            (f"--folds={leak}",),
            "split in more than one fold, so a model would be tested on what it was trained",
        ),
        (("--folds=shard", "--stratify=mood"), "--stratify mood: has no effect on folds of shard"),
        (("--stratify=mood",), "--stratify mood: has no effect on folds of Fold"),
        (("--folds=2", "--fold=1"), "--fold 1: all folds are trained"),
        (("--folds=2", "--seeds=2", "--ensemble=2"), "leave out --seeds"),
        (("--folds=2", "--ensemble=2", "--unfreeze=visual"), "--ensemble joins heads on the same frozen"),
        (("--folds=2", "--val-shards=x.tar"), "--val-shards: folds are validated on one another"),
    ):
        assert main(["cv", *words, *more, f"--run-dir={tmp_path / 'run'}"]) == 1
        assert message in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


@SLOW
def test_what_its_first_training_refuses_may_be_begun_anew_or_goes_on_as_it_was(words, tmp_path, capsys):
    folder, wrong = tmp_path / "run", ("--folds=2", "--seeds=2", "--best-by=nonsense")
    assert main(["cv", *words, *wrong, f"--run-dir={folder}"]) == 1
    assert "--best-by nonsense: not measured" in capsys.readouterr().err
    assert not list(folder.rglob("config.yaml"))
    assert main(["cv", *words, "--folds=3", f"--run-dir={folder}"]) == 0
    assert main(["cv", "--resume", "--batch-size=3", f"--run-dir={folder}"]) == 1
    assert "only resume with the settings it began with" in capsys.readouterr().err
    for other in ("--by=clip", "--stratify=none"):
        assert main(["cv", "--resume", other, f"--run-dir={folder}"]) == 1
        assert "makes other folds than" in capsys.readouterr().err
    assert main(["cv", "--resume", "--by=subject", f"--run-dir={folder}"]) == 0
