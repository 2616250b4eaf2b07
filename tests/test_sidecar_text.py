"""Which file beside a clip has its words: languages in names, and what is taken of several places."""

from __future__ import annotations

import os

import numpy as np
import pytest
from support.media import make_clip

from viper_e2e.clip import Cue, DecodedClip, Sample, SoundRun
from viper_e2e.config import LimitsConfig
from viper_e2e.errors import ClipError
from viper_e2e.labels import LabelSet
from viper_e2e.loading import beside_clip, words_beside
from viper_e2e.packing.report import Findings
from viper_e2e.packing.subtitles import PackedWords
from viper_e2e.packing.transcripts import Transcripts
from viper_e2e.scoring import check
from viper_e2e.shards import ShardSet, ShardWriter, words_member

SRT = "1\n00:00:00,000 --> 00:00:01,000\n{}\n"


@pytest.fixture
def folder(tmp_path):
    """Writes files, each with its own name as what is said in it, and gives the clip beside them."""

    def write(*names: str):
        (tmp_path / "clip.mp4").write_bytes(b"")
        for name in names:
            text = name if name.endswith("txt") else SRT.format(name)
            (tmp_path / name).write_text(
                text if not name.endswith("vtt") else f"WEBVTT\n\n{text.replace(',', '.')}"
            )
        return tmp_path / "clip.mp4"

    return write


@pytest.mark.parametrize(
    ("names", "language", "wanted"),
    [
        (["clip.en.srt"], "", "clip.en.srt"),
        (["clip.pt-BR.vtt"], "", "clip.pt-BR.vtt"),
        (["clip.en.srt", "clip.srt"], "", "clip.srt"),
        (["clip.en.srt", "clip.srt"], "en", "clip.en.srt"),
        (["clip.en.srt", "clip.srt"], "de", "clip.srt"),
        (["clip.en.srt", "clip.de.vtt"], "DE", "clip.de.vtt"),
        (["clip.en.srt", "clip.de.vtt"], "fr", None),
        (["clip.en.txt", "clip.en.srt"], "", "clip.en.srt"),
        (["other.en.srt", "clip.notes.txt", "clip.0001.srt"], "", None),
    ],
)
def test_a_language_may_stand_in_the_name(folder, names, language, wanted):
    clip = folder(*names)
    found = beside_clip(clip, language)
    assert (found and found.name) == wanted
    assert [cue.text for cue in words_beside(clip, language)] == ([wanted] if wanted else [])


def test_names_with_the_clips_ending_and_accents_written_apart_are_its_own(folder):
    clip = folder("clip.mp4.srt")
    assert beside_clip(clip).name == "clip.mp4.srt"
    apart = clip.with_name("Zoe\u0308.mp4")
    apart.write_bytes(b"")
    folder("Zo\u00eb.vtt", "Zo\u00eb.de.srt")
    os.utime(clip.parent, ns=(1, 1))
    assert beside_clip(apart).name == "Zo\u00eb.vtt"
    assert beside_clip(apart, "de").name == "Zo\u00eb.de.srt"


def test_subtitles_that_are_not_read_are_told(folder, caplog):
    clip = folder("clip.ass", "clip.english.srt", "clip.notes.txt", "other.ass")
    words = PackedWords(Findings())
    assert words.members(clip, None, None) == {}
    assert words_beside(clip) == ()
    (line,) = words.lines()
    assert line.startswith("2 files of subtitles not read (clip.english.srt, clip.ass): convert it (`ffmpeg -i")
    assert "clip.ass is not read; convert it" in caplog.text
    assert PackedWords(Findings(), is_wanted=False).lines() == []


def test_of_several_languages_none_is_taken_unasked(folder):
    clip = folder("clip.en.srt", "clip.de.vtt")
    with pytest.raises(ClipError, match=r"has words in de, en beside it; choose one by --words-language"):
        beside_clip(clip)


def test_what_is_called_after_another_clip_is_that_clips(folder):
    clip = folder("clip.one.txt")
    clip.with_name("clip.one.mp4").write_bytes(b"")
    assert beside_clip(clip) is None
    assert beside_clip(clip.with_name("clip.one.mp4")).name == "clip.one.txt"


def test_a_file_that_comes_later_is_seen(folder):
    clip = folder()
    assert beside_clip(clip) is None
    folder("clip.en.srt")
    os.utime(clip.parent, ns=(1, 1))  # clocks of file systems are coarse
    assert beside_clip(clip) is not None


def test_what_was_taken_of_several_places_is_counted(folder):
    words = PackedWords(Findings())
    for name in ("clip.srt", "clip.txt"):
        clip = folder(name)
        words.members(clip, "of the table", None)
        clip.with_name(name).unlink()
    assert (
        "1 clip with words from several places: subtitles used, the table's words not" in words.findings.notes
    )
    assert "1 clip with words from several places: the table's words used, the .txt not" in words.findings.notes


def test_words_are_counted_by_check(tmp_path):
    with ShardWriter(tmp_path, "train", LabelSet(("joy",)), shard_size=10**9) as writer:
        for name, cues in (("a", [Cue("oh", 0.0, 1.0)]), ("b", [Cue("oh")]), ("c", [Cue("ah")]), ("d", [])):
            more = dict([words_member(cues)]) if cues else {}
            writer.add(name, {"mp4": name.encode(), **more}, file_id=name, intensities=(0.5,))
    report = check(ShardSet(str(tmp_path / "*.tar")), num_workers=0)
    assert report.words == {"with times": 1, "without times": 2}
    assert report.to_json()["summary"]["words"] == report.words


def test_subtitles_of_a_longer_film_are_noted(tmp_path):
    make_clip(tmp_path / "a.mp4", num_frames=15)
    clip = (tmp_path / "a.mp4").read_bytes()
    late, own = [Cue(word, 60.0 + n, 61.0 + n) for n, word in enumerate("abc")], Cue("oh", 0.0, 0.9)
    with ShardWriter(tmp_path, "train", LabelSet(("joy",)), shard_size=10**9) as writer:
        for name, cues in (("a", late), ("b", [own, late[0]]), ("c", [own, own, late[0]]), ("d", [own])):
            members = {"mp4": clip, **dict([words_member(cues)])}
            writer.add(name, members, file_id=name, intensities=(0.5,))
    report = check(ShardSet(str(tmp_path / "*.tar")), num_workers=0)
    told = {one.key: [note for note in one.notes if "after its end" in note] for one in report.clips}
    assert [len(told[name]) for name in "abcd"] == [1, 1, 0, 0]
    assert told["a"] == ["3 of its 3 subtitles begin after its end; they may be those of a longer film"]


# --- what was heard is kept -------------------------------------------------------------------------


class Ear:
    """In place of a Whisper: hears how loud it is, and counts."""

    num_heard = 0

    def __init__(self, source: str, language: str | None):
        pass

    def __call__(self, sound: np.ndarray) -> tuple[Cue, ...]:
        type(self).num_heard += 1
        return (Cue(f"“{len(sound)}”", 0.1, 1 / 3),)


@pytest.fixture
def ear(monkeypatch):
    Ear.num_heard = 0
    monkeypatch.setattr("viper_e2e.encoders.Transcriber", Ear)
    monkeypatch.setattr("viper_e2e.packing.transcripts.DecodeSample", lambda decoder: silence)
    return Ear


def silence(sample: Sample) -> DecodedClip:
    """A clip as many samples long as its file is bytes."""
    sound = SoundRun(0.0, np.zeros(len(sample.video), np.float32))
    return DecodedClip(sample.key, np.zeros((1, 2, 2, 3), np.uint8), np.zeros(1), 1.0, (sound,))


def test_packing_that_was_killed_does_not_hear_again(ear, tmp_path):
    journal, limits = tmp_path / "out/.transcripts.jsonl", LimitsConfig()
    clips = [Sample(f"c{n}", bytes(n + 1)) for n in range(3)]
    first = Transcripts("whisper", "en", limits, journal)
    wanted = [first(clip) for clip in clips]
    assert ear.num_heard == 3
    with journal.open("a") as file:
        file.write('{"made_by": "transcribed by whi')  # killed while it wrote
    again = Transcripts("whisper", "en", limits, journal)
    assert [again(clip) for clip in clips] == wanted
    assert (ear.num_heard, again.num_known) == (3, 3)
    other = Transcripts("whisper", "de", limits, journal)
    other(clips[0])
    assert (ear.num_heard, other.num_known) == (4, 0)
    again.forget()
    assert not journal.exists()


@pytest.mark.parametrize(
    "line", ["[]", "{}", '{"clip": 1, "made_by": 2, "cues": [[1]]}', '{"cues": 3}', "null"]
)
def test_a_journal_that_somebody_else_wrote_is_nothing(ear, tmp_path, line):
    journal = tmp_path / "j.jsonl"
    journal.write_text(line + "\n")
    hear = Transcripts("whisper", None, LimitsConfig(), journal)
    hear(Sample("a", b"1"))
    assert ear.num_heard == 1
