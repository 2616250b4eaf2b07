"""Frames are those of decoding everything; a window is a clip cut there; damage is an error."""

from __future__ import annotations

import json
import pickle
import wave
from fractions import Fraction
from io import BytesIO

import av
import numpy as np
import pytest
from support.clicks import click, click_seconds
from support.media import picture, tone
from support.streams import STREAMS, config, write_clip, write_stream

from viper_e2e.config import LimitsConfig
from viper_e2e.decoding import ClipDecoder
from viper_e2e.decoding.geometry import scaled_size
from viper_e2e.errors import ClipError, ViperError


@pytest.fixture(scope="module", params=STREAMS)
def stream(request, tmp_path_factory):
    return write_stream(tmp_path_factory.mktemp("streams"), request.param)


def all_frames(path) -> list[np.ndarray]:
    """Every frame of a clip as decoding all of it gives them, upright, in square pixels."""
    with av.open(str(path)) as container:
        aspect = container.streams.video[0].sample_aspect_ratio or 1
        return [
            np.rot90(
                frame.to_ndarray(format="rgb24", width=int(frame.width * aspect)), round(frame.rotation / 90)
            )
            for frame in container.decode(video=0)
        ]


# --- frames --------------------------------------------------------------------------------------


def test_frames_are_those_of_decoding_everything(stream):
    everything = all_frames(stream)
    assert len(everything) == 75
    decoder = ClipDecoder(config(num_frames=9))
    clip = decoder(stream)
    # 75 frames at even distances: instants fall on frames 0, 9.25, 18.5 …, each shows the last that has begun,
    # half a tick forgiven. A tick of an AVI is a whole frame.
    half_a_tick = 0.5 if stream.suffix == ".avi" else 1e-6
    indices = np.floor(np.linspace(0, 74, 9) + half_a_tick).astype(int)
    assert np.allclose(clip.frame_seconds, indices / 25, atol=1.1e-3)
    assert all((ours == everything[i]).all() for ours, i in zip(clip.frames, indices, strict=True))
    assert clip.duration_seconds == pytest.approx(3.0, abs=2e-3)


def test_every_single_frame_can_be_had(stream):
    everything = all_frames(stream)
    clip = ClipDecoder(config(num_frames=75))(stream.read_bytes())
    assert np.array_equal(clip.frames, everything)


def test_frames_of_windows_are_those_of_decoding_everything(stream):
    everything = all_frames(stream)
    num_windows = 0
    for start, clip in ClipDecoder(config(num_frames=4)).windows(stream, 0.8, 0.4):
        indices = np.round((clip.frame_seconds + start) * 25).astype(int)
        assert indices[0] == round(start * 25)
        assert indices[-1] == round(start * 25) + 19
        assert all((ours == everything[i]).all() for ours, i in zip(clip.frames, indices, strict=True))
        num_windows += 1
    assert num_windows == 7


@pytest.mark.parametrize("sampling", ["time", "paper"])
@pytest.mark.parametrize("num_available", [1, 2, 3, 15, 16, 40])
def test_short_clips_give_what_they_have(num_available, sampling, tiny_clip):
    path = tiny_clip(num_frames=num_available, sound=None)
    clip = ClipDecoder(config(num_frames=32, sampling=sampling))(path)
    everything = all_frames(path)
    assert 1 <= len(clip.frames) <= min(num_available, 32)
    assert (clip.frames[0] == everything[0]).all()
    assert (clip.frames[-1] == everything[-1]).all()
    assert (np.diff(clip.frame_seconds) > 0).all()
    if sampling == "time":
        assert len(clip.frames) == min(num_available, 32)


@pytest.mark.slow
def test_the_published_indices_come_out(reference):
    expected = json.loads((reference / "peer" / "expected" / "expected.json").read_text())["frame_indices"]
    path = reference / "peer" / "clips" / "single_face.mp4"
    clip = ClipDecoder(config(num_frames=32, sampling="paper"))(path)
    everything = all_frames(path)
    assert np.array_equal(clip.frames, [everything[i] for i in expected])


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "single_face.mp4",
        pytest.param("no_face.mp4", marks=pytest.mark.campaign),
        pytest.param("face_noface.mov", marks=pytest.mark.campaign),
        "carphone_pristine.mp4",
    ],
)
def test_real_clips_are_exact_and_cheaper_than_decoding_everything(name, reference):
    path = reference / "clips" / name
    everything = all_frames(path)
    decoder = ClipDecoder(config(num_frames=32))
    clip = decoder(path)
    assert len(clip.frames) == 32
    places = [next(i for i, frame in enumerate(everything) if (frame == ours).all()) for ours in clip.frames]
    assert places == sorted(places)
    assert (places[0], places[-1]) == (0, len(everything) - 1)
    assert decoder.frames_decoded < len(everything)


def test_pictures_nothing_refers_to_are_not_decoded(tiny_clip):
    options = {"bf": "3", "b_strategy": "0", "x264-params": "b-pyramid=none:keyint=300"}
    path = tiny_clip(num_frames=120, options=options, sound=None)
    decoder = ClipDecoder(config(num_frames=4))
    decoder(path)
    # Three of four pictures are B-frames here.
    assert decoder.frames_decoded < 0.35 * 120


def test_variable_frame_rate_is_sampled_by_time(tmp_path):
    # Ten frames in the first tenth of a second, then one that stands for two seconds, then one more.
    path = write_clip(tmp_path / "vfr.mkv", pts=[*range(0, 100, 10), 1000, 2000])
    clip = ClipDecoder(config(num_frames=5))(path)
    # Instants 0, 0.5, 1, 1.5, 2 s show the frames that began at 0, 0.09, 1, 1 and 2 s.
    assert clip.frame_seconds == pytest.approx([0.0, 0.09, 1.0, 2.0])


def test_frames_are_turned_upright(tmp_path):
    for degrees, corner in ((90, (-3, 2)), (180, (-3, -3)), (-90, (2, -3))):
        path = tmp_path / f"turned{degrees}.mp4"
        with av.open(str(path), "w") as container:
            video = container.add_stream("libx264", rate=25)
            video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
            video.set_display_rotation(degrees)
            image = np.zeros((64, 96, 3), np.uint8)
            image[:16, :16] = 255
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = 0, Fraction(1, 25)
            container.mux(video.encode(frame))
            container.mux(video.encode(None))
        clip = ClipDecoder(config())(path)
        assert clip.display_size == (clip.frames.shape[2], clip.frames.shape[1])
        assert clip.display_size == ((96, 64) if degrees == 180 else (64, 96))
        # The white corner was top left.
        assert clip.frames[0][corner].min() > 200
        assert (clip.frames[0] > 128).mean() < 0.06


@pytest.mark.parametrize(
    ("size", "max_side", "expected"),
    [
        ((1280, 720), 640, (640, 360)),
        ((720, 1280), 640, (360, 640)),
        ((640, 360), 640, (640, 360)),
        ((64, 64), 640, (64, 64)),
        ((1000, 333), 500, (500, 166)),
        ((4096, 2), 100, (100, 1)),
        ((1280, 720), None, (1280, 720)),
    ],
)
def test_the_longer_side_is_at_most_max_side_and_never_grows(size, max_side, expected):
    assert scaled_size(*size, max_side) == expected


def test_scaled_frames_are_scaled_once_from_the_decoded_picture(tiny_clip):
    path = tiny_clip(width=160, height=96, sound=None)
    clip = ClipDecoder(config(max_side=101))(path)
    with av.open(str(path)) as container:
        expected = [
            frame.reformat(101, 61, "rgb24", interpolation="BILINEAR", threads=1).to_ndarray()
            for frame in container.decode(video=0)
        ]
    assert clip.frames.shape == (8, 61, 101, 3)
    assert clip.display_size == (160, 96)
    assert (clip.frames[0] == expected[0]).all()
    assert (clip.frames[-1] == expected[-1]).all()


def test_a_clip_that_changes_size_keeps_the_first(tmp_path):
    path = tmp_path / "changing.webm"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for part, (width, height) in enumerate([(128, 96), (64, 64)]):
            encoder = av.codec.CodecContext.create("libvpx", "w")
            encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
            encoder.time_base, encoder.thread_count = Fraction(1, 1000), 1
            packets = []
            for index in range(5):
                frame = av.VideoFrame.from_ndarray(picture(index, width, height), format="rgb24")
                frame.pts, frame.time_base = part * 200 + index * 40, Fraction(1, 1000)
                packets += encoder.encode(frame.reformat(format="yuv420p"))
            for packet in [*packets, *encoder.encode(None)]:
                packet.stream = stream
                container.mux(packet)
    clip = ClipDecoder(config(num_frames=10))(path)
    assert clip.frames.shape == (10, 96, 128, 3)


# --- damage and lies -----------------------------------------------------------------------------


def cut_mp4(path, tmp_path) -> bytes:
    """The clip with its header in front, cut in the middle of its pictures."""
    whole = tmp_path / "faststart.mp4"
    with av.open(str(path)) as source, av.open(str(whole), "w", options={"movflags": "+faststart"}) as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    data = whole.read_bytes()
    return data[: len(data) // 2]


def test_a_cut_mp4_says_how_many_frames_are_left(tiny_clip, tmp_path):
    data = cut_mp4(tiny_clip(num_frames=60, sound=None, options={"g": "10"}), tmp_path)
    with pytest.raises(ClipError, match=r"is cut short: \d+ of 60 frames are in the file") as caught:
        ClipDecoder(config())(data, name="cut.mp4")
    assert (caught.value.stage, caught.value.clip) == ("container", "cut.mp4")


def test_a_cut_stream_that_promises_nothing_is_what_is_there(tiny_clip):
    data = tiny_clip("clip.ts", num_frames=60, sound=None, options={"g": "10"}).read_bytes()
    clip = ClipDecoder(config(num_frames=60))(data[: len(data) // 188 // 2 * 188])
    assert 10 < len(clip.frames) < 60


def test_damaged_pictures_are_an_error(tiny_clip):
    path = tiny_clip(num_frames=30, width=160, height=96, sound=None, options={"crf": "10"})
    data = path.read_bytes()
    for seed in range(5):
        damaged = bytearray(data)
        for at in np.random.default_rng(seed).integers(len(data) // 3, len(data) * 2 // 3, 40):
            damaged[at] ^= 0xFF
        with pytest.raises(ClipError) as caught:
            ClipDecoder(config(num_frames=30))(bytes(damaged))
        assert caught.value.stage == "decode"
        assert "\n" not in str(caught.value)


def test_a_header_that_lies_about_the_number_of_frames_is_not_believed(tiny_clip):
    data = tiny_clip("clip.avi", codec="mpeg4", num_frames=20, sound=None).read_bytes()
    at = data.find(b"avih") + 8 + 16
    lying = data[:at] + (5_000).to_bytes(4, "little") + data[at + 4 :]
    assert len(ClipDecoder(config(num_frames=32))(lying).frames) == 20


def test_frames_are_counted_against_the_limit_where_no_header_counts_them(tiny_clip):
    path = tiny_clip("clip.mkv", num_frames=30, sound=None)
    with pytest.raises(ClipError, match="30 frames; limits"):
        ClipDecoder(config(limits=LimitsConfig(max_frames=29)))(path)


@pytest.mark.slow
def test_mutated_clips_are_scored_or_reported(tiny_clip):
    streams = {"mp4": "libx264", "mkv": "libx264", "ts": "libx264", "flv": "libx264", "avi": "mpeg4"}
    for kind, codec in streams.items():
        data = tiny_clip(f"clip.{kind}", codec=codec, num_frames=20).read_bytes()
        for seed in range(30):
            random = np.random.default_rng(seed)
            mutated = bytearray(data)
            if seed % 3 == 0:
                mutated = mutated[: random.integers(len(mutated))]
            for at in random.integers(0, max(len(mutated), 1), 8 if len(mutated) else 0):
                mutated[at] = random.integers(256)
            try:
                clip = ClipDecoder(config(sound="spans"))(bytes(mutated), name="mutated")
            except ClipError:
                continue
            assert 1 <= len(clip.frames) <= 8


# --- windows -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_window_is_what_a_clip_cut_there_would_be(tmp_path):
    path = write_clip(tmp_path / "clip.mkv", pts=range(500, 10_500, 40), sound=tone(10.5, 16_000, 1))
    decoder = ClipDecoder(config(sound="spans", num_frames=4))
    everything = all_frames(path)
    windows = list(decoder.windows(path, 3.0, 2.0))
    assert [start for start, _ in windows] == pytest.approx([0.0, 2.0, 4.0, 6.0, 7.0])
    whole = ClipDecoder(config(sound="windows"))(path).sound[0]
    for start, clip in windows:
        assert clip.duration_seconds == pytest.approx(3.0)
        assert clip.frame_seconds == pytest.approx([0.0, 0.96, 1.96, 2.96])
        first = round(start * 25)
        assert (clip.frames[0] == everything[first]).all()
        assert clip.has_sound
        (run,) = clip.sound
        assert run.start_seconds == pytest.approx(0.0, abs=1e-4)
        assert clip.sound_seconds == pytest.approx(3.0)
        at = round((start - whole.start_seconds) * 16_000)
        assert np.abs(run.samples - whole.samples[at : at + len(run.samples)]).max() < 1e-3


def test_windows_take_their_sound_from_the_file_beside(tmp_path, tiny_clip):
    path = tiny_clip(num_frames=60, fps=15, sound=None)
    beside = tmp_path / "beside.wav"
    with wave.open(str(beside), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((click(3.1, 4.0) * 32767).astype(np.int16).tobytes())
    windows = list(ClipDecoder(config(sound="spans")).windows(path, 2.0, 1.0, sound=beside))
    assert [start for start, _ in windows] == [0.0, 1.0, 2.0]
    assert click_seconds(windows[2][1]) == pytest.approx(1.1, abs=1e-3)


def test_a_picture_that_stands_through_a_window_is_its_frame(tmp_path):
    path = write_clip(tmp_path / "still.mkv", pts=[0, 40, 80, 9000])
    windows = list(ClipDecoder(config(num_frames=4)).windows(path, 2.0, 2.0))
    assert [len(clip.frames) for _, clip in windows[:4]] == [3, 1, 1, 1]
    assert (windows[2][1].frames[0] == windows[0][1].frames[-1]).all()
    assert windows[2][1].frame_seconds == [0.0]


def test_the_last_picture_stands_through_windows_of_sound_alone(tmp_path):
    path = write_clip(tmp_path / "heard.mkv", pts=[0, 40, 80], sound=tone(5.0, 16_000, 1))
    windows = list(ClipDecoder(config(num_frames=4, sound="spans")).windows(path, 2.0, 2.0))
    assert [len(clip.frames) for _, clip in windows] == [3, 1, 1]
    assert all((clip.frames[0] == windows[0][1].frames[-1]).all() for _, clip in windows[1:])


def test_a_clip_shorter_than_a_window_is_one_window(tiny_clip):
    path = tiny_clip()
    ((start, window),) = ClipDecoder(config()).windows(path, 60, 30)
    clip = ClipDecoder(config())(path)
    assert start == 0.0
    assert np.array_equal(window.frames, clip.frames)
    assert window.duration_seconds == clip.duration_seconds


# --- the object ----------------------------------------------------------------------------------


def test_a_decoder_can_be_sent_to_a_worker(tiny_clip):
    path = tiny_clip()
    decoder = pickle.loads(pickle.dumps(ClipDecoder(config())))
    assert np.array_equal(decoder(path).frames, ClipDecoder(config())(path).frames)


def test_bytes_and_path_give_the_same(tiny_clip):
    path = tiny_clip()
    from_bytes = ClipDecoder(config(sound="spans"))(path.read_bytes(), name="a")
    from_path = ClipDecoder(config(sound="spans"))(str(path))
    assert np.array_equal(from_bytes.frames, from_path.frames)
    assert np.array_equal(from_bytes.sound[0].samples, from_path.sound[0].samples)
    assert (from_bytes.name, from_path.name) == ("a", str(path))


def test_action_units_are_handed_on(tiny_clip):
    units = np.ones((5, 27), np.float32)
    assert ClipDecoder(config())(tiny_clip(), action_units=units).action_units is units


@pytest.mark.parametrize("setting", [{"num_frames": 0}, {"max_side": 0}, {"span_seconds": 0.0}])
def test_settings_that_mean_nothing_are_refused(setting):
    with pytest.raises(ViperError, match=next(iter(setting))):
        ClipDecoder(config(**setting))


def test_windows_of_no_length_are_refused_at_once(tiny_clip):
    with pytest.raises(ViperError, match="must be more than 0"):
        ClipDecoder(config()).windows(tiny_clip(), 2.0, 0.0)


def test_nothing_is_left_open(tiny_clip, tmp_path):
    path = tiny_clip()
    open_files = len(list((tmp_path / "/proc/self/fd").iterdir()))
    windows = ClipDecoder(config(sound="spans")).windows(path, 0.5, 0.5)
    next(windows)
    windows.close()
    ClipDecoder(config(sound="spans"))(path)
    with pytest.raises(ClipError):
        ClipDecoder(config())(BytesIO(b"no clip").getvalue())
    assert len(list((tmp_path / "/proc/self/fd").iterdir())) == open_files
