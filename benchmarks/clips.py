"""clips.py: the clips that benchmarks are run on, made on the fly: a moving picture with grain, and a tone."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Colorspace

FPS = 30
X264 = {"preset": "medium", "bf": "3", "g": "60"}
SOUND_RATE = 44_100


def make_clip(
    path: Path,
    height: int,
    seconds: float,
    seed: int = 0,
    *,
    codec: str = "libx264",
    options: dict[str, str] = X264,
    sound: bool = True,
    face: bool = False,
) -> Path:
    """A 16:9 clip of a texture that pans, a disc that wanders over it, camera noise, and a tone in stereo.

    `face`: a photographed face (NASA portrait of Eileen Collins, from scikit-image) in place of the disc.
    """
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=FPS, options=options)
        video.width, video.height, video.pix_fmt = height * 16 // 9 // 2 * 2, height, "yuv420p"
        if height >= 720:
            video.codec_context.colorspace = Colorspace.ITU709
        webm = path.suffix == ".webm"
        audio = None
        if sound:
            rate = 48_000 if webm else SOUND_RATE
            audio = container.add_stream("libopus" if webm else "aac", rate=rate, layout="stereo")
        for index, image in enumerate(_pictures(height, round(seconds * FPS), seed, face)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if height >= 720:  # as cameras do; what says nothing is read anew for each player's guess
                frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            _write_tone(container, audio, seconds, seed)
    return path


def _pictures(height: int, count: int, seed: int, face: bool):
    rng, width = np.random.default_rng(seed), height * 16 // 9 // 2 * 2
    cell = max(2, height // 24)
    coarse = rng.integers(30, 200, (2 * height // cell + 2, 2 * width // cell + 2, 3)).astype(np.float32)
    texture = coarse.repeat(cell, 0).repeat(cell, 1)
    for axis in (0, 1):  # soft edges, as lenses make them
        total = np.cumsum(texture, axis)
        ahead = np.roll(total, -cell, axis)
        texture = np.abs(ahead - total) / cell
    texture = texture[: 2 * height, : 2 * width].clip(0, 235).astype(np.uint8)
    grain = rng.integers(0, 9, (height + 64, width + 64, 1), dtype=np.uint8)
    y, x = np.ogrid[:height, :width]
    portrait = _portrait(height * 3 // 5) if face else None
    for index in range(count):
        top = round(height * (0.25 + 0.2 * np.sin(index / 47)))
        left = round(width * (0.25 + 0.2 * np.sin(index / 61 + seed)))
        image = texture[top : top + height, left : left + width].copy()
        centre_y, centre_x = (0.5 + 0.2 * np.sin(index / 23)) * height, (0.5 + 0.3 * np.sin(index / 37)) * width
        if portrait is not None:
            y0, x0 = round(centre_y / 2), round(centre_x - len(portrait) / 2)
            image[y0 : y0 + len(portrait), x0 : x0 + len(portrait)] = portrait
        else:
            disc = (y - centre_y) ** 2 + (x - centre_x) ** 2 < (height / 5) ** 2
            image[disc] = image[disc] // 4 + np.array([140, 105, 90], np.uint8)
        dy, dx = rng.integers(0, 64, 2)
        yield image + grain[dy : dy + height, dx : dx + width]


def _portrait(side: int) -> np.ndarray:
    from PIL import Image
    from skimage import data

    image = Image.fromarray(data.astronaut()[:256, 96:352]).resize((side, side))
    return np.asarray(image).clip(0, 240)


def _write_tone(container, audio, seconds: float, seed: int) -> None:
    rate, size = audio.rate, audio.codec_context.frame_size or 1024
    t = np.arange(round(seconds * rate) // size * size) / rate
    tone = 0.3 * np.stack([np.sin(2 * np.pi * (120 + seed) * t), np.sin(2 * np.pi * 240 * t)])
    kind = audio.codec_context.format.name
    for start in range(0, tone.shape[1], size):
        block = tone[:, start : start + size]
        block = (block * 32767).astype(np.int16) if kind.startswith("s16") else block.astype(np.float32)
        if not kind.endswith("p"):
            block = block.T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format=kind, layout="stereo")
        frame.sample_rate, frame.pts = rate, start
        container.mux(audio.encode(frame))
    container.mux(audio.encode(None))


def lengthen(source: Path, target: Path, times: int) -> Path:
    """A long clip: the packets of a short one over and over, without encoding anything again."""
    with av.open(str(source)) as container:
        video = container.streams.video[0]
        length = Fraction(video.frames or round(video.duration * video.time_base * FPS), FPS)
    with av.open(str(target), "w") as out:
        streams: dict[int, av.stream.Stream] = {}
        last: dict[int, int] = {}
        for number in range(times):
            with av.open(str(source)) as container:
                for stream in container.streams:
                    if stream.index not in streams:
                        streams[stream.index] = out.add_stream_from_template(stream)
                for packet in container.demux():
                    if packet.dts is None:
                        continue
                    index, shift = packet.stream.index, round(number * length / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    # The sound of one round reaches into the next.
                    if packet.dts > last.get(index, -(10**9)):
                        last[index] = packet.dts
                        packet.stream = streams[index]
                        out.mux(packet)
    return target
