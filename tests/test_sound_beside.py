"""Files with sound beside a clip: whatever recorders and converters write, from its first audible sample on."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe
from support.media import make_clip
from support.selection import some_of

from viper_e2e.config import DecodingConfig
from viper_e2e.decoding import ClipDecoder
from viper_e2e.errors import ClipError
from viper_e2e.packing import PackOptions, pack
from viper_e2e.shards import ShardSet

NOISE = "-f lavfi -i anoisesrc=r=44100:d=2:a=0.3:seed=7"
FILES = {
    "plain.wav": "",
    "pipe.wav": "pipe",
    "tagged.wav": "ID3",
    "tagged pipe.wav": "pipe ID3",
    "large.wav": "-rf64 always",
    "float.wav": "-c:a pcm_f32le",
    "law.wav": "-c:a pcm_mulaw",
    "stereo.wav": "-ac 2 -c:a pcm_s24le",
    "broadcast.wav": "-write_bext 1",
    "sony.w64": "",
    "a.flac": "",
    "a.m4a": "",
    "alac.m4a": "-c:a alac",
    "a.mp3": "",
    "bare.mp3": "-id3v2_version 0 -write_xing 0",
    "a.opus": "",
    "vorbis.ogg": "-c:a libvorbis",
    "flac.oga": "-c:a flac",
    "a.aac": "",
    "a.mka": "-c:a aac",
}


def write(path, how: str):
    command = [get_ffmpeg_exe(), "-y", "-v", "error", *NOISE.split(), "-threads", "1"]
    if "pipe" in how:
        data = subprocess.run([*command, "-f", "wav", "-"], check=True, capture_output=True, timeout=60).stdout
        path.write_bytes(data)
    else:
        subprocess.run([*command, *how.replace("ID3", "").split(), str(path)], check=True, timeout=60)
    if "ID3" in how:
        path.write_bytes(b"ID3\x04\0\0\0\0\0\x64" + bytes(100) + path.read_bytes())
    return path


def played(path) -> np.ndarray:
    """FFmpeg's own decode, which knows no tag in front of a wav."""
    data = path.read_bytes()
    data = data[110:] if data.startswith(b"ID3\x04\0\0\0\0\0\x64") else data
    command = [get_ffmpeg_exe(), "-v", "error", "-i", "-", "-ac", "1", "-ar", "16000", "-f", "f32le", "-"]
    if path.suffix == ".m4a":
        command[4] = str(path)
    done = subprocess.run(command, input=data, check=True, capture_output=True, timeout=60)
    return np.frombuffer(done.stdout, np.float32)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", num_frames=20, fps=10, sound=None)


KEPT = ("pipe.wav", "large.wav", "stereo.wav", "a.flac", "a.m4a", "bare.mp3", "a.opus")


@pytest.mark.slow
@pytest.mark.parametrize("name", some_of(FILES, lambda _, name: name in KEPT))
def test_sound_beside_a_clip_is_what_ffmpeg_plays(name, clip, tmp_path):
    path = write(tmp_path / name, FILES[name])
    expected = played(path)
    for source in (path, path.read_bytes()):
        (run,) = ClipDecoder(DecodingConfig(max_side=64))(clip, sound=source).sound
        assert run.start_seconds == pytest.approx(0.0, abs=2e-3)
        size = min(len(run.samples), len(expected))
        assert size > 31_000
        assert np.corrcoef(run.samples[:size], expected[:size])[0, 1] > 0.99


def test_sound_beside_a_clip_goes_into_shards(clip, tmp_path):
    videos, sounds = tmp_path / "videos", tmp_path / "sounds"
    videos.mkdir()
    sounds.mkdir()
    names = ["pipe.wav", "a.m4a", "vorbis.ogg"]
    rows = ["File_ID,Split,Joy"]
    for number, name in enumerate(names):
        (videos / f"{number}.mp4").write_bytes(clip.read_bytes())
        write(sounds / f"{number}.{name.rpartition('.')[2]}", FILES[name])
        rows.append(f"{number},train,0.{number}")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    pack(videos, tmp_path / "labels.csv", tmp_path / "shards", PackOptions(audio=sounds))
    shards = ShardSet([str(tmp_path / "shards" / "*.tar")])
    assert len(shards) == len(names)
    for number in range(len(names)):
        sample = shards.read(number)
        assert len(ClipDecoder(DecodingConfig(max_side=64))(sample.video, sound=sample.sound).sound) == 1


def test_a_wav_that_is_cut_short_is_refused(clip, tmp_path):
    for name in ("plain.wav", "large.wav"):
        data = write(tmp_path / name, FILES[name]).read_bytes()
        with pytest.raises(ClipError, match="cut short"):
            ClipDecoder(DecodingConfig())(clip, sound=data[: len(data) // 2])


def test_a_file_with_pictures_is_no_sound_beside_a_clip(clip):
    with pytest.raises(ClipError, match=r"\(sound\): is a mp4 file with pictures"):
        ClipDecoder(DecodingConfig())(clip, sound=clip)
