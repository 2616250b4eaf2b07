"""What is opened and what is refused: containers, playlists, bombs, limits, torn files."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from support.bombs import one_large_frame
from support.containers import CODECS, box, boxes, put
from support.media import picture
from support.peak_memory import forget_peak, peak_mib

from viper_e2e.config import LimitsConfig
from viper_e2e.decoding import probe, sniff
from viper_e2e.decoding.container import open_clip
from viper_e2e.decoding.headers import check_mp4_tables
from viper_e2e.errors import ClipError

LIMITS = LimitsConfig()
CODECS |= {"avi": "mpeg4", "webm": "libvpx-vp9"}


# --- what a file is ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CODECS)
def test_a_container_is_told_by_its_content_whatever_its_name(kind, tiny_clip):
    sound = None if kind == "webm" else "tone"
    data = tiny_clip(f"clip.{kind}", codec=CODECS[kind], num_frames=4, sound=sound).read_bytes()
    assert sniff(data[:4096]) == kind
    info = probe(data, LIMITS)
    assert (info.container, info.width, info.height) == (kind, 96, 64)
    assert (info.audio_codec is None) == (sound is None)


def write_sound(path, samples, rate=16_000):
    with av.open(str(path), "w") as container:
        codec = "flac" if path.suffix == ".flac" else "pcm_s16le"
        stream = container.add_stream(codec, rate=rate, layout={1: "mono", 2: "stereo"}[len(samples)])
        data = (samples.T.reshape(1, -1) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(data, format="s16", layout=stream.layout)
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("kind", ["mkv", "mp4"])
def test_text_in_a_header_that_is_not_utf8_stops_nobody(kind, tmp_path, tiny_clip):
    with av.open(str(tiny_clip("plain.mp4", num_frames=4))) as plain:
        path = tmp_path / f"titled.{kind}"
        with av.open(str(path), "w") as titled:
            titled.metadata["title"] = "QQQQ"
            stream = titled.add_stream_from_template(plain.streams.video[0])
            for packet in plain.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    titled.mux(packet)
    data = path.read_bytes()
    assert b"QQQQ" in data
    assert probe(data.replace(b"QQQQ", b"caf\xe9"), LIMITS).num_frames == 4


NOT_CLIPS = {
    "empty": (b"", "is empty"),
    "hls": (b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\nhttp://127.0.0.1/a.ts\n", "HLS playlist"),
    "hls after a byte order mark": (b"\xef\xbb\xbf#EXTM3U\n/etc/passwd\n", "HLS playlist"),
    "dash": (b"<?xml version='1.0'?>\n<MPD xmlns='urn:mpeg:dash:schema:mpd:2011'>", "DASH playlist"),
    "ffconcat": (b"ffconcat version 1.0\nfile /etc/passwd\n", "ffconcat playlist"),
    "sdp": (b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n", "SDP"),
    "pls": (b"[playlist]\nFile1=http://127.0.0.1/\n", "PLS playlist"),
    "text": (b"this is no video, only words\n" * 20, "is text"),
    "html": (b"<html><body>404 not found</body></html>", "is text"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(64), "PNG picture"),
    "jpeg": (b"\xff\xd8\xff\xe0" + bytes(64), "JPEG picture"),
    "odd gif": (b"GIF88a" + bytes(64), "an odd GIF"),
    "webp": (b"RIFF\x40\0\0\0WEBPVP8 " + bytes(64), "WebP picture"),
    "heic": (box(b"ftyp", b"heic\0\0\0\0mif1heic") + bytes(64), r"a picture \(heic\)"),
    "avif": (box(b"ftyp", b"avif\0\0\0\0mif1avif") + bytes(64), r"a picture \(avif\)"),
    "mp3": (b"ID3\4\0\0" + bytes(64), r"holds only sound \(mp3\)"),
    "text in utf-16": (b"\xff\xfet\0e\0x\0t\0" * 8, "in no format we open"),
    "odd program stream": (b"\0\0\1\xba" + bytes(64), "MPEG program stream"),
    "odd asf": (b"\x30\x26\xb2\x75" + bytes(64), "odd Windows Media file"),
    "mxf": (
        bytes.fromhex("060e2b34020501010d01020101020400") + bytes(64),
        "an MXF file; convert it: ffmpeg -i",
    ),
    "real media": (b".RMF\0\0\0\x12" + bytes(64), "a RealMedia file; convert it: ffmpeg -i"),
    "bare h264": (bytes.fromhex("0000000167640 00b".replace(" ", "")) + bytes(64), "bare video stream"),
    "zip": (b"PK\3\4" + bytes(64), "zip archive"),
    "pickle": (b"\x80\4\x95" + bytes(64), "in no format we open"),
    "another ebml": (b"\x1a\x45\xdf\xa3\x84\x42\x82\x81x" + bytes(64), "in no format we open"),
    "one ts packet": (b"\x47" + bytes(187), "in no format we open"),
}


@pytest.mark.parametrize("case", NOT_CLIPS)
def test_what_is_no_clip_is_refused_by_name_before_ffmpeg_sees_it(case, monkeypatch):
    data, said = NOT_CLIPS[case]
    monkeypatch.setattr(av, "open", lambda *a, **k: pytest.fail("FFmpeg was asked"))
    with pytest.raises(ClipError, match=said) as caught:
        probe(data, LIMITS, name="clip.mp4")
    assert caught.value.stage == "container"
    assert str(caught.value).startswith("clip.mp4: ")
    assert "\n" not in str(caught.value)


def test_a_playlist_behind_a_true_beginning_opens_nothing(tmp_path):
    canary = tmp_path / "canary.ts"
    canary.write_bytes(b"\x47" * 188 * 10)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/a.ts"
        playlist = f"#EXTM3U\n#EXTINF:1,\n{address}\n#EXTINF:1,\n{canary}\n".encode()
        manifest = f"<MPD profiles='urn:mpeg:dash:profile:isoff-on-demand:2011'><BaseURL>{address}".encode()
        heads = (
            box(b"ftyp", b"isom\0\0\0\0isom"),
            struct.pack(">I4s", 0x41414141, b"free"),
            b"\x1a\x45\xdf\xa3\xa3\x42\x82\x84webm",
            b"FLV\x01\5\0\0\0\x09\0\0\0\0",
            b"OggS\0",
        )
        for head in heads:
            for text in (playlist, manifest):
                with pytest.raises(ClipError):
                    probe(head + text, LIMITS)
        with pytest.raises(BlockingIOError):
            listener.accept()


# --- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("max_bytes", 1000, "bytes; limits.max_bytes allows 1,000"),
        ("max_width", 95, "frames of 96×64"),
        ("max_height", 63, "frames of 96×64"),
        ("max_seconds", 0.9, "limits.max_seconds"),
        ("max_channels", 1, "2 audio channels"),
        ("min_sample_rate", 16_001, "sound at 16,000 Hz"),
        ("max_sample_rate", 15_999, "sound at 16,000 Hz"),
    ],
)
@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_each_limit_is_kept(setting, value, said, kind, tiny_clip):
    path = tiny_clip(f"clip.{kind}", channels=2)
    limits = LimitsConfig(**{setting: value})
    with pytest.raises(ClipError, match=said) as caught:
        probe(path, limits)
    assert caught.value.stage == "container"


def test_more_frames_than_the_limit_in_the_header_are_refused_by_the_header(tiny_clip):
    with pytest.raises(ClipError, match="30 frames; limits"):
        probe(tiny_clip(), LimitsConfig(max_frames=29))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mp4", "mkv", "flv", "ts"])
def test_a_picture_bomb_is_refused_before_a_frame_is_allocated(kind, tmp_path):
    path = tmp_path / f"bomb.{kind}"
    one_large_frame(path)
    forget_peak()
    before = peak_mib()
    with pytest.raises(ClipError, match="frames of 8192×4608"):
        probe(path, LIMITS)
    assert peak_mib() - before < 30


def test_tables_that_claim_millions_of_samples_cost_nothing(tiny_clip):
    data = tiny_clip(sound=None).read_bytes()
    count = 50_000_000
    data = put(data, boxes(data, b"stsz")[0] + 4, ">II", 1, count)
    data = put(data, boxes(data, b"stsc")[0] + 12, ">I", count)
    forget_peak()
    before = peak_mib()
    with pytest.raises(ClipError, match="claims 50,000,000 samples of 1 bytes"):
        probe(data, LIMITS)
    assert peak_mib() - before < 30


def test_a_claim_of_ten_hours_is_an_error_or_the_real_count(tiny_clip):
    data = tiny_clip(sound=None, num_frames=3).read_bytes().replace(b"edts", b"free")
    for at in (*boxes(data, b"mvhd"), *boxes(data, b"mdhd")):
        timescale = struct.unpack(">I", data[at + 12 : at + 16])[0]
        data = put(data, at + 16, ">I", 36_000 * timescale)
    data = put(data, boxes(data, b"stts")[0] + 12, ">I", 36_000 * 15_360 // 3)
    with pytest.raises(ClipError, match="36,000 seconds; limits"):
        probe(data, LIMITS)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (box(b"stsz", struct.pack(">III", 0, 1, 5000)), "claims 5,000 samples of 1 bytes in"),
        (box(b"moof", box(b"traf", box(b"trun", struct.pack(">II", 0x1, 2**31)))), "claims 2,147,483,648"),
        (box(b"moov", box(b"cmov", bytes(8))), "its header is compressed"),
        (box(b"moov", box(b"trak", box(b"edts", box(b"elst", bytes(4))))), "cut short inside its header"),
        (
            box(
                b"moov",
                box(
                    b"trak",
                    box(b"edts", box(b"elst", struct.pack(">II", 0, 10**6)))
                    + box(b"mdia", box(b"stsz", struct.pack(">III", 0, 0, 10**5))),
                ),
            ),
            "edit list of 1,000,000 entries",
        ),
    ],
)
def test_other_tables_that_would_grow_are_refused(table, said):
    head = box(b"ftyp", b"isom\0\0\0\0isom")
    with pytest.raises(ClipError, match=said):
        probe(head + table, LIMITS)


def test_uncompressed_sound_in_a_mov_is_no_bomb(tmp_path):
    path = tmp_path / "pcm.mov"
    write_with_pcm(path)
    # Its table says 16,000 samples of one size, many more than frames are allowed.
    assert probe(path, LimitsConfig(max_frames=100)).audio_codec == "pcm_s16le"


def write_with_pcm(path):
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for index in range(10):
            frame = av.VideoFrame.from_ndarray(picture(index, 96, 64), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 10)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        block = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.int16), format="s16", layout="mono")
        block.sample_rate = 16_000
        container.mux(audio.encode(block))
        container.mux(audio.encode(None))


# --- files that are not whole --------------------------------------------------------------------


def test_an_mp4_without_its_header_is_an_error(tiny_clip):
    data = tiny_clip().read_bytes()
    with pytest.raises(ClipError, match="cannot be read as mp4") as caught:
        probe(data[: len(data) // 2], LIMITS, name="cut.mp4")
    assert caught.value.stage == "container"


@pytest.mark.parametrize("kind", ["mkv", "webm", "avi"])
def test_a_container_that_says_its_length_is_held_to_it(kind, tiny_clip):
    sound = None if kind == "webm" else "tone"
    data = tiny_clip(f"clip.{kind}", codec=CODECS[kind], sound=sound).read_bytes()
    with pytest.raises(ClipError, match=r"is cut short: [\d,]+ of [\d,]+ bytes"):
        probe(data[:-100], LIMITS)


def test_a_path_that_is_no_file_is_an_error_of_reading(tmp_path):
    fifo = tmp_path / "pipe.mp4"
    os.mkfifo(fifo)
    for path in (tmp_path / "missing.mp4", tmp_path, fifo, "http://127.0.0.1/clip.mp4"):
        with pytest.raises(ClipError) as caught:
            probe(path, LIMITS)
        assert caught.value.stage == "read"
        assert str(path) in str(caught.value)


def test_a_file_without_pictures_is_an_error(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(ClipError, match=r"holds only sound \(mp4\), no pictures"):
        probe(path, LIMITS)


# --- what is told about a good one ---------------------------------------------------------------


def test_probe_tells_what_is_in_a_clip(tiny_clip):
    info = probe(tiny_clip(num_frames=30, fps=15, channels=2, rate=44_100), LIMITS)
    assert (info.video_codec, info.audio_codec, info.rotation) == ("h264", "aac", 0)
    assert (info.num_frames, info.sample_rate, info.channels) == (30, 44_100, 2)
    assert info.duration_seconds == pytest.approx(2.0, abs=0.1)


def test_probe_gives_the_size_after_rotation(tmp_path):
    path = tmp_path / "portrait.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.set_display_rotation(90)
        frame = av.VideoFrame.from_ndarray(picture(0, 96, 64), format="rgb24")
        frame.pts, frame.time_base = 0, Fraction(1, 10)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    info = probe(path, LIMITS)
    assert (info.rotation, info.width, info.height) == (90, 64, 96)


@pytest.mark.slow
def test_a_path_is_read_piece_by_piece(tiny_clip, monkeypatch):
    path = tiny_clip(num_frames=200, width=320, height=240, options={"crf": "10"})
    sizes = []

    class Counting(io.BufferedReader):
        def read(self, size=-1):
            sizes.append(size)
            return super().read(size)

    monkeypatch.setattr(type(path), "open", lambda self, mode: Counting(io.FileIO(self)))
    with open_clip(path, LIMITS) as media:
        assert sum(1 for _ in media.packets(media.video)) == 200
    assert max(sizes) <= 64 * 1024
    assert min(sizes) >= 0


@pytest.mark.parametrize(("ticks", "is_refused"), [(1, False), (1024, True)])
def test_samples_that_are_indexed_one_by_one_are_counted(ticks, is_refused):
    """FFmpeg indexes uncompressed sound by chunk where a sample takes one tick; all else sample by sample."""
    handler = box(b"hdlr", bytes(8) + b"soun" + bytes(12))
    times = box(b"stts", struct.pack(">4xIII", 1, 5000, ticks))
    sizes = box(b"stsz", struct.pack(">4xII", 1, 5000))
    media = box(b"mdia", handler + box(b"minf", box(b"stbl", times + sizes)))
    data = box(b"moov", box(b"trak", media)) + box(b"mdat", bytes(5000))
    with pytest.raises(ClipError, match="5,000") if is_refused else contextlib.nullcontext():
        check_mp4_tables(io.BytesIO(data), len(data), 1000, "a.mov")
