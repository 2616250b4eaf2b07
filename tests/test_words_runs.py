"""Words on the whole way: packed, trained on, resumed, scored, and read beside a clip or from `--text`."""

from __future__ import annotations

import csv
import json
import signal

import numpy as np
import pytest
import torch
from support.media import make_clip
from support.training_runs import arguments, check_gradients_of_two_processes, run, same, weights

from viper_e2e.clip import Cue, Sample
from viper_e2e.commands.cli import main
from viper_e2e.config import with_settings
from viper_e2e.config.presets import micro
from viper_e2e.model.viper import ViPER
from viper_e2e.packing import pack
from viper_e2e.tables import write_labels

WORDS = ("--modalities=visual,words", "--epochs=2", "--batch-size=2", "--seed=1", "--schedule=constant")
JOINT = (*WORDS, "--unfreeze=words,visual", "--lr=0.01", "--backbone-lr=0.01")
SAID = ("oh wonderful", "how dreadful", "", "oh wonderful, is it?")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Shards of twelve clips; of every fourth nothing is known that is said, of others it is in subtitles."""
    folder = tmp_path_factory.mktemp("words")
    (folder / "videos").mkdir()
    rows = []
    for i in range(12):
        text = SAID[i % 4]
        frames = [np.full((64, 96, 3), 60 + 10 * i, np.uint8) for _ in range(8)]
        make_clip(folder / f"videos/{i}.mp4", frames=frames, fps=8, sound=None)
        if i % 4 == 1:
            (folder / f"videos/{i}.srt").write_text(f"1\n00:00:00,200 --> 00:00:00,900\n{text}\n")
        rows.append(
            {
                "File_ID": f"[{i}]",
                "Split": "train" if i < 8 else "val",
                "Joy": (i % 4 != 1) * 1.0,
                "Fear": 0.5 * (i % 2),
            }
            | {"Text": text if i % 4 != 1 else "", "Subject": i}
        )
    write_labels(folder / "labels.csv", rows)
    assert pack(folder / "videos", folder / "labels.csv", folder / "shards").exit_code == 0
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    config = with_settings(micro(), {"modalities": ("words",)})
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "model"
    ViPER(config).save_pretrained(folder)
    return folder


# --- training and scoring ---------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_reads_words_frozen_or_trained_and_reuses_their_tokens_bitwise(corpus, tmp_path):
    plain = run(corpus, tmp_path / "plain", *WORDS)
    reused = run(corpus, tmp_path / "reused", *WORDS, "--reuse-memory=1GB")
    trained = run(corpus, tmp_path / "trained", *WORDS, "--unfreeze=words")
    assert same(weights(plain), weights(reused))
    name = "encoders.words.backbone.model.encoder.layer.1.output.dense.weight"
    assert not torch.equal(weights(plain)[name], weights(trained)[name])
    words = [f"--checkpoint={trained}", f"--shards={corpus}/shards/val-*.tar", f"--out={tmp_path / 'eval'}"]
    assert main(["eval", *words]) == 0
    assert main(["ablate", *words[:2], f"--out={tmp_path / 'ablate'}"]) == 0
    rows = json.loads((tmp_path / "ablate/ablation.json").read_text())["rows"]
    assert sorted(row["modalities"] for row in rows) == [["visual"], ["visual", "words"], ["words"]]


@pytest.mark.campaign
@pytest.mark.slow
def test_a_run_that_reads_words_goes_on_bitwise(corpus, fork_server, tmp_path):
    whole = run(corpus, tmp_path / "whole", *JOINT, "--modality-dropout=0.5")
    words = arguments(corpus, tmp_path / "part", *JOINT, "--modality-dropout=0.5")
    assert fork_server.fork("stop", words, 3, signal.SIGTERM).wait() == 143
    assert fork_server.fork("train", [*words, "--resume"]).wait() == 0
    assert same(weights(whole), weights(tmp_path / "part"))


@pytest.mark.slow
@pytest.mark.campaign
def test_two_processes_read_words_as_one(corpus, fork_server, tmp_path):
    words = (*JOINT, "--modality-dropout=0.3", "--max-steps=1", "--clip-norm=0")
    alone = arguments(corpus, tmp_path / "1", *words)
    shared = arguments(corpus, tmp_path / "2", *words, "--batch-size=1")
    check_gradients_of_two_processes(fork_server, alone, shared, tmp_path)


# --- a clip and its words ---------------------------------------------------------------------------


def scores(model, tmp_path, *words: str) -> dict:
    out = tmp_path / f"out{len(list(tmp_path.glob('out*.json')))}.json"
    assert main(["infer", *words, f"--checkpoint={model}", f"--output={out}", "--num-workers=0"]) == 0
    (record,) = json.loads(out.read_text())
    return record


@pytest.mark.slow
def test_infer_reads_a_file_beside_a_clip_or_what_a_person_says(model, tmp_path):
    clip = make_clip(tmp_path / "a.mp4", num_frames=8, sound=None)
    silent = scores(model, tmp_path, str(clip))
    said = scores(model, tmp_path, str(clip), "--text", "oh no")
    (tmp_path / "a.txt").write_text("oh no\n")
    beside = scores(model, tmp_path, str(clip))
    assert (silent["words"], silent["present"]) == ("", {"words": False})
    assert (said["words"], said["present"]) == ("oh no", {"words": True})
    assert beside["intensities"] == said["intensities"] != silent["intensities"]
    assert scores(model, tmp_path, str(clip), "--text", "oh yes")["words"] == "oh yes"
    sample = Sample("a", clip, words=(Cue("oh no"),))
    loaded = ViPER.from_pretrained(model)
    by_hand, by_path = (loaded.predict([one])[0]["intensities"] for one in (sample, clip))
    assert by_hand == by_path


def test_tables_have_a_column_of_the_words_that_were_read(model, tmp_path):
    clip = make_clip(tmp_path / "a.mp4", num_frames=8, sound=None)
    words = ["infer", str(clip), f"--checkpoint={model}", "--num-workers=0"]
    assert main([*words, "--text", "=oh no", f"--output={tmp_path / 'a.csv'}"]) == 0
    with (tmp_path / "a.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["words"].lstrip("'") == "=oh no"
    assert row["words"] != "=oh no", "no spreadsheet computes it"


def test_windows_read_what_is_said_in_them(model, tmp_path):
    clip = make_clip(tmp_path / "a.mp4", num_frames=30, sound=None)
    (tmp_path / "a.srt").write_text(
        "00:00:00,100 --> 00:00:00,500\nearly\n\n00:00:01,500 --> 00:00:01,900\nlate\n"
    )
    out = tmp_path / "o.json"
    words = ["--window-seconds=1", "--hop-seconds=1", f"--output={out}", "--num-workers=0"]
    assert main(["infer", str(clip), f"--checkpoint={model}", *words]) == 0
    assert [record["words"] for record in json.loads(out.read_text())] == ["early", "late"]
    (whole,) = json.loads((tmp_path / "o.summary.json").read_text())
    assert whole["words"] == "early late"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--text", " "], "--text is empty"),
        (["B", "--text", "oh"], "--text is what is said in one clip"),
    ],
)
def test_a_text_that_says_nothing_certain_is_refused(model, tmp_path, capfd, words, said):
    clip = make_clip(tmp_path / "a.mp4", num_frames=8, sound=None)
    words = [str(clip) if word == "B" else word for word in words]
    assert main(["infer", str(clip), f"--checkpoint={model}", *words]) == 1
    assert said in " ".join(capfd.readouterr().err.split())


def test_a_file_beside_a_clip_that_cannot_be_read_fails_the_clip_alone(model, tmp_path):
    clips = [make_clip(tmp_path / f"{name}.mp4", num_frames=8, sound=None) for name in "ab"]
    (tmp_path / "a.srt").write_bytes(b"\xff\xfe\x00")
    out = tmp_path / "o.json"
    assert main(["infer", *map(str, clips), f"--checkpoint={model}", f"--output={out}", "--num-workers=0"]) == 2
    broken, sound = json.loads(out.read_text())
    assert "a.srt: is UTF-16" in broken["error"] or "UTF-16" in broken["error"]
    assert sound["valid"]


def test_a_model_without_words_looks_at_no_file_beside_a_clip(tmp_path, capfd):
    clip = make_clip(tmp_path / "a.mp4", num_frames=8)
    (tmp_path / "a.srt").write_bytes(b"\xff\xfe\x00")
    config = with_settings(micro(), {"modalities": ("visual",)})
    ViPER(config).save_pretrained(tmp_path / "model")
    assert "words" not in scores(tmp_path / "model", tmp_path, str(clip))
    assert main(["infer", str(clip), f"--checkpoint={tmp_path / 'model'}", "--text=oh"]) == 1
    assert "--text: this model reads no words; it has visual" in " ".join(capfd.readouterr().err.split())
