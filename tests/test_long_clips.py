"""Long clips: frames decoded and memory held depend on what is looked at, hardly on the length."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import av
import numpy as np
import pytest
from support import ROOT
from support.media import make_clip, tone
from support.selection import some_of

from viper_e2e.config import DecodingConfig, with_settings
from viper_e2e.config.presets import micro
from viper_e2e.decoding import ClipDecoder, media
from viper_e2e.decoding.media import Media

PEAK = """
import sys
sys.path.insert(0, "tests")
from support.peak_memory import peak_mib
def print_peak():
    print(peak_mib(), "torch" in sys.modules)
"""


def repeat_clip(source, target, times: int):
    """A long clip out of a short one, without encoding anything again."""
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        length = stream.duration * stream.time_base
    with av.open(str(target), "w") as out:
        streams, last = {}, {}
        for number in range(times):
            with av.open(str(source)) as container:
                for stream in container.streams:
                    if stream.index not in streams:
                        streams[stream.index] = out.add_stream_from_template(stream)
                for packet in container.demux():
                    if packet.dts is None:
                        continue
                    index = packet.stream.index
                    shift = round(number * length / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    # The sound of one round reaches into the next.
                    if packet.dts > last.get(index, -(10**9)):
                        last[index] = packet.dts
                        packet.stream = streams[index]
                        out.mux(packet)
    return target


def delay_sound(source, target, seconds: float, **options: str):
    """The same packets, those of the sound later; `options` of the muxer."""
    with av.open(str(source)) as container, av.open(str(target), "w", options=options) as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in container.streams}
        for packet in container.demux():
            if packet.dts is None:
                continue
            shift = round(seconds / packet.time_base) if packet.stream.type == "audio" else 0
            packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            packet.stream = streams[packet.stream.index]
            out.mux(packet)
    return target


def peak_of(code: str, *arguments) -> tuple[float, bool]:
    """Peak resident memory in MiB of a process that runs the code, and whether it loaded torch."""
    command = [sys.executable, "-c", PEAK + code + "\nprint_peak()", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    peak, has_torch = done.stdout.split()[-2:]
    return float(peak), has_torch == "True"


@pytest.fixture(scope="module", params=some_of([30, 60], lambda _, gop: gop == 60))
def ten_minutes(request, tmp_path_factory):
    """(GOP, ten seconds, ten minutes) of the same clip, 320 pixels wide."""
    folder = tmp_path_factory.mktemp("long")
    options = {"preset": "veryfast", "bf": "3", "g": str(request.param), "sc_threshold": "0"}
    short = make_clip(
        folder / "short.mp4", num_frames=300, fps=30, width=320, height=192, options=options, rate=16_000
    )
    return request.param, short, repeat_clip(short, folder / "long.mp4", 60)


@pytest.mark.slow
def test_a_long_clip_decodes_half_a_gop_for_each_frame_at_most(ten_minutes):
    gop, _, path = ten_minutes
    decoder = ClipDecoder(DecodingConfig())
    clip = decoder(path)
    assert clip.duration_seconds == pytest.approx(600, abs=0.1)
    assert len(clip.frames) == 32
    assert decoder.frames_decoded <= 32 * gop / 2 * 1.1
    assert sum(len(run.samples) for run in clip.sound) / 16_000 == pytest.approx(62, abs=0.2)


X264 = {"preset": "veryfast", "bf": "3", "g": "20", "sc_threshold": "0"}
INDEXED = {
    "aac.mp4": {"options": X264},
    "stereo.mp4": {"options": X264, "rate": 44_100, "channels": 2},
    "mp3.mp4": {"options": X264, "audio_codec": "libmp3lame", "rate": 44_100},
    "opus.mp4": {"options": X264, "audio_codec": "libopus", "rate": 48_000},
    "pcm.mov": {"options": X264, "audio_codec": "pcm_s16le"},
    "silent.mp4": {"options": X264, "sound": None},
    "open gop.mp4": {"options": {"bf": "3", "x264-params": "open-gop=1:keyint=20:scenecut=0"}},
    "hevc.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=20:pools=1"}},
    "late.mp4": {"options": X264, "late_seconds": 7.3},
    "early end.mp4": {"options": X264, "sound": tone(23.0, 16_000, 1)},
}


KEPT = ("silent.mp4", "open gop.mp4", "late.mp4")


@pytest.mark.slow
@pytest.mark.parametrize("name", some_of(INDEXED, lambda _, name: name in KEPT))
def test_a_leap_over_what_nobody_needs_changes_nothing(name, tmp_path, monkeypatch):
    made = dict(INDEXED[name])
    late_seconds = made.pop("late_seconds", 0.0)
    path = make_clip(tmp_path / name, num_frames=400, fps=10, **made)
    if late_seconds:
        path = delay_sound(path, tmp_path / "delayed.mp4", late_seconds)
    settings = {"num_frames": 5, "span_seconds": 0.7}
    decoders = {
        rule: ClipDecoder(DecodingConfig(**settings, sound=rule)) for rule in ("spans", "windows", "none")
    }
    expected = {rule: decoder(path) for rule, decoder in decoders.items()}
    seeks = []
    monkeypatch.setattr(Media, "seek", lambda *args, seek=Media.seek: seeks.append(args) or seek(*args))
    monkeypatch.setattr(media, "KEPT_BYTES", 0)
    for rule, decoder in decoders.items():
        clip = decoder(path)
        assert np.array_equal(clip.frames, expected[rule].frames)
        assert np.array_equal(clip.frame_seconds, expected[rule].frame_seconds)
        assert clip.sound_seconds == expected[rule].sound_seconds
        for ours, theirs in zip(clip.sound, expected[rule].sound, strict=True):
            assert ours.start_seconds == theirs.start_seconds
            assert np.array_equal(ours.samples, theirs.samples)
    # The four gaps between five pictures, under two rules: where the whole sound is wanted, there are none.
    # And under two rules the beginning and the end of the sound are looked up.
    has_sound = made.get("sound", "") is not None
    # Sound that goes on behind the pictures has instants, and gaps, of its own.
    more = 2 if late_seconds else 0
    assert len(seeks) == (4 + 4 + 2 + 2 + more if has_sound else 4 + 4 + 4)


@pytest.mark.slow
def test_a_file_in_fragments_is_read_on_instead(tmp_path, monkeypatch):
    path = make_clip(tmp_path / "whole.mp4", num_frames=400, fps=10, options=X264)
    flags = "frag_keyframe+empty_moov+default_base_moof"
    fragments = delay_sound(path, tmp_path / "fragments.mp4", 0.0, movflags=flags)
    decoder = ClipDecoder(DecodingConfig(num_frames=5, span_seconds=0.7))
    expected = decoder(fragments)
    monkeypatch.setattr(Media, "seek", lambda *_: pytest.fail("this file has no index to leap by"))
    monkeypatch.setattr(media, "KEPT_BYTES", 0)
    clip = decoder(fragments)
    assert np.array_equal(clip.frames, expected.frames)
    assert [len(run.samples) for run in clip.sound] == [len(run.samples) for run in expected.sound]


@pytest.mark.slow
@pytest.mark.parametrize("too_far_seconds", some_of([3.0, 11.0, 39.0], lambda _, far: far == 11.0))
def test_a_leap_that_lands_too_late_is_noticed(too_far_seconds, tmp_path, monkeypatch):
    path = make_clip(tmp_path / "clip.mp4", num_frames=400, fps=10, options=X264)
    decoder = ClipDecoder(DecodingConfig(num_frames=5, span_seconds=0.7))
    expected = decoder(path)
    seek = Media.seek

    def too_far(self, stream, ticks):
        seek(self, stream, ticks + round(too_far_seconds / stream.time_base) * (stream.type == "video"))

    monkeypatch.setattr(Media, "seek", too_far)
    monkeypatch.setattr(media, "KEPT_BYTES", 0)
    clip = decoder(path)
    assert decoder.frames_decoded > 400, "it fell back on decoding everything"
    assert np.array_equal(clip.frames, expected.frames)
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(clip.sound, expected.sound, strict=True))


@pytest.mark.slow
def test_only_packets_near_what_is_needed_are_read(ten_minutes, monkeypatch):
    *_, path = ten_minutes
    num_read = []

    def noting(read):
        return lambda *args: (num_read.append(packet.stream.type) or packet for packet in read(*args))

    for name in ("packets", "packets_to_keep"):
        monkeypatch.setattr(Media, name, noting(getattr(Media, name)))
    ClipDecoder(DecodingConfig())(path)
    # 18,000 pictures once, for their times; then of both streams at most 6 of the 19 seconds for each token.
    assert num_read.count("video") < 18_000 * (1 + 6 / 19)
    assert num_read.count("audio") < 600 * 16_000 / 1024 * 6 / 19


DECODE = """
from viper_e2e.config import DecodingConfig
from viper_e2e.decoding import ClipDecoder, media
ClipDecoder(DecodingConfig())(sys.argv[1])
"""


@pytest.mark.slow
def test_peak_memory_of_decoding_hardly_depends_on_length_and_no_torch_is_loaded(ten_minutes):
    _, short, long = ten_minutes
    (of_short, has_torch), (of_long, _) = peak_of(DECODE, short), peak_of(DECODE, long)
    assert not has_torch
    assert of_long <= 1.3 * of_short


INFER = """
sys.argv[0] = "infer.py"
from viper_e2e.commands.cli import main
assert main(["infer", sys.argv[1], "--checkpoint", sys.argv[2], "--num-workers", "0", "--device", "cpu"]) == 0
"""


@pytest.mark.campaign
def test_peak_memory_of_scoring_hardly_depends_on_length(tmp_path):
    from viper_e2e.model.viper import ViPER

    config = with_settings(micro(), {"decoding.num_frames": 32})
    ViPER(config).save_pretrained(tmp_path / "model", self_contained=True)
    short = make_clip(tmp_path / "short.mp4", num_frames=300, fps=30, width=160, height=120)
    long = repeat_clip(short, tmp_path / "long.mp4", 60)
    (of_short, _), (of_long, _) = (peak_of(INFER, path, tmp_path / "model") for path in (short, long))
    assert of_long <= 1.3 * of_short


@pytest.mark.slow
def test_windows_hold_no_more_than_a_few_windows(tmp_path):
    options = {"preset": "ultrafast", "g": "50"}
    short = make_clip(tmp_path / "short.mp4", num_frames=100, fps=10, options=options)
    path = repeat_clip(short, tmp_path / "long.mp4", 9)
    decoder = ClipDecoder(DecodingConfig(num_frames=8))
    num_windows, size = 0, 0
    tracemalloc.start()
    try:
        for _, clip in decoder.windows(path, 12, 6):
            num_windows += 1
            size = max(size, clip.frames.nbytes + sum(run.samples.nbytes for run in clip.sound))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert num_windows == 14
    assert peak < 4 * size + 1e6
