"""What a player shows is what we see: among several tracks, midway, of fields and HDR, in every room."""

from __future__ import annotations

import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut
from support.media import make_clip
from support.odd_clips import (
    B_FRAMES,
    INTERLACED,
    MPEG2,
    SHOWN,
    VP9,
    WHOLE,
    X264,
    X265,
    agreement,
    ffmpeg,
    hdr,
    hdr_flags,
    shown_by_ffmpeg,
)

from viper_e2e.commands.cli import main
from viper_e2e.config import DecodingConfig, LimitsConfig
from viper_e2e.decoding import ClipDecoder, probe
from viper_e2e.decoding.decord import import_decord
from viper_e2e.decoding.torchcodec import import_torchcodec
from viper_e2e.errors import ClipError, ViperError
from viper_e2e.packing import pack
from viper_e2e.report.render import render
from viper_e2e.tables import write_labels

LIMITS = LimitsConfig()


def decoded(path, **settings):
    return ClipDecoder(DecodingConfig(**{"num_frames": 400, "max_side": None, "sound": "none", **settings}))(
        path
    )


def colour(path, size="96x64", hue="red", seconds=0.4, *words) -> None:
    ffmpeg(
        "-f", "lavfi", "-i", f"color={hue}:size={size}:rate=10:duration={seconds}", *X264.split(), *words, path
    )


def hue_of(frame: np.ndarray) -> str:
    means = dict(zip(("red", "green", "blue"), frame.reshape(-1, 3).mean(0), strict=True))
    return max(means, key=means.get)


# --- several tracks -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hues(tmp_path_factory):
    """Clips of one colour: red 96×64, green 128×96, blue 96×64, and a cover picture."""
    folder = tmp_path_factory.mktemp("hues")
    for hue, size in (("red", "96x64"), ("lime", "128x96"), ("blue", "96x64")):
        colour(folder / f"{hue}.mp4", size, hue)
    ffmpeg("-f", "lavfi", "-i", "color=white:size=300x300", "-frames:v", 1, folder / "cover.png")
    return folder


def joined(hues, path, names, *words) -> str:
    inputs = [word for name in names for word in ("-i", hues / name)]
    maps = [word for i in range(len(names)) for word in ("-map", i)]
    ffmpeg(*inputs, *maps, "-c", "copy", *words, path)
    return path


@pytest.mark.parametrize("ending", ["mkv", "mp4", "mov"])
@pytest.mark.parametrize(
    ("names", "words", "expected"),
    [
        (["red.mp4", "blue.mp4"], "-disposition:v:0 0 -disposition:v:1 default", "blue"),
        (["red.mp4", "blue.mp4"], "-disposition:v:0 default -disposition:v:1 0", "red"),
        (["red.mp4", "lime.mp4"], "-disposition:v:0 default -disposition:v:1 default", "green"),
        (["red.mp4", "lime.mp4"], "-disposition:v:0 default -disposition:v:1 0", "red"),
        (["blue.mp4", "red.mp4"], "-disposition:v:0 default -disposition:v:1 default", "blue"),
    ],
)
def test_the_default_track_is_looked_at_and_of_several_the_largest(
    names, words, expected, ending, hues, tmp_path
):
    path = joined(hues, tmp_path / f"two.{ending}", names, *words.split())
    clip = decoded(path)
    assert hue_of(clip.frames[0]) == expected
    (note,) = clip.notes
    assert "of 2 video tracks" in note
    assert "--video-track" in note
    assert probe(path, LIMITS).notes == clip.notes


def test_a_track_can_be_named(hues, tmp_path):
    path = joined(hues, tmp_path / "three.mkv", ["red.mp4", "lime.mp4", "blue.mp4"])
    for number, hue in enumerate(("red", "green", "blue"), 1):
        clip = decoded(path, video_track=number)
        assert hue_of(clip.frames[0]) == hue
        assert f"video tracks {number} (" in clip.notes[0]
        info = probe(path, LIMITS, video_track=number)
        assert (info.width, info.height) == clip.display_size == ((128, 96) if hue == "green" else (96, 64))
    with pytest.raises(ClipError, match=r"has no video track 4, only 1 \(96×64 h264\), 2 \(128×96 h264\), 3"):
        decoded(path, video_track=4)
    with pytest.raises(ViperError, match="counted from 1"):
        decoded(path, video_track=0)


@pytest.mark.parametrize("first", [True, False])
def test_a_cover_is_no_track(first, hues, tmp_path):
    names = ["cover.png", "red.mp4"] if first else ["red.mp4", "cover.png"]
    cover = 0 if first else 1
    path = joined(hues, tmp_path / "covered.mp4", names, f"-disposition:v:{cover}", "attached_pic")
    clip = decoded(path)
    assert hue_of(clip.frames[0]) == "red"
    assert clip.notes == ()
    assert hue_of(decoded(path, video_track=1).frames[0]) == "red"


def test_two_programs_of_a_stream_are_two_tracks(hues, tmp_path):
    words = ["-program", "program_num=1:st=0", "-program", "program_num=2:st=1"]
    path = joined(hues, tmp_path / "two.ts", ["red.mp4", "blue.mp4"], *words)
    assert hue_of(decoded(path).frames[0]) == "red"
    assert hue_of(decoded(path, video_track=2).frames[0]) == "blue"


@pytest.mark.parametrize("backend", ["decord", "torchcodec"])
def test_every_backend_looks_at_the_same_track(backend, hues, tmp_path):
    available(backend)
    path = joined(hues, tmp_path / "two.mp4", ["red.mp4", "lime.mp4"])
    for number in (1, 2, None):
        clip = decoded(path, video_track=number, backend=backend)
        assert hue_of(clip.frames[0]) == ("red" if number == 1 else "green")
        assert clip.notes == decoded(path, video_track=number).notes


@pytest.mark.slow
def test_check_names_the_tracks_and_takes_the_option(hues, tmp_path, capsys):
    (tmp_path / "videos").mkdir()
    joined(hues, tmp_path / "videos" / "screen.mkv", ["lime.mp4", "red.mp4"])
    write_labels(tmp_path / "labels.csv", [{"File_ID": "screen", "Split": "train", "fear": 0.5}])
    pack(tmp_path / "videos", tmp_path / "labels.csv", tmp_path / "shards")
    assert main(["check", "--shards", str(tmp_path / "shards" / "*.tar"), "--video-track", "2"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "screen: of 2 video tracks 2 (96×64 h264) was used, not 1 (128×96 h264)" in told


def test_transparency_beside_the_picture_is_told(tmp_path):
    source = "testsrc2=size=96x64:rate=25:duration=0.2,format=yuva420p"
    ffmpeg("-f", "lavfi", "-i", source, *VP9.split(), "-pix_fmt", "yuva420p", tmp_path / "clip.webm")
    assert decoded(tmp_path / "clip.webm").notes == (
        "the transparency that its file keeps beside the picture was not used",
    )


# --- a picture that changes midway ------------------------------------------------------------------


def disc(width: int, height: int) -> np.ndarray:
    """A white disc in the middle of grey."""
    y, x = np.ogrid[:height, :width]
    inside = (x - width / 2) ** 2 + (y - height / 2) ** 2 < (min(width, height) / 3) ** 2
    return np.where(inside[..., None], np.uint8(255), np.uint8(90)) * np.ones(3, np.uint8)


def changing(path, sizes, codec: str = "libvpx-vp9"):
    """A clip of five frames of each size, in one track."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = *sizes[0], "yuv420p"
        for part, (width, height) in enumerate(sizes):
            encoder = av.codec.CodecContext.create(codec, "w")
            encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
            encoder.time_base, encoder.thread_count = Fraction(1, 1000), 1
            packets = []
            for index in range(5):
                frame = av.VideoFrame.from_ndarray(disc(width, height), format="rgb24")
                frame.pts, frame.time_base = part * 200 + index * 40, Fraction(1, 1000)
                packets += encoder.encode(frame.reformat(format="yuv420p"))
            for packet in [*packets, *encoder.encode(None)]:
                packet.stream = stream
                container.mux(packet)
    return path


def chained(folder, count: int):
    """``0.ts``, ``1.ts`` … one behind the other in one file."""
    (folder / "list.txt").write_text("".join(f"file {number}.ts\n" for number in range(count)))
    ffmpeg("-f", "concat", "-i", folder / "list.txt", "-c", "copy", folder / "chained.ts")
    return folder / "chained.ts"


def roundness(frame: np.ndarray) -> float:
    """Width of the disc over its height."""
    white = (frame > 180).all(-1)
    return np.count_nonzero(white.any(0)) / np.count_nonzero(white.any(1))


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
@pytest.mark.parametrize("max_side", [None, 100])
def test_a_picture_that_turns_midway_is_never_stretched(codec, max_side, tmp_path):
    path = changing(tmp_path / "turned.webm", [(160, 96), (96, 160), (80, 48)], codec)
    clip = decoded(path, max_side=max_side)
    assert clip.display_size == (160, 96)
    assert len(clip.frames) == 15
    assert all(0.9 < roundness(frame) < 1.1 for frame in clip.frames)
    # The smaller of the same shape fills the picture, the upright one stands in its middle.
    width = clip.frames.shape[2]
    assert (clip.frames[12] > 60).all()
    beside = round((width - width * 0.6 * 0.6) / 2) - 2
    assert (clip.frames[7][:, :beside] == 0).all()
    assert (clip.frames[7][:, -beside:] == 0).all()
    assert clip.notes == (
        "the picture changes midway from 160×96 to 96×160, which is shown inside the first between black bars",
    )


def test_pixels_that_change_shape_midway_are_followed(tmp_path):
    for number, shape in enumerate(("16:9", "4:3")):
        source = f"testsrc2=size=128x96:rate=25:duration=0.6,hue=h={90 * number}"
        words = f"{MPEG2} -bf 2 -aspect {shape}"
        ffmpeg("-f", "lavfi", "-i", source, *words.split(), tmp_path / f"{number}.ts")
    clip = decoded(chained(tmp_path, 2))
    assert clip.display_size == (170, 96)
    assert len(clip.frames) == 30
    has_bars = [bool((frame[:, :10] < 20).all()) for frame in clip.frames]
    assert has_bars == [False] * 15 + [True] * 15
    (note,) = clip.notes
    assert "from 170×96 to 128×96" in note


def test_a_rendering_of_a_turned_picture_is_fitted_alike(tmp_path):
    path = changing(tmp_path / "turned.webm", [(160, 96), (96, 160)])
    out = rendered(path, tmp_path)
    assert all(0.9 < roundness(frame[: frame.shape[0] * 9 // 10]) < 1.1 for frame in out)


def record(num_frames: int = 1) -> dict:
    return {
        "clip": "clip.mp4",
        "valid": True,
        "error": None,
        "intensities": {"fear": 0.0},
        "frame_seconds": [float(i) for i in range(num_frames)],
        "boxes": [None] * num_frames,
    }


def rendered(path, folder, **options) -> list[np.ndarray]:
    out = render(path, record(), folder / "out.mp4", **options)
    with av.open(str(out)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


# --- rendering --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("filters", "words", "copied"),
    [
        ("null", X264, "-display_hflip"),
        ("null", X264, "-display_rotation 90 -display_hflip"),
        ("setsar=2/1", X264, ""),
        ("setsar=4/3", X264, "-display_rotation 90"),
        (INTERLACED.format("tff"), f"{MPEG2} -flags +ildct+ilme", ""),
    ],
)
def test_a_rendering_shows_what_was_scored(filters, words, copied, tmp_path):
    path = tmp_path / "clip.mkv" if "mpeg2" in words else tmp_path / "clip.mp4"
    first = path.with_stem("first")
    source = "testsrc2=size=160x120:rate=25:duration=0.4"
    ffmpeg("-f", "lavfi", "-i", source, "-vf", filters, *words.split(), first)
    ffmpeg(*copied.split(), "-i", first, "-c", "copy", path)
    clip, frames = decoded(path), rendered(path, tmp_path)
    assert len(frames) == len(clip.frames)
    for ours, shown in zip(clip.frames, frames, strict=True):
        height, width = ours.shape[:2]
        small = np.asarray(Image.fromarray(shown).resize((width, height), Image.Resampling.BOX))
        upper = slice(0, height // 2)  # the panel is below
        assert agreement(ours[upper], small[upper]) > 0.98


# --- HDR --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
@pytest.mark.parametrize("size", ["256", "96"])
def test_hdr_looks_as_the_sdr_original(transfer, size, tmp_path):
    original = Image.fromarray(astronaut()).resize((256, 256))
    original.save(tmp_path / "face.png")
    words = f"{X265} -pix_fmt yuv420p10le {hdr_flags(transfer)}"
    ffmpeg("-i", tmp_path / "face.png", "-vf", hdr(transfer), *words.split(), tmp_path / "face.mp4")
    (ours,) = decoded(tmp_path / "face.mp4", max_side=int(size)).frames
    original = np.asarray(original.resize((int(size),) * 2, Image.Resampling.BOX))
    assert agreement(ours, original) > 0.99
    assert ours.mean() == pytest.approx(original.mean(), rel=0.04)
    assert ours.std() == pytest.approx(original.std(), rel=0.06)


def test_light_brighter_than_white_keeps_its_hue_and_order(tmp_path):
    """A ramp to the peak: rising, without steps back, black black and the peak white."""
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None, :, None].repeat(64, 0).repeat(3, 2)
    frame = av.VideoFrame.from_ndarray(ramp, format="rgb48le")
    from viper_e2e.decoding.colour import tone_mapped

    for transfer in (16, 18):
        frame.color_trc = transfer
        mapped = tone_mapped(ramp, frame)[0]
        assert (np.diff(mapped[:, 0].astype(int)) >= 0).all()
        assert (np.ptp(mapped.astype(int), axis=1) <= 1).all()
        assert mapped[0, 0] == 0
        assert mapped[-1, 0] == 255


# --- fields -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_progressive_and_interlaced_frames_may_alternate(tmp_path):
    """As broadcasts have it: each frame by its own flag, the neighbours of wanted frames at hand throughout."""
    for number, (filters, words) in enumerate(
        [("null", ""), (INTERLACED.format("tff"), "-flags +ildct+ilme"), ("null", "")]
    ):
        rate = 50 if words else 25
        source = f"testsrc2=size=160x120:rate={rate}:duration=0.8,hue=h={80 * number},{filters}"
        coded = f"{MPEG2} -bf 2 -g 12 {words}"
        ffmpeg("-f", "lavfi", "-i", source, *coded.split(), tmp_path / f"{number}.ts")
    path = chained(tmp_path, 3)
    truth = shown_by_ffmpeg(path, f"{WHOLE},{SHOWN}")
    clip = decoded(path)
    assert len(clip.frames) == len(truth) == 60
    # The last frame of a part is followed by one of another clip: FFmpeg weaves the same.
    assert min(agreement(ours, theirs) for ours, theirs in zip(clip.frames, truth, strict=True)) > 0.99
    for num_frames in (3, 7, 11):
        few = decoded(path, num_frames=num_frames)
        places = np.searchsorted(clip.frame_seconds, few.frame_seconds)
        assert (few.frames == clip.frames[places]).all()
    windows = list(
        ClipDecoder(DecodingConfig(num_frames=3, max_side=None, sound="none")).windows(path, 0.5, 0.25)
    )
    for start, part in windows:
        places = np.searchsorted(clip.frame_seconds, part.frame_seconds + start - 1e-6)
        assert (part.frames == clip.frames[places]).all()


def test_a_face_in_motion_has_no_combs(tmp_path):
    """Lines of odd and even number, which were filmed apart, are alike again."""
    face = Image.fromarray(astronaut()[:256, 96:352]).resize((160, 160))
    face.save(tmp_path / "face.png")
    moving = "crop=128:128:x='n*4':y=16,interlace=lowpass=0"
    coded = f"{B_FRAMES} -flags +ildct+ilme -x264opts tff"
    source = ["-loop", "1", "-r", "50", "-t", "0.16", "-i", tmp_path / "face.png"]
    ffmpeg(*source, "-vf", moving, *coded.split(), tmp_path / "face.mkv")
    clip = decoded(tmp_path / "face.mkv")
    with av.open(str(tmp_path / "face.mkv")) as container:
        stored = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]

    def combs(frame: np.ndarray) -> float:
        lines = frame.astype(float).mean(-1)
        return np.abs(lines[1:-1] - (lines[:-2] + lines[2:]) / 2).mean()

    for ours, woven in zip(clip.frames, stored, strict=True):
        assert combs(ours) < 0.5 * combs(woven)


def test_progressive_pictures_are_bit_for_bit_what_the_decoder_gives(tmp_path):
    path = make_clip(tmp_path / "clip.mp4", num_frames=40, options={"bf": "3", "g": "12"}, sound=None)
    with av.open(str(path)) as container:
        expected = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert (decoded(path).frames == np.stack(expected)).all()


# --- other backends ---------------------------------------------------------------------------------


def available(backend: str) -> None:
    try:
        {"decord": import_decord, "torchcodec": import_torchcodec}[backend]()
    except ViperError as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["decord", "torchcodec"])
@pytest.mark.parametrize(
    ("filters", "words", "copied", "size"),
    [
        ("null", X264, "-display_hflip", "96x64"),
        ("null", X264, "-display_vflip", "96x64"),
        ("null", X264, "-display_rotation 90 -display_hflip", "96x64"),
        ("null", X264, "-display_rotation 90", "96x64"),
        ("setsar=4/3", X264, "", "96x64"),
        ("setsar=4/3", VP9, "", "96x64"),
        ("null", X264, "", "1280x64"),
        (INTERLACED.format("tff"), f"{B_FRAMES} -flags +ildct+ilme -x264opts tff", "", "96x64"),
        (hdr("smpte2084"), f"{X265} -pix_fmt yuv420p10le {hdr_flags('smpte2084')}", "", "96x64"),
        ("format=rgba,colorchannelmixer=aa=0.5", "-c:v png", "", "96x64"),
    ],
)
def test_other_backends_show_the_same_or_leave_it(filters, words, copied, size, backend, tmp_path):
    available(backend)
    path = tmp_path / "clip.mov" if "png" in words else tmp_path / "clip.mp4"
    first = path.with_stem("first")
    source = f"testsrc2=size={size}:rate=25:duration=0.4"
    ffmpeg("-f", "lavfi", "-i", source, "-vf", filters, *words.split(), first)
    ffmpeg(*copied.split(), "-i", first, "-c", "copy", path)
    ours, theirs = decoded(path), decoded(path, backend=backend)
    assert theirs.display_size == ours.display_size
    assert (np.asarray(theirs.frames) == ours.frames).all()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["decord", "torchcodec"])
@pytest.mark.parametrize("change", ["size", "fields", "webm"])
def test_other_backends_leave_what_changes_midway(change, backend, tmp_path):
    available(backend)
    path = tmp_path / "clip.mp4"
    if change == "webm":
        path = changing(tmp_path / "turned.webm", [(160, 96), (96, 160)])
    else:
        sizes = ("160x96", "96x160") if change == "size" else ("160x96", "160x96")
        second = (
            [B_FRAMES]
            if change == "size"
            else ["-vf", "interlace", B_FRAMES, "-flags +ildct+ilme -x264opts tff"]
        )
        for number, (size, words) in enumerate(zip(sizes, ([B_FRAMES], second), strict=True)):
            source = f"testsrc2=size={size}:rate=25:duration=0.6"
            ffmpeg("-f", "lavfi", "-i", source, *" ".join(words).split(), tmp_path / f"{number}.ts")
        ffmpeg("-i", chained(tmp_path, 2), "-c", "copy", path)
    ours, theirs = decoded(path), decoded(path, backend=backend)
    assert (np.asarray(theirs.frames) == ours.frames).all()
    assert theirs.notes == ours.notes


# --- cropping ---------------------------------------------------------------------------------------


def with_clean_aperture(path, width: int, height: int, left: int, top: int) -> None:
    """Write into an mp4 of one track that only a middle part is shown, so far off the middle."""
    data = bytearray(path.read_bytes())
    at = data.index(b"avc1", data.index(b"stsd")) - 4
    size = struct.unpack_from(">I", data, at)[0]
    data[at + size : at + size] = struct.pack(">I4s8i", 40, b"clap", width, 1, height, 1, left, 1, top, 1)
    parents = [data.rindex(name, 0, at) - 4 for name in (b"stsd", b"stbl", b"minf", b"mdia", b"trak", b"moov")]
    for place in [at, *parents]:
        struct.pack_into(">I", data, place, struct.unpack_from(">I", data, place)[0] + 40)
    path.write_bytes(data)


@pytest.mark.parametrize("copied", ["mp4", "mov", "mkv", "turned.mp4"])
@pytest.mark.parametrize("offset", [(0, 0), (8, -4)])
def test_edges_that_the_container_leaves_out_are_left_out(copied, offset, tmp_path):
    path = tmp_path / "whole.mp4"
    source = "testsrc2=size=160x120:rate=25:duration=0.4"
    ffmpeg("-f", "lavfi", "-i", source, *B_FRAMES.split(), path)
    with_clean_aperture(path, 128, 96, *offset)
    if copied != "mp4":
        turn = ["-display_rotation", "90"] if "turned" in copied else []
        ffmpeg(*turn, "-i", path, "-c", "copy", tmp_path / f"copy.{copied}")
        path = tmp_path / f"copy.{copied}"
    truth, clip = shown_by_ffmpeg(path), decoded(path)
    assert clip.display_size == truth[0].shape[1::-1]
    assert clip.display_size == ((96, 128) if "turned" in copied else (128, 96))
    info = probe(path, LIMITS)
    assert (info.width, info.height) == clip.display_size
    assert min(agreement(ours, theirs) for ours, theirs in zip(clip.frames, truth, strict=True)) > 0.99
    assert (decoded(path, num_frames=3).frames[-1] == clip.frames[-1]).all()


# --- limits -----------------------------------------------------------------------------------------


def test_flat_pixels_make_no_picture_larger_than_allowed(tmp_path):
    path = tmp_path / "flat.mp4"
    ffmpeg(
        "-f", "lavfi", "-i", "testsrc2=size=96x64:rate=25:duration=0.2", *X264.split(), tmp_path / "first.mp4"
    )
    ffmpeg("-i", tmp_path / "first.mp4", "-c", "copy", "-aspect", "300:1", path)
    clip = decoded(path, max_side=640)
    assert clip.display_size == (16320, 64)
    assert clip.frames.shape[1:3] == (3, 640)
    with pytest.raises(ClipError, match="has frames of 16320×64"):
        decoded(path)
