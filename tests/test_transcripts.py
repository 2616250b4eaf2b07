"""`viper pack --transcribe`: generation with a random Whisper, whose words are packed with times and marked."""

from __future__ import annotations

import json
import tarfile

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from support.media import make_clip, tone
from support.whispers import write_whisper

from viper_e2e.clip import Cue, Segment
from viper_e2e.commands.cli import main
from viper_e2e.encoders.transcriber import Transcriber
from viper_e2e.errors import ViperError
from viper_e2e.scoring.checking import check
from viper_e2e.shards import ShardSet
from viper_e2e.tables import write_labels


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    return write_whisper(tmp_path_factory.mktemp("whisper") / "tiny")


@pytest.fixture(scope="module")
def hear(whisper):
    return Transcriber(str(whisper), "en")


@pytest.mark.parametrize("seconds", [1.0, 5.0], ids=["a piece", "several pieces"])
def test_what_is_heard_lies_within_the_sound_and_is_the_same_each_time(hear, seconds):
    sound = tone(seconds, 16_000, 1).reshape(-1).astype(np.float32)
    cues = hear(sound)
    assert cues
    assert cues == hear(sound)
    assert all(0 <= cue.start_seconds < cue.end_seconds <= seconds for cue in cues)
    assert not any("<|" in cue.text for cue in cues)


@pytest.mark.parametrize("sound", [np.zeros(0, np.float32), np.zeros(16_000, np.float32)])
def test_in_silence_nothing_is_heard(hear, sound):
    assert hear(sound) == ()


def test_a_language_that_it_does_not_know_is_refused(whisper, tmp_path):
    sound = tone(1.0, 16_000, 1).reshape(-1).astype(np.float32)
    assert Transcriber(str(whisper), "ja")(sound)
    with pytest.raises(ViperError, match="--language xx: "):
        Transcriber(str(whisper), "xx")(sound)
    english = write_whisper(tmp_path / "english", multilingual=False)
    Transcriber(str(english))(sound)
    with pytest.raises(ViperError, match=r"--language ja: .* knows only English"):
        Transcriber(str(english), "ja")


def test_an_encoder_alone_cannot_write(tmp_path):
    folder = write_whisper(tmp_path / "half")
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "encoder." in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ViperError, match=r"lacks \d+ weights \(was only the encoder saved"):
        Transcriber(str(folder))


@pytest.mark.parametrize(
    "lost", ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"]
)
def test_what_is_no_whole_whisper_is_named_in_one_line(lost, tmp_path):
    folder = write_whisper(tmp_path / "part")
    (folder / lost).unlink()
    with pytest.raises(ViperError, match=r"--transcribe .*part: .*"):
        Transcriber(str(folder))
    (folder / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(ViperError, match="is not a Whisper"):
        Transcriber(str(folder))


def test_clips_without_words_are_heard_told_and_marked(whisper, tmp_path, capfd):
    (tmp_path / "videos").mkdir()
    for name in ("heard", "silent", "written"):
        sound = None if name == "silent" else "tone"
        make_clip(tmp_path / f"videos/{name}.mp4", num_frames=30, sound=sound)
    (tmp_path / "videos/written.txt").write_text("what is written")
    rows = [{"File_ID": name, "Split": "train", "Joy": 0.5} for name in ("heard", "silent", "written")]
    write_labels(tmp_path / "labels.csv", rows)
    words = [f"--videos={tmp_path}/videos", f"--labels={tmp_path}/labels.csv", f"--out={tmp_path}/shards"]
    assert main(["pack", *words, f"--transcribe={whisper}", "--language=en"]) == 0
    said = " ".join("".join(capfd.readouterr()).split())
    assert "1 clip transcribed by" in said
    assert "finds no words" in said
    shards = ShardSet(f"{tmp_path}/shards/train-*.tar")
    found = {shards.entry(i).key: shards.read(i).words for i in range(len(shards))}
    assert found["heard"]
    assert all(cue.end_seconds <= 2.2 for cue in found["heard"])
    assert found["silent"] == ()
    assert found["written"] == (Cue("what is written"),)
    with tarfile.open(shards.shards[0].path_or_url) as tar:
        member = tar.extractfile("heard.words.vtt").read().decode()
    made_by = f"transcribed by {whisper}, language en; checked by nobody"
    assert f"NOTE {made_by}" in member
    report = check(ShardSet(f"{tmp_path}/shards/train-*.tar", strict=False), num_workers=0)
    assert report.to_json()["summary"]["words_by"] == {made_by: 1}
    assert {clip.key: clip.words_by for clip in report.clips} == {"heard": made_by, "silent": "", "written": ""}


def test_of_a_part_of_a_file_the_part_is_heard(whisper, tmp_path):
    from viper_e2e.clip import Sample
    from viper_e2e.config import LimitsConfig
    from viper_e2e.packing.transcripts import Transcripts

    clip = make_clip(tmp_path / "a.mp4", num_frames=60, sound="tone")
    hear = Transcripts(str(whisper), None, LimitsConfig())
    cues = hear(Sample("a", clip, segment=Segment(1.0, 2.0)))
    assert cues
    assert all(0 <= cue.start_seconds < cue.end_seconds <= 1.2 for cue in cues)


def test_a_language_alone_means_nothing(tmp_path, capfd):
    words = [f"--videos={tmp_path}", f"--labels={tmp_path}/labels.csv", f"--out={tmp_path}/shards"]
    write_labels(tmp_path / "labels.csv", [{"File_ID": "a", "Split": "train", "Joy": 0.5}])
    assert main(["pack", *words, "--language=en"]) == 1
    assert "--language en goes with --transcribe" in " ".join(capfd.readouterr().err.split())
