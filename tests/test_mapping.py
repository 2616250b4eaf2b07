"""Shards of another corpus: what has a counterpart is measured, what has none is left out aloud."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from support.media import make_clip, tone

from viper_e2e.commands.cli import main
from viper_e2e.config import with_settings
from viper_e2e.config.presets import micro
from viper_e2e.errors import ViperError
from viper_e2e.labels import LabelSet
from viper_e2e.model.viper import ViPER
from viper_e2e.scoring.mapping import LabelMap
from viper_e2e.shards import ShardSet, ShardWriter
from viper_e2e.tasks import Task

MODEL = LabelSet(
    ("emotion anger", "emotion joy", "emotion sadness", "valence", "units AU1", "units AU4"),
    -1.0,
    1.0,
    tasks=(Task("emotion", "class", 3), Task("valence", "number", 1, -1.0, 1.0), Task("units", "labels", 2)),
)
CORPUS = LabelSet(
    ("Mood Happy", "Mood Sad", "Mood Bored", "Valence", "units AU4", "units AU12", "arousal"),
    0.0,
    9.0,
    tasks=(
        Task("Mood", "class", 3),
        Task("Valence", "number", 1, 1.0, 9.0),
        Task("units", "labels", 2),
        Task("arousal", "number", 1, 1.0, 9.0),
    ),
)
WORDS = ["Mood=emotion,happy=joy", "Sad=emotion.sadness"]
nan = float("nan")


def row(*mood: float, valence: float = 5.0) -> tuple[float, ...]:
    return (*map(float, mood), valence, 1.0, 0.0, 3.0)


def test_clips_that_lose_their_label_are_counted_where_there_are_any(tmp_path):
    told = []
    for split, moods in (("all", ((1, 0, 0), (0, 1, 0), (0, 0, 1))), ("known", ((1, 0, 0), (0, 1, 0)))):
        with ShardWriter(tmp_path, split, CORPUS, shard_size=10**9) as writer:
            for n, mood in enumerate(moods):
                writer.add(f"{n}", {"mp4": b"film"}, file_id=f"{n}", intensities=row(*mood))
        shards = ShardSet(f"{tmp_path}/{split}-000000.tar")
        told.append(LabelMap.of(CORPUS, MODEL, WORDS).lost(shards))
    assert told == [["Mood Bored: 1 clip without a label of emotion"], []]


def test_labels_go_where_the_names_say_and_all_else_is_told():
    made = LabelMap.of(CORPUS, MODEL, WORDS)
    assert made.row(row(1, 0, 0)) == pytest.approx((0, 1, 0, 5.0, nan, 1.0), nan_ok=True)
    assert made.row(row(0, 1, 0)) == pytest.approx((0, 0, 1, 5.0, nan, 1.0), nan_ok=True)
    for lost in (row(0, 0, 1), row(0.5, 0, 0.5), row(nan, nan, nan)):
        assert np.isnan(made.row(lost)[:3]).all()
    assert made.notes == (
        "left out: classes of Mood that the model does not have: bored",
        "classes of emotion that the shards do not have (if predicted, they count as wrong): anger",
        "Valence: 1 to 9 in the shards, -1 to 1 in the model; taken as they are",
        "left out: columns of units that the model does not have: au12",
        "columns of units that the shards do not have (not measured): au1",
        "left out, as the model has no task of this name: arousal (number)",
    )


def test_several_classes_may_be_one_and_their_shares_are_added():
    made = LabelMap.of(CORPUS, MODEL, [*WORDS, "bored=sadness"])
    assert made.row(row(0.25, 0.25, 0.5))[:3] == pytest.approx((0, 0.25, 0.75))


def test_intensities_without_tasks_are_mapped_column_by_column():
    made = LabelMap.of(LabelSet(("Joy", "Fright")), LabelSet(("Fear", "Awe", "Joy")), ["fright=fear"])
    assert made.row((0.1, 0.9)) == pytest.approx((0.9, nan, 0.1), nan_ok=True)
    assert made.notes == ("columns of intensities that the shards do not have (not measured): awe",)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["happy"], "write THEIRS=OURS"),
        (["glad=joy"], "the shards have no glad; they have mood"),
        (["happy=joy"], "also say which task mood is"),
        (["Mood=feeling"], "the model has no task feeling; it has emotion"),
        (["Mood=emotion,happy=glee"], "emotion of the model has anger, joy, sadness"),
        (["Mood=emotion,happy=joy,happy=anger"], "mapped twice"),
        (["au12=au4"], "two columns of units map to one of the model"),
        (["arousal=valence"], "two tasks of the shards map to valence"),
    ],
)
def test_what_could_mean_several_things_or_nothing_is_refused(words, told):
    with pytest.raises(ViperError, match="--map") as refused:
        LabelMap.of(CORPUS, MODEL, words)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_name_of_two_things_has_to_be_said_in_full():
    columns = ("mood happy", "mood sad", "face happy", "face calm")
    labels = LabelSet(columns, tasks=(Task("mood", "class", 2), Task("face", "class", 2)))
    model = LabelSet(("mood joy", "mood sad"), tasks=(Task("mood", "class", 2),))
    with pytest.raises(ViperError, match=r"happy could be mood\.happy or face\.happy; write one of them"):
        LabelMap.of(labels, model, ["happy=joy"])
    assert LabelMap.of(labels, model, ["mood.happy=joy"]).row((1.0, 0.0, 0.0, 1.0)) == (1, 0)


def test_tasks_of_other_kinds_are_no_counterparts():
    labels = LabelSet(("valence low", "valence high"), tasks=(Task("valence", "class", 2),))
    with pytest.raises(ViperError, match="valence is class in the shards, valence is number in the model"):
        LabelMap.of(labels, MODEL, [])


@pytest.mark.slow
def test_a_corpus_with_other_names_is_measured_as_the_same_clips_with_the_models(tmp_path, capsys):
    """To the last digit, apart from the clips whose word the model does not have."""
    (tmp_path / "videos").mkdir()
    ours, theirs = [["File_ID,Split,emotion,valence"], ["File_ID,Split,Mood,Valence,arousal"]]
    frames = [np.full((64, 64, 3), 90, np.uint8)] * 2
    for i in range(9):
        make_clip(
            tmp_path / "videos" / f"{i}.mp4",
            frames=frames,
            fps=4,
            sound=tone(0.5, 16_000, 1, hertz=200 + 90 * i),
        )
        name, other = (("joy", "Happy"), ("sadness", "Sad"), ("", "Bored"))[i % 3]
        valence = f"{(i % 5) / 2 - 1}"
        ours.append(f"{i},val,{name},{valence}")
        theirs.append(f"{i},val,{other},{valence},{i}")
    for folder, table in (("ours", ours), ("theirs", theirs)):
        (tmp_path / f"{folder}.csv").write_text("\n".join(table) + "\n")
        mood = "emotion" if folder == "ours" else "Mood"
        tasks = f"--tasks={mood}=class,valence=number" + (",arousal=number" if folder == "theirs" else "")
        words = [
            f"--videos={tmp_path}/videos",
            f"--labels={tmp_path}/{folder}.csv",
            f"--out={tmp_path}/{folder}",
        ]
        assert main(["pack", *words, tasks]) == 0
    config = with_settings(micro(), {"modalities": ("audio",)})
    torch.manual_seed(0)
    tasks = (Task("emotion", "class", 2), Task("valence", "number", 1, -1.0, 1.0))
    labels = LabelSet(("emotion joy", "emotion sadness", "valence"), -1.0, 1.0, tasks=tasks)
    ViPER(config, labels).save_pretrained(tmp_path / "model")
    capsys.readouterr()
    found = {}
    for folder, more in (("ours", []), ("theirs", ["--map=mood=emotion,happy=joy", "--map=sad=sadness"])):
        words = [f"--checkpoint={tmp_path}/model", f"--shards={tmp_path}/{folder}/*.tar", "--num-workers=0"]
        assert main(["eval", *words, f"--out={tmp_path}/eval-{folder}", *more]) == 0
        found[folder] = json.loads((tmp_path / f"eval-{folder}" / "metrics.json").read_text())
    said = capsys.readouterr()
    told = said.out + said.err
    assert "--map: mood Bored: 3 clips without a label of emotion" in told
    assert "--map: left out, as the model has no task of this name: arousal (number)" in told
    assert found["ours"]["tasks"] == found["theirs"]["tasks"]
    assert found["theirs"]["tasks"]["emotion"]["num_clips"] == 6
    assert main(["eval", *words, f"--out={tmp_path}/refused"]) == 1
    assert "--map THEIRS=OURS" in capsys.readouterr().err
