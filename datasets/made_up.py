"""made_up.py: folders laid out as a corpus is, with generated clips in place of recordings.

A recipe writes one with `python datasets/NAME.py --make-fake DIR`: its layout and its oddities without any of
its content, to see what packing says before the corpus is there, and for tests. Clips are grey pictures and a
tone; files of one kind share their bytes.
"""

from __future__ import annotations

import csv
import io
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path

KINDS = {
    # ending: (container, picture, sound)
    "mp4": ("mp4", "libx264", "aac"),
    "mov": ("mov", "libx264", "aac"),
    "avi": ("avi", "mpeg4", "pcm_s16le"),
    "flv": ("flv", "flv1", "pcm_s16le"),
    "m4a": ("mp4", "", "aac"),
    "wav": ("wav", "", "pcm_s16le"),
}
SHADES = 3
"""So many different clips are made of each kind, one after the other: of equal ones nothing is learned."""
SHORT_SECONDS = 1.0
"""A longer one is like no other: what is cut out of it has no head of its own."""


class Tree:
    """A folder that is being filled."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._count = 0

    def clip(
        self,
        path: str,
        seconds: float = 0.5,
        sound: float | None = 0.5,
        channels: int = 1,
        fps: str = "8",
        sides: bool = False,
    ) -> None:
        """A clip of the kind that its ending tells; ``sound`` is how many seconds of it there are, or none.

        ``sides``: twice as wide, with a brighter right half.
        """
        self._count += 1
        kind = path.rpartition(".")[2].lower()
        shade = self._count if seconds > SHORT_SECONDS else self._count % SHADES
        made = media(kind, shade, seconds, sound, channels, fps, sides)
        self.data(path, numbered(made, self._count))

    def clips(self, paths: Iterable[str]) -> None:
        for path in paths:
            self.clip(path)

    def broken(self, path: str) -> None:
        """A clip of which half is missing."""
        whole = media(path.rpartition(".")[2].lower(), 0, 0.5, 0.5, 1, "8", False)
        self.data(path, whole[: len(whole) // 2])

    def data(self, path: str, data: bytes) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    def text(self, path: str, text: str, encoding: str = "utf-8", newline: str = "\n") -> None:
        self.data(path, text.replace("\n", newline).encode(encoding))

    def table(
        self,
        path: str,
        rows: Sequence[Mapping[str, object]],
        *,
        encoding: str = "utf-8",
        newline: str = "\n",
    ) -> None:
        """A csv file with a line of titles; ``utf-8-sig`` begins with a byte order mark."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.text(path, text.getvalue(), encoding, newline)


def numbered(data: bytes, number: int) -> bytes:
    """The clip with another version of its writer: packing and `viper check` tell files with equal bytes."""
    return re.sub(rb"Lavf[0-9.]+", lambda found: b"Lavf%0*d" % (len(found[0]) - 4, number), data, count=1)


@cache
def media(
    kind: str, shade: int, seconds: float, sound: float | None, channels: int, fps: str, sides: bool
) -> bytes:
    """A file of one of `KINDS`. PyAV is loaded here, so that packing by a recipe does not wait for it."""
    import av
    import numpy as np

    container, codec, audio_codec = KINDS[kind]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"clip.{kind}"
        with av.open(str(path), "w", format=container) as file:
            if codec:
                video = file.add_stream(codec, rate=Fraction(fps))
                video.width, video.height, video.pix_fmt = 96 * (1 + sides), 64, "yuv420p"
                video.codec_context.thread_count = 1
            if sound is not None:
                layout = {1: "mono", 6: "5.1"}[channels]
                rate = 22_050 if kind == "flv" else 16_000
                audio = file.add_stream(audio_codec, rate=rate, layout=layout)
            if codec:
                for index in range(round(seconds * Fraction(fps))):
                    picture = np.full((64, video.width, 3), 40 + 37 * shade % 150 + index % 8, np.uint8)
                    picture[:, 96:] += 40
                    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                    frame.pts, frame.time_base = index, 1 / Fraction(fps)
                    file.mux(video.encode(frame))
                file.mux(video.encode(None))
            if sound is not None:
                count = round(sound * rate)
                wave = np.sin(np.arange(count) * (0.05 + 0.03 * (shade % 16))) * 0.4
                block = av.AudioFrame.from_ndarray(
                    np.tile(wave.astype(np.float32), (channels, 1)), format="fltp", layout=layout
                )
                block.sample_rate, block.pts = rate, 0
                resampler = av.AudioResampler(audio.codec_context.format, layout, rate)
                fifo = av.AudioFifo()
                for piece in resampler.resample(block):
                    fifo.write(piece)
                size = audio.codec_context.frame_size or 1024
                while (piece := fifo.read(size)) is not None:
                    file.mux(audio.encode(piece))
                if (rest := fifo.read(partial=True)) is not None:
                    file.mux(audio.encode(rest))
                file.mux(audio.encode(None))
        return path.read_bytes()
