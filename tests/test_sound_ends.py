"""test_sound_ends.py: sound is heard to its end, and amid a film, whatever its packets say of their length."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import av
import pytest
from imageio_ffmpeg import get_ffmpeg_exe

from viper_e2e.clip import Segment
from viper_e2e.config import DecodingConfig, LimitsConfig
from viper_e2e.cutting import LongFile, cut
from viper_e2e.decoding import ClipDecoder

ALL = DecodingConfig(num_frames=200, max_side=None, sample_rate=16_000, span_seconds=10.0)
FILM = "-f lavfi -i testsrc2=s=64x48:r=25:d={0} -itsoffset {1} -f lavfi -i anoisesrc=r={2}:d={0}:a=0.3:seed=5"


def film(path, codec: str, rate: int, late: float = 0.0, seconds: float = 8.5):
    words = f"{FILM.format(seconds, late, rate)} -map 0 -map 1 -c:v mpeg4 -c:a {codec} -strict -2"
    command = [get_ffmpeg_exe(), "-y", "-v", "error", "-threads", "1", *words.split(), str(path)]
    subprocess.run(command, check=True, timeout=60)
    return path


def without_lengths(path):
    """The same with packets of sound that do not say how long they sound, as FFmpeg wrote them up to 7."""
    bare = path.with_stem("bare")
    with av.open(str(path)) as source, av.open(str(bare), "w") as made:
        places = {stream.index: made.add_stream_from_template(stream, opaque=True) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.duration = 0 if packet.stream.type == "audio" else packet.duration
                packet.stream = places[packet.stream.index]
                made.mux(packet)
    with av.open(str(bare)) as container:
        assert {packet.duration for packet in container.demux(audio=0)} == {0}
    return bare


@pytest.mark.parametrize(
    ("ending", "codec", "rate"),
    [("mp4", "aac", 16_000), ("mp4", "aac", 48_000), ("mp4", "libopus", 48_000), ("mkv", "alac", 48_000)],
)
def test_late_sound_is_heard_to_its_end(tmp_path, ending, codec, rate):
    """Its last block may be stated to be shorter than the codec's: what is behind it is padding, no sound."""
    path = film(tmp_path / f"a.{ending}", codec, rate, 0.4, 2.2345)
    (run,) = ClipDecoder(ALL)(path).sound
    assert run.start_seconds + len(run.samples) / ALL.sample_rate == pytest.approx(0.4 + 2.2345, abs=2e-3)
    assert run.start_seconds == pytest.approx(0.4 - (1024 / rate) * (codec == "aac"), abs=2e-3)


@pytest.mark.parametrize("rate", [8_000, 48_000])
def test_a_last_packet_without_a_length_is_heard(tmp_path, rate):
    path = without_lengths(film(tmp_path / "a.mkv", "alac", rate, 0.4, 2.2345))
    (run,) = ClipDecoder(ALL)(path).sound
    assert run.start_seconds + len(run.samples) / ALL.sample_rate == pytest.approx(0.4 + 2.2345, abs=2e-3)


def test_packets_without_a_length_are_heard_amid_a_film_and_in_a_clip_cut_out_of_it(tmp_path):
    """One of ALAC at 4,000 Hz sounds for a second."""
    limits = LimitsConfig(min_sample_rate=4_000)
    path = without_lengths(film(tmp_path / "a.mkv", "alac", 4_000))
    part = Segment(6.92, 7.12)  # packets begin at 6.144 and 7.168 s
    decode = ClipDecoder(replace(ALL, limits=limits))
    made = cut(LongFile(path, limits).stretch(part.start_seconds, part.end_seconds), limits)
    for clip in (decode(path, segment=part), decode(made.data, sound=made.sound, segment=made.segment)):
        (run,) = clip.sound
        assert run.start_seconds == pytest.approx(0.0, abs=2e-3)
        assert len(run.samples) == pytest.approx(0.2 * ALL.sample_rate, abs=64)
        assert run.samples.std() > 0.01
