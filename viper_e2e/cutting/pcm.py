"""pcm.py: a stretch of a sound stream as a wav file, to the sample: for what cannot be copied exactly."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable

import av
import numpy as np
from av.error import FFmpegError

from viper_e2e.decoding import LONGEST_SECONDS, Media

_WARM_UP_SECONDS = 0.5
"""Decoded before a stretch: overlapping transforms and MP3's bit reservoir look back."""
_EXACT = {"s16": "s16", "s16p": "s16", "u8": "s16", "u8p": "s16", "s32": "s32", "s32p": "s32"}
"""Sample formats of which another holds every value; all others are kept as floats."""


def sound_as_wav(
    media: Media,
    stream: av.AudioStream,
    start_seconds: float,
    end_seconds: float,
    packets: Iterable[av.Packet] | None = None,
) -> bytes:
    """Samples between two times on the clock of the stream's packets, with silence in gaps.

    Reads ``media`` to its end, unless ``packets`` have what is needed.
    Raises `ClipError` (stage ``sound``) where it cannot be decoded.
    """
    codec = stream.codec_context
    if codec is None:
        raise media.fail("its sound is coded in a way that this build of PyAV cannot decode", stage="sound")
    codec.thread_type, codec.thread_count = "NONE", 1
    made: _Wav | None = None
    reached = -math.inf
    try:
        for packet in [*(media.packets(stream) if packets is None else packets), None]:
            if packet is not None and packet.pts is not None:
                at = float(packet.pts * packet.time_base)
                length = float(packet.duration * packet.time_base) if packet.duration else LONGEST_SECONDS
                if at + length < start_seconds - _WARM_UP_SECONDS or at > end_seconds + _WARM_UP_SECONDS:
                    continue
            for frame in codec.decode(packet):
                media.check_sound_format(frame.sample_rate, frame.layout.nb_channels)
                if frame.pts is not None and (made is None or abs(float(frame.time or 0.0) - reached) > 0.05):
                    reached = float(frame.time or 0.0)
                if made is None:
                    made = _Wav(frame, start_seconds, end_seconds)
                made.place(frame, reached)
                reached += frame.samples / frame.sample_rate
    except FFmpegError as error:
        raise media.fail(f"its sound cannot be decoded after {reached:.2f} s", stage="sound") from error
    if made is None:
        raise media.fail(f"has no sound from {start_seconds:g} s to {end_seconds:g} s", stage="sound")
    return made.to_bytes()


class _Wav:
    """Samples of a stretch."""

    def __init__(self, frame: av.AudioFrame, start_seconds: float, end_seconds: float):
        self._start, self._rate, self._layout = start_seconds, frame.sample_rate, frame.layout
        self._format = _EXACT.get(frame.format.name, "flt")
        kind = {"s16": np.int16, "s32": np.int32, "flt": np.float32}[self._format]
        length = max(1, round((end_seconds - start_seconds) * self._rate))
        self._samples = np.zeros((length, frame.layout.nb_channels), kind)
        self._resampler = av.AudioResampler(format=self._format, layout=frame.layout, rate=self._rate)

    def place(self, frame: av.AudioFrame, seconds: float) -> None:
        """Take a frame that begins at these seconds."""
        frame.pts = None
        for part in self._resampler.resample(frame):
            values = part.to_ndarray().reshape(part.samples, -1)
            first = round((seconds - self._start) * self._rate)
            low, high = max(first, 0), min(first + len(values), len(self._samples))
            if low < high:
                self._samples[low:high] = values[low - first : high - first]
            seconds += part.samples / self._rate

    def to_bytes(self) -> bytes:
        """The file."""
        file = io.BytesIO()
        codec = {"s16": "pcm_s16le", "s32": "pcm_s32le", "flt": "pcm_f32le"}[self._format]
        with av.open(file, "w", format="wav", options={"fflags": "+bitexact"}) as container:
            stream = container.add_stream(codec, rate=self._rate, layout=self._layout.name)
            assert isinstance(stream, av.AudioStream)
            frame = av.AudioFrame.from_ndarray(
                self._samples.reshape(1, -1), format=self._format, layout=self._layout.name
            )
            frame.sample_rate = self._rate
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return file.getvalue()
