"""`viper calibrate`: what it fits stands in the checkpoint, and every command applies it."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
import torch
import yaml
from support.media import make_clip, tone
from support.training_runs import same, settings, weights

import viper_e2e
from viper_e2e.commands.cli import main
from viper_e2e.config import with_settings
from viper_e2e.config.presets import micro
from viper_e2e.labels import LabelSet
from viper_e2e.model.checkpoint import verify
from viper_e2e.model.viper import ViPER
from viper_e2e.scoring import read_scored
from viper_e2e.shards import ShardSet
from viper_e2e.training.data_record import data_record, provenance_of, write_data
from viper_e2e.training.resuming import with_absolute_paths

pytestmark = pytest.mark.slow

NUM_CLIPS = 30
TASKS = """
mood: {kind: class, columns: [Mood]}
valence: {kind: number, columns: [Valence], range: [-1, 1]}
units: {kind: labels, columns: [AU1, AU2]}
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Clips of sound alone to look at, in shards of four to train on and the others to calibrate with."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "videos").mkdir()
    table = ["File_ID,Split,Subject,Mood,Valence,AU1,AU2"]
    rng = np.random.default_rng(0)
    frames = [np.full((64, 64, 3), 90, np.uint8)] * 2
    for i in range(NUM_CLIPS):
        sound = tone(0.5, 16_000, 1, hertz=200 + 60 * i)
        make_clip(folder / "videos" / f"{i}.mp4", frames=frames, fps=4, sound=sound)
        mood = ("calm", "glad", "upset")[rng.integers(3)]
        split = "train" if i < 4 else "val"
        table.append(
            f"{i},{split},s{i // 2},{mood},{rng.uniform(-1, 1):.3f},{rng.integers(2)},{rng.integers(2)}"
        )
    (folder / "labels.csv").write_text("\n".join(table) + "\n")
    (folder / "tasks.yaml").write_text(TASKS)
    words = [f"--videos={folder}/videos", f"--labels={folder}/labels.csv", f"--tasks={folder}/tasks.yaml"]
    assert main(["pack", *words, f"--out={folder}/shards"]) == 0
    return folder


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """The folder of a run as `viper train` leaves it, with a model that has learned nothing."""
    run = tmp_path_factory.mktemp("trained") / "run"
    train = ShardSet(f"{corpus}/shards/train-*.tar")
    config = with_settings(micro(), {"modalities": ("audio",)})
    torch.manual_seed(0)
    labels = train.known_labels
    model = ViPER(config, LabelSet(labels.columns, labels.minimum, labels.maximum, tasks=labels.tasks))
    model.provenance = provenance_of(train, None)
    model.save_pretrained(run / "checkpoints" / "best")
    of_run = settings(corpus, run)
    (run / "config.yaml").write_text(yaml.safe_dump(with_absolute_paths(of_run)))
    write_data(run, data_record(of_run, train, None))
    return run


@pytest.fixture(scope="module")
def calibrated(trained, corpus, tmp_path_factory):
    run = tmp_path_factory.mktemp("calibrated") / "run"
    shutil.copytree(trained, run)
    assert main(["calibrate", *words(run, corpus, "val")]) == 0
    return run


def words(run, corpus, split, *more: str) -> list[str]:
    return [f"--checkpoint={run}", f"--shards={corpus}/shards/{split}-*.tar", "--num-workers=0", *more]


def rows(path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_the_weights_stay_and_the_folder_is_whole(trained, calibrated):
    folder = calibrated / "checkpoints" / "best"
    verify(folder)
    assert same(weights(calibrated, "best"), weights(trained, "best"))
    assert not list(folder.parent.glob("best.*"))
    model = viper_e2e.load(folder)
    assert model.calibration is not None
    assert set(model.calibration.tasks) == {"mood", "valence", "units"}
    assert model.calibration.clips["clips"] == 26
    assert model.calibration.clips["subjects"] == 13
    assert {"calibration.json", "calibration.png"} <= {
        file.name for file in (calibrated / "calibration").iterdir()
    }
    told = json.loads((calibrated / "calibration" / "calibration.json").read_text())["held_out"]
    assert set(told["mood"]["before"]) == {"ece", "brier"}
    low, high = told["valence"]["after"]["rmse"]["interval_95"]
    assert low <= told["valence"]["after"]["rmse"]["value"] <= high


def test_every_command_applies_it_says_so_and_leaves_it_out_when_told(
    trained, calibrated, corpus, tmp_path, capsys
):
    """Without it the numbers are those of before, to the byte; exported, a model keeps it."""
    found = {}
    for name, run, more in (
        ("plain", trained, []),
        ("applied", calibrated, []),
        ("left out", calibrated, ["--uncalibrated"]),
    ):
        out = tmp_path / name
        assert main(["eval", *words(run, corpus, "val", f"--out={out}", *more)]) == 0
        found[name] = (out / "predictions.csv").read_bytes()
        said = capsys.readouterr()
        assert ("calibrated on 26 clips" in said.out + said.err) == (name == "applied")
        assert ("calibrated on these clips" in said.out + said.err) == (name == "applied")
    assert found["left out"] == found["plain"] != found["applied"]
    # Intervals and sets come after all columns that are there without, and compare reads the file as before.
    applied, plain = (rows(tmp_path / name / "predictions.csv") for name in ("applied", "plain"))
    added = [name for name in applied[0] if name not in plain[0]]
    assert list(applied[0]) == [*plain[0], *added]
    assert {"valence_lower", "valence_upper", "mood_set", "units_au1_set"} <= set(added)
    for row in applied:
        low, value, high = (float(row[n]) for n in ("valence_lower", "predicted_valence", "valence_upper"))
        assert low <= value <= high
        assert row["mood_set"]
    assert len(read_scored(str(tmp_path / "applied"))) == len(applied)
    record = json.loads((tmp_path / "applied" / "metrics.json").read_text())
    assert record["calibration"]["coverage"] == 0.9
    assert 0 <= record["calibration"]["found"]["valence"]["covered"] <= 1
    reliability = record["tasks"]["mood"]["reliability"]
    assert reliability["intervals_95"]["ece"][0] <= reliability["ece"]
    drawn = {file.name for file in (tmp_path / "applied").iterdir()}
    assert {"reliability_mood.png", "confidence_mood.png", "reliability_units.png"} <= drawn
    exported = tmp_path / "exported"
    assert main(["export", f"--checkpoint={calibrated}", f"--out={exported}"]) == 0
    assert viper_e2e.load(exported).calibration == viper_e2e.load(calibrated / "checkpoints/best").calibration
    assert "calibrated on 26 clips" in (exported / "README.md").read_text()
    assert main(["export", f"--checkpoint={calibrated}", f"--out={tmp_path / 'bare'}", "--uncalibrated"]) == 0
    assert viper_e2e.load(tmp_path / "bare").calibration is None


def test_records_have_intervals_and_sets_in_every_format(calibrated, corpus, tmp_path):
    clips = [str(corpus / "videos" / f"{i}.mp4") for i in (4, 5)]
    (tmp_path / "broken.mp4").write_bytes(b"no clip")
    for ending in ("csv", "json", "parquet"):
        output = f"--output={tmp_path / 'scores'}.{ending}"
        code = main(["infer", *clips, str(tmp_path / "broken.mp4"), f"--checkpoint={calibrated}", output])
        assert code == 2
    from pyarrow import parquet

    records = json.loads((tmp_path / "scores.json").read_text())
    table = rows(tmp_path / "scores.csv")
    columns = parquet.read_table(tmp_path / "scores.parquet").to_pylist()
    for record, row, column in zip(records[:2], table, columns, strict=False):
        low, high = record["intervals"]["valence"]
        assert -1 <= low <= record["intensities"]["valence"] <= high <= 1
        assert (float(row["valence_lower"]), float(row["valence_upper"])) == (low, high)
        assert (column["valence_lower"], column["valence_upper"]) == (low, high)
        assert record["classes"]["mood"] in record["sets"]["mood"]
        assert row["mood_set"] == column["mood_set"] == "|".join(record["sets"]["mood"])
        assert set(row["units_au1_set"]) <= {"0", "1", "|"}
    assert table[2]["valid"] == "0"
    assert table[2]["valence_lower"] == table[2]["mood_set"] == ""
    windows = ["--window-seconds=0.3", f"--output={tmp_path / 'windows.csv'}"]
    assert main(["infer", clips[0], f"--checkpoint={calibrated}", *windows]) == 0
    assert "valence_lower" not in rows(tmp_path / "windows.csv")[0]
    record = viper_e2e.load(calibrated / "checkpoints/best").predict(clips[0])
    assert record["intervals"]["valence"] == pytest.approx(records[0]["intervals"]["valence"], abs=1e-5)


def test_clips_of_training_are_refused_by_content(trained, corpus, tmp_path, capsys):
    """The same shards; some of them under other names; some of their clips in other shards."""
    assert main(["calibrate", *words(trained, corpus, "train")]) == 1
    assert "the clips that the model was trained on" in capsys.readouterr().err
    table = (corpus / "labels.csv").read_text().splitlines()
    mixed = [table[0], *(line.replace(",train,", ",val,") for line in table[3:])]
    (tmp_path / "labels.csv").write_text("\n".join(mixed) + "\n")
    made = ["pack", f"--videos={corpus}/videos", f"--labels={tmp_path}/labels.csv", f"--out={tmp_path}/shards"]
    assert main([*made, f"--tasks={corpus}/tasks.yaml"]) == 0
    capsys.readouterr()
    assert main(["calibrate", *words(trained, tmp_path, "val")]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "2 clips were among the training clips of the run (" in said
    assert not (trained / "checkpoints/best/calibration.json").exists()


def test_what_could_not_be_compared_is_said_and_a_copy_is_written_elsewhere(trained, corpus, tmp_path, capsys):
    alone = tmp_path / "alone"
    shutil.copytree(trained / "checkpoints" / "best", alone)
    copy = tmp_path / "copy"
    assert main(["calibrate", *words(alone, corpus, "val", f"--to={copy}", "--numbers=isotonic")]) == 0
    assert "its run folder is not here" in (said := capsys.readouterr()).out + said.err
    assert "valence has 26 labelled clips of at least 59" in said.out + said.err
    assert set(viper_e2e.load(copy).calibration.tasks) == {"mood", "units"}
    assert viper_e2e.load(alone).calibration is None
    assert main(["calibrate", *words(alone, corpus, "val", f"--to={copy}")]) == 1
    assert "already exists" in capsys.readouterr().err
