from __future__ import annotations

import importlib
import struct
from pathlib import Path

import av
import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image, ImageFont

from viper_e2e.config import DecodingConfig
from viper_e2e.decoding import ClipDecoder
from viper_e2e.errors import ClipError, ViperError
from viper_e2e.report import overlay
from viper_e2e.report.overlay import BoxTrack, bar_panel, draw_box
from viper_e2e.report.render import canvas_size, render

rendering = importlib.import_module("viper_e2e.report.render")  # the wing shows its function of that name
NAMES = ("adoration", "amusement", "anxiety", "disgust", "empathic_pain", "fear", "surprise")
GREY = [np.full((64, 96, 3), 60, np.uint8)] * 15


def record(**changes) -> dict:
    values = {
        "clip": "clip.mp4",
        "valid": True,
        "error": None,
        "intensities": dict(zip(NAMES, (0.72, 0.1, 0.05, 0.0, 0.33, 0.21, 0.98), strict=True)),
        "frame_seconds": [0.0, 0.5, 0.9],
        "boxes": [[8.0, 8.0, 40.0, 40.0, "detected"], [24.0, 8.0, 56.0, 40.0, "interpolated"], None],
    }
    return values | changes


def frames(path: Path) -> list[tuple[float, np.ndarray]]:
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def sound(path: Path) -> tuple[float, np.ndarray, int]:
    """Start in seconds, mono samples, rate."""
    with av.open(str(path)) as container:
        blocks = list(container.decode(audio=0))
        samples = np.concatenate([block.to_ndarray().mean(0) for block in blocks])
        return blocks[0].time, samples, blocks[0].sample_rate


def yellow(picture: np.ndarray) -> np.ndarray:
    r, g, b = picture.astype(int).transpose(2, 0, 1)
    return (r > 160) & (g > 130) & (b < 110)


def yellow_span(picture: np.ndarray) -> tuple[int, int]:
    columns = np.flatnonzero(yellow(picture).sum(0) > 40)
    return int(columns[0]), int(columns[-1])


def turned(path: Path, quarter: int) -> Path:
    """Write a display rotation into the video track's header of an mp4."""
    one = 1 << 16
    matrix = {
        1: (0, one, 0, -one, 0, 0, 64 * one, 0, 1 << 30),
        2: (-one, 0, 0, 0, -one, 0, 96 * one, 64 * one, 1 << 30),
        3: (0, -one, 0, one, 0, 0, 0, 96 * one, 1 << 30),
    }[quarter]
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)
    return path


def test_every_frame_and_its_time_stay(tiny_clip, tmp_path):
    clip = tiny_clip(num_frames=8, fps=12)
    out = render(clip, record(), tmp_path / "out.mp4")
    assert out == tmp_path / "out.mp4"
    assert [time for time, _ in frames(out)] == pytest.approx([time for time, _ in frames(clip)], abs=1e-3)
    assert {picture.shape for _, picture in frames(out)} == {(480, 720, 3)}
    assert [path.name for path in tmp_path.iterdir() if path != clip] == ["out.mp4"]


def test_the_box_follows_the_face_and_leaves_with_it(tiny_clip, tmp_path):
    out = render(tiny_clip(frames=GREY), record(), tmp_path / "out.mp4")
    pictures = [picture for _, picture in frames(out)]
    scale = 480 / 64
    for index, left in ((0, 8.0), (3, 8 + 16 * 0.2 / 0.5), (6, 8 + 16 * 0.4 / 0.5)):
        found = yellow_span(pictures[index])
        assert found == pytest.approx((left * scale, (left + 32) * scale), abs=5), index
    assert yellow(pictures[10]).any()
    assert not yellow(pictures[12]).any()


@pytest.mark.slow
def test_the_sound_is_kept_in_its_place(tiny_clip, tmp_path):
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100)[None].repeat(2, 0).astype(np.float32)
    clip = tiny_clip(sound=tone, rate=44_100)
    (start, samples, rate) = sound(render(clip, record(), tmp_path / "out.mp4"))
    source_start, source, source_rate = sound(clip)
    assert rate == source_rate
    assert start == pytest.approx(source_start, abs=0.03)
    assert len(samples) == pytest.approx(len(source), abs=3000)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    assert spectrum.argmax() * rate / len(samples) == pytest.approx(440, abs=3)
    assert samples[5000:35000].std() == pytest.approx(source[5000:35000].std(), rel=0.05)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("c.mov", {"sound": None}),
        ("c.mkv", {"audio_codec": "libopus", "rate": 48_000}),
        ("c.avi", {"codec": "mpeg4", "audio_codec": "pcm_s16le"}),
        ("c.webm", {"codec": "libvpx", "audio_codec": "libopus", "rate": 48_000}),
        ("c.mp4", {"rate": 8_000}),
        ("c.mp4", {"channels": 6, "rate": 48_000}),
        ("c.mp4", {"num_frames": 1}),
        ("c.mp4", {"width": 130, "height": 64}),
        ("c.mp4", {"width": 64, "height": 1080, "num_frames": 3}),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_what_can_be_scored_can_be_rendered(tiny_clip, tmp_path, name, options):
    clip = tiny_clip(name, **{"num_frames": 6} | options)
    out = render(clip, record(), tmp_path / "out.mp4")
    assert len(frames(out)) == len(frames(clip))
    with av.open(str(out)) as container:
        assert len(container.streams.audio) == (options.get("sound", "") is not None)


@pytest.mark.parametrize("quarter", [1, 2, 3])
def test_a_turned_clip_is_rendered_upright(tiny_clip, tmp_path, quarter):
    clip = turned(tiny_clip(sound=None, num_frames=3), quarter)
    seen = ClipDecoder(DecodingConfig(num_frames=2, sound="none"))(str(clip)).frames[0]
    out = render(clip, record(boxes=[None] * 3), tmp_path / "out.mp4")
    picture = Image.fromarray(frames(out)[0][1])
    assert picture.size == canvas_size(seen.shape[1], seen.shape[0])
    small = np.asarray(picture.resize((seen.shape[1], seen.shape[0]), Image.Resampling.BOX), float)
    upper = slice(0, seen.shape[0] // 2)
    assert np.abs(small - seen)[upper].mean() < 12
    assert np.abs(small - seen[::-1, ::-1])[upper].mean() > 24


@pytest.mark.slow
def test_a_face_box_of_a_real_clip_is_drawn_around_the_face(reference, tmp_path):
    clip = reference / "clips" / "single_face.mp4"
    box = [216.0, 83.0, 370.0, 297.0, "detected"]
    out = render(clip, record(frame_seconds=[0.0, 2.0], boxes=[box, box]), tmp_path / "out.mp4")
    shown = frames(out)
    assert len(shown) == 72
    scale = 480 / 360
    left, right = yellow_span(shown[40][1][:, 120:])  # further left is a yellow wall
    assert (120 + left, 120 + right) == pytest.approx((216 * scale, 370 * scale), abs=4)
    assert len(sound(out)[1]) / sound(out)[2] == pytest.approx(2.42, abs=0.05)


def windows() -> list[dict]:
    """Two windows of half a second with other numbers."""
    spans, values = ([0.0, 0.5], [0.5, 1.0]), (0.0, 1.0)
    return [
        record(window_seconds=span, intensities={"joy": value}, frame_seconds=[span[0]], boxes=[None])
        for span, value in zip(spans, values, strict=True)
    ]


def test_numbers_move_with_the_windows(tiny_clip, tmp_path):
    out = render(tiny_clip(frames=GREY), windows(), tmp_path / "out.mp4")
    blue = [(abs(p.astype(int) - (86, 180, 233)).sum(2) < 90).sum() for _, p in frames(out)]
    assert max(blue[:7]) < min(blue[9:]), "an empty bar, then a full one"


@pytest.mark.parametrize("encoder", ["libopenh264", "mpeg4"])
def test_another_encoder_takes_over_where_one_is_missing(tiny_clip, tmp_path, monkeypatch, caplog, encoder):
    known = dict(rendering.ENCODERS)
    try:
        av.codec.Codec(encoder, "w")
    except ValueError:
        pytest.skip(f"this FFmpeg has no {encoder}")
    monkeypatch.setattr(rendering, "ENCODERS", (("nosuchencoder", {}), (encoder, known[encoder])))
    clip = tiny_clip(num_frames=8, fps=12)
    out = render(clip, record(), tmp_path / "out.mp4")
    assert f"encoded with {encoder}, as this FFmpeg has no nosuchencoder" in caplog.text
    assert [time for time, _ in frames(out)] == pytest.approx([time for time, _ in frames(clip)], abs=2e-3)


def test_without_any_encoder_it_is_one_line(tiny_clip, tmp_path, monkeypatch):
    monkeypatch.setattr(rendering, "ENCODERS", (("nosuchencoder", {}),))
    with pytest.raises(ViperError, match="this FFmpeg encodes no video for mp4"):
        render(tiny_clip(), record(), tmp_path / "out.mp4")
    assert not list(tmp_path.glob("*out*"))


def test_names_that_are_not_ascii_can_be_read():
    panels = [bar_panel({name: 0.5}, (900, 900)) for name in ("Überraschung", "\uffffberraschung")]
    pixels = [np.asarray(panel) for panel in panels]
    assert pixels[0].shape != pixels[1].shape or (pixels[0] != pixels[1]).any(), "not the box of a missing sign"


def test_bars_begin_where_zero_is():
    pixels = np.asarray(bar_panel({"a": -0.5, "b": 0.5, "c": 0.0}, (900, 900), (-1.0, 1.0)).convert("RGB"))
    blue = abs(pixels.astype(int) - (86, 180, 233)).sum(2) < 10
    rows = [np.flatnonzero(blue[round((i + 0.5) * len(blue) / 3)]) for i in range(3)]
    assert rows[0].max() == pytest.approx(rows[1].min(), abs=5), "apart by the line at zero"
    assert len(rows[0]) == pytest.approx(len(rows[1]), abs=3)
    assert len(rows[2]) == 0


# --- the parts ------------------------------------------------------------------------------------


def test_between_two_instants_the_box_is_in_between():
    track = BoxTrack(record())
    assert track.at(0.0) == ((8, 8, 40, 40), False)
    box, interpolated = track.at(0.2)
    assert box == pytest.approx((14.4, 8, 46.4, 40))
    assert not interpolated
    assert track.at(0.4)[1]
    assert track.at(0.65)[0] == (24, 8, 56, 40)
    assert track.at(0.75) is None
    assert track.at(9.0) is None
    assert track.at(-1.0) == ((8, 8, 40, 40), False)


def test_a_clip_of_one_frame_has_its_box_all_along():
    track = BoxTrack(record(frame_seconds=[0.0], boxes=[[1.0, 2.0, 3.0, 4.0, "detected"]]))
    assert track.at(0.0) == track.at(5.0) == ((1, 2, 3, 4), False)


def test_interpolated_boxes_are_dashed():
    drawn = {}
    for dashed in (False, True):
        image = Image.new("RGB", (300, 300))
        draw_box(image, [50.0, 50.0, 250.0, 250.0], dashed=dashed)
        drawn[dashed] = yellow(np.asarray(image)).sum()
    assert 0.3 < drawn[True] / drawn[False] < 0.8


@pytest.mark.parametrize(
    "box", [[-50.0, -9.0, 400.0, 500.0], [5.0, 5.0, 5.0, 5.0], [299.0, 299.0, 320.0, 320.0]]
)
def test_a_box_beyond_the_picture_is_drawn_at_its_edge(box):
    image = Image.new("RGB", (300, 300))
    draw_box(image, box, dashed=False)
    assert yellow(np.asarray(image)).any()


@pytest.mark.parametrize("canvas", [(480, 480), (854, 480), (480, 854), (1280, 80), (16, 16)])
def test_the_panel_fits_into_the_picture_where_it_can_be_read(canvas):
    panel = bar_panel(record()["intensities"], canvas)
    if min(canvas) >= 80:
        assert panel.width <= canvas[0]
        assert panel.height <= canvas[1]


def test_bars_are_as_long_as_the_intensities():
    values = {"a": 0.0, "b": 0.5, "c": 1.0, "d": 7.0}
    pixels = np.asarray(bar_panel(values, (900, 900)).convert("RGB")).astype(int)
    blue = (abs(pixels - (86, 180, 233)).sum(2) < 10).sum(1)
    lengths = [blue[round((i + 0.5) * len(blue) / 4)] for i in range(4)]
    assert lengths[0] == 0
    assert lengths[1] == pytest.approx(lengths[2] / 2, abs=2)
    assert lengths[2] == lengths[3] > 50


@pytest.mark.parametrize(
    "size", [(64, 64), (176, 144), (640, 360), (3840, 2160), (1080, 1920), (4096, 64), (1, 1)]
)
def test_renderings_have_even_sides_and_a_useful_size(size):
    width, height = canvas_size(*size)
    assert width % 2 == height % 2 == 0
    assert max(width, height) <= 1280
    assert min(width, height) >= 16


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_out_that_cannot_be_is_a_one_line_error(tiny_clip, tmp_path):
    clip = tiny_clip()
    before = clip.read_bytes()
    for out, message in [
        (tmp_path / "out.gif", "renderings are mp4 files"),
        (tmp_path / "nowhere" / "out.mp4", "cannot be written"),
        (clip, "is the clip itself"),
    ]:
        with pytest.raises(ViperError, match=message):
            render(clip, record(), out)
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(ViperError, match="cannot be written"):
        render(clip, record(), tmp_path / "folder.mp4")
    assert clip.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "folder.mp4"]


def test_a_clip_that_cannot_be_read_leaves_nothing_behind(tiny_clip, tmp_path):
    with pytest.raises(ViperError, match="was not scored: no face in it"):
        render(tiny_clip(), record(valid=False, error="no face in it"), tmp_path / "out.mp4")
    text = tmp_path / "text.mp4"
    text.write_text("#EXTM3U\n/etc/passwd\n")
    with pytest.raises(ClipError):
        render(text, record(), tmp_path / "out.mp4")
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.slow
def test_a_clip_damaged_in_its_middle_is_rendered_as_far_as_it_goes(tiny_clip, tmp_path):
    clip = tiny_clip(num_frames=40, sound=None, options={"g": "5", "bf": "0"})
    data = bytearray(clip.read_bytes())
    middle = data.index(b"mdat") + 4 + 1500
    data[middle : middle + 400] = b"\xff" * 400
    clip.write_bytes(data)
    out = render(clip, record(), tmp_path / "out.mp4")
    assert len(frames(out)) >= 20


def test_names_are_drawn_in_a_font_that_has_their_letters(monkeypatch, caplog):
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    asked, drawn_in, truetype = [], set(), ImageFont.truetype
    monkeypatch.setattr(
        font_manager, "findSystemFonts", lambda: asked.append(1) or [str(fonts / "STIXGeneral.ttf")]
    )
    monkeypatch.setattr(
        ImageFont, "truetype", lambda file, size: drawn_in.add(Path(file).name) or truetype(file, size)
    )
    overlay.bar_panel({"überß": 0.5}, (640, 360))
    assert drawn_in == {"DejaVuSans.ttf"}
    assert not asked
    overlay.bar_panel({"\u1d84": 0.5}, (640, 360))
    assert drawn_in == {"DejaVuSans.ttf", "STIXGeneral.ttf"}
    assert not caplog.records
    for _ in range(2):
        overlay.bar_panel({"joy": 0.5, "喜び": 0.25}, (640, 360))
    (told,) = caplog.messages
    assert told.startswith("no font of this system has び 喜")
