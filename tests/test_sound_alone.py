"""Files with sound alone, given as clips: one line with the command that makes clips of them."""

from __future__ import annotations

import shlex
import subprocess

import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe

from viper_e2e.config import DecodingConfig, LimitsConfig
from viper_e2e.decoding import ClipDecoder, probe
from viper_e2e.errors import ClipError, ViperError
from viper_e2e.packing import pack
from viper_e2e.scoring.sources import find_inputs
from viper_e2e.tables import write_labels

TONE = "-f lavfi -i sine=frequency=440:sample_rate=44100:duration=1"
KINDS = {
    # File: FFmpeg's options, what it is called.
    "a.wav": ("", "wav"),
    "large.wav": ("-rf64 always", "wav"),
    "a.w64": ("", "w64"),
    "a.flac": ("", "flac"),
    "tagged.mp3": ("-metadata title=x", "mp3"),
    "bare.mp3": ("-id3v2_version 0 -write_xing 0", "mp3"),
    "a.aac": ("", "aac"),
    "a.opus": ("", "ogg"),
    "a.ogg": ("-c:a libvorbis", "ogg"),
    "a.m4a": ("", "mp4"),
    "a.mka": ("-c:a aac", "mkv"),
    "a.wma": ("", "asf"),
    "a.aiff": ("", "AIFF"),
    "a.au": ("", "AU"),
    "a.caf": ("", "CAF"),
    "a.ac3": ("", "AC-3"),
    "a.wv": ("", "WavPack"),
}


def ffmpeg(*words: object) -> None:
    subprocess.run([get_ffmpeg_exe(), "-y", "-v", "error", *map(str, words)], check=True, timeout=60)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """All kinds, by one command."""
    folder = tmp_path_factory.mktemp("sounds")
    files = [word for name, (how, _) in KINDS.items() for word in (*how.split(), folder / name)]
    ffmpeg(*TONE.split(), *files)
    return folder


def said_of(path, source=None) -> str:
    with pytest.raises(ClipError) as caught:
        probe(path if source is None else source, LimitsConfig())
    return str(caught.value)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_refused_in_the_same_line(name, sounds):
    path, kind = sounds / name, KINDS[name][1]
    command = (
        f"ffmpeg -f lavfi -i color=black:s=64x64 -i ./{name} -map 0:v -map 1:a -shortest "
        f"-c:a flac ./{path.stem}.mkv"
    )
    line = f"holds only sound ({kind}), no pictures; to score it with a black one: {command}"
    assert line in said_of(path)
    assert line.partition(": ffmpeg")[0] in said_of(path, path.read_bytes())


def test_a_tag_in_front_changes_nothing(sounds, tmp_path):
    tag = b"ID3\x04\0\0\0\0\0\x64" + bytes(100)
    for name in ("a.wav", "a.aac", "bare.mp3"):
        (tmp_path / name).write_bytes(tag + (sounds / name).read_bytes())
        assert "holds only sound (" in said_of(tmp_path / name)


@pytest.mark.parametrize("name", ["bare.mp3", "a.wma", "a.aiff", "cover.mp3", "same name.mkv"])
def test_the_command_makes_a_clip_that_sounds_the_same(name, sounds, tmp_path, monkeypatch):
    """A cover is no picture in motion; nothing takes its own name."""
    if name == "cover.mp3":
        cover = f"-f lavfi -i color=red:s=300x300:d=0.04 -i {sounds / 'bare.mp3'}".split()
        ffmpeg(*cover, "-map", 0, "-map", 1, "-c:a", "copy", "-disposition:v", "attached_pic", tmp_path / name)
    else:
        source = sounds / ("a.mka" if name.endswith("mkv") else name)
        (tmp_path / name).write_bytes(source.read_bytes())
    monkeypatch.chdir(tmp_path)
    command = shlex.split(said_of(tmp_path / name).partition("black one: ")[2].removesuffix(" (container)"))
    ffmpeg(*command[1:])
    clip = ClipDecoder(DecodingConfig(num_frames=2, sound="windows"))(tmp_path / command[-1])
    assert clip.frames.max() < 20
    (run,) = clip.sound
    hertz = np.abs(np.fft.rfft(run.samples)).argmax() / len(run.samples) * 16_000
    assert hertz == pytest.approx(440, abs=2)
    assert clip.sound_seconds == pytest.approx(1.0, abs=0.08)


def test_pack_says_it_too(sounds, tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "1.mp4").write_bytes((sounds / "bare.mp3").read_bytes())
    write_labels(tmp_path / "labels.csv", [{"File_ID": "[1]", "Split": "train", "Joy": 1.0}])
    with pytest.raises(ViperError, match=r"holds only sound \(mp3\), no pictures; to score it .*: ffmpeg -f"):
        pack(tmp_path / "videos", tmp_path / "labels.csv", tmp_path / "shards")


def test_beside_a_clip_what_cannot_be_read_is_told_how_to_convert(sounds, tmp_path):
    from support.media import make_clip

    clip = make_clip(tmp_path / "clip.mp4", num_frames=4, fps=10, sound=None)
    with pytest.raises(ClipError, match=r"holds AIFF, which is not read beside a clip; convert it: ffmpeg -i"):
        ClipDecoder(DecodingConfig(num_frames=2))(clip, sound=sounds / "a.aiff")


def test_folders_of_sounds_are_told_the_command(sounds, tmp_path):
    command = "ffmpeg -f lavfi -i color=black:s=64x64 -i ./SOUND"
    with pytest.raises(ViperError, match=f"no clip in this folder .* files hold only sound; .*{command}"):
        find_inputs([str(sounds)])
    write_labels(tmp_path / "labels.csv", [{"File_ID": "a", "Split": "train", "Joy": 1.0}])
    with pytest.raises(ViperError, match=f"nothing to pack .* files hold only sound; .*{command}"):
        pack(sounds, tmp_path / "labels.csv", tmp_path / "shards")
