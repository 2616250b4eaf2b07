"""media.py: tiny real media made on the fly."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def picture(index: int, width: int, height: int) -> np.ndarray:
    """A frame whose content tells its number: a bright bar that moves over a gradient."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[..., 0] = np.linspace(0, 255, width, dtype=np.uint8)[None, :]
    frame[..., 1] = np.linspace(0, 255, height, dtype=np.uint8)[:, None]
    x = (index * 7) % (width - 8)
    frame[:, x : x + 8] = 255
    return frame


def tone(seconds: float, rate: int, channels: int, hertz: float = 440.0) -> np.ndarray:
    """float32 ``channels samples``: a tone a little quieter in each further channel."""
    t = np.arange(round(seconds * rate)) / rate
    return np.stack([0.5 / (c + 1) * np.sin(2 * np.pi * hertz * t) for c in range(channels)]).astype(np.float32)


@contextlib.contextmanager
def scheduling_kept() -> Iterator[None]:
    """SVT-AV1 started by root makes its caller a real-time thread, before which all else on a core waits."""
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


@scheduling_kept()
def make_clip(
    path: Path,
    *,
    num_frames: int = 30,
    fps: int = 15,
    width: int = 96,
    height: int = 64,
    frames: list[np.ndarray] | None = None,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    sound: np.ndarray | str | None = "tone",
    rate: int = 16_000,
    channels: int = 1,
    audio_codec: str = "aac",
    pix_fmt: str = "yuv420p",
) -> Path:
    """Write a small clip; ``sound=None`` leaves the audio stream out."""
    if frames is not None:
        num_frames, (height, width) = len(frames), frames[0].shape[:2]
    if isinstance(sound, str):
        sound = tone(num_frames / fps, rate, channels)
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=fps, options=options or {})
        video.width, video.height, video.pix_fmt = width, height, pix_fmt
        # Threads of libvpx spin while they wait for one another: for minutes where other tests take the cores.
        video.codec_context.thread_count = 1
        audio = None
        if sound is not None:
            layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(sound)]
            audio = container.add_stream(audio_codec, rate=rate, layout=layout)
            if audio_codec.startswith("wma"):
                audio.bit_rate = 64_000  # without it they do not open
        for index in range(num_frames):
            image = frames[index] if frames is not None else picture(index, width, height)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            block = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound), format="fltp", layout=layout)
            block.sample_rate, block.pts = rate, 0
            resampler = av.AudioResampler(format=audio.codec_context.format, layout=layout, rate=rate)
            fifo = av.AudioFifo()
            for piece in resampler.resample(block):
                fifo.write(piece)
            size = audio.codec_context.frame_size or 1024
            while (piece := fifo.read(size)) is not None:
                container.mux(audio.encode(piece))
            if (rest := fifo.read(partial=True)) is not None:
                container.mux(audio.encode(rest))
            container.mux(audio.encode(None))
    return path
