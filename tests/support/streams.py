"""streams.py: clips of every codec and container, and clips with timestamps of their own."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from support.media import make_clip, picture
from viper_e2e.config import DecodingConfig

X264 = {"preset": "veryfast", "bf": "3", "g": "24", "sc_threshold": "0"}

STREAMS = {
    "mp4": ("libx264", X264),
    "mov": ("libx264", X264),
    "mkv": ("libx264", {"bf": "8", "g": "30", "x264-params": "b-pyramid=normal"}),
    "flv": ("libx264", X264),
    "ts": ("libx264", X264),
    "open gop mp4": ("libx264", {"bf": "3", "x264-params": "open-gop=1:keyint=20:scenecut=0"}),
    "open gop ts": ("libx264", {"bf": "3", "x264-params": "open-gop=1:keyint=20:scenecut=0"}),
    "intra refresh mp4": ("libx264", {"x264-params": "intra-refresh=1:keyint=20"}),
    "hevc mp4": ("libx265", {"x265-params": "log-level=none:keyint=24:pools=1"}),
    "hevc layers mp4": ("libx265", {"x265-params": "log-level=none:temporal-layers=3:bframes=7:pools=1"}),
    "vp8 webm": ("libvpx", {"cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "16", "g": "24"}),
    "vp9 webm": ("libvpx-vp9", {"cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "16", "g": "24"}),
    "av1 mp4": ("libsvtav1", {"preset": "13", "g": "24", "svtav1-params": "lp=1"}),
    "mpeg4 avi": ("mpeg4", {"bf": "2"}),
    "x264 avi": ("libx264", X264),
    "mpeg2 ts": ("mpeg2video", {"bf": "2"}),
    "flv1 flv": ("flv", {}),
}


def write_stream(folder: Path, kind: str) -> Path:
    """Three seconds of one of `STREAMS`, without sound."""
    codec, options = STREAMS[kind]
    path = folder / f"clip.{kind.split()[-1]}"
    return make_clip(path, num_frames=75, fps=25, codec=codec, options=options, sound=None)


def write_clip(
    path,
    *,
    pts=None,
    fps: int = 25,
    rotation: int = 0,
    size: tuple[int, int] = (96, 64),
    sound: np.ndarray | None = None,
    sound_pts: list[int] | None = None,
    audio_codec: str = "pcm_s16le",
    rate: int = 16_000,
    layout: str = "mono",
):
    """A clip with frames shown at `pts` (in 1/1000 s) and sound in blocks of 400 samples at `sound_pts`."""
    pts = range(0, 1000, 1000 // fps) if pts is None else pts
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=fps, options={"bf": "2", "preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            video.set_display_rotation(rotation)
        audio = None
        if sound is not None:
            audio = container.add_stream(audio_codec, rate=rate, layout=layout)
        for index, at in enumerate(pts):
            frame = av.VideoFrame.from_ndarray(picture(index, *size), format="rgb24")
            frame.pts, frame.time_base = at, Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            audio.codec_context.open(strict=False)
            block_size = audio.codec_context.frame_size or 400
            for number, start in enumerate(range(0, sound.shape[1], block_size)):
                data = np.ascontiguousarray(sound[:, start : start + block_size])
                block = av.AudioFrame.from_ndarray(data, format="fltp", layout=layout)
                block.sample_rate, block.time_base = rate, Fraction(1, rate)
                block.pts = start if sound_pts is None else sound_pts[number]
                for piece in av.AudioResampler(format=audio.codec_context.format).resample(block):
                    container.mux(audio.encode(piece))
            container.mux(audio.encode(None))
    return path


def config(**settings) -> DecodingConfig:
    """Of a decoder: pictures alone, at their own size, unless told otherwise."""
    return DecodingConfig(**{"num_frames": 8, "max_side": None, "sound": "none", **settings})
