"""sound_pieces.py: decoded sound -> stretches without a gap, mono at one rate, by count and by clock."""

from __future__ import annotations

import math

import av
import numpy as np

from viper_e2e.clip import SoundRun
from viper_e2e.decoding.downmix import mixed, mono_weights

_SAMPLES_AT_ONCE = 16_384
"""Resampled together: each call has its price, and codecs give 1,024 samples or fewer at a time."""
_GAP_SECONDS = 0.05
"""Times that disagree by less are rounding (FLV and Matroska count milliseconds); more is a gap."""
_DRIFT_SECONDS = 0.02
"""A recorder's clock and its sampling differ by a thousandth, say: so far apart, a new run sets them right."""
_DRIFT_FRAMES = 16
"""Times of single frames are off by chance; the mean over about so many is not."""


class SoundPieces:
    """Float32, mono (see `downmix.py`), at `sample_rate`; cut out as often as asked for, until forgotten.

    Under `whole` all is one piece from its first sample, the mean of the channels: gaps between frames are not
    looked at. Otherwise a gap begins a new one.
    """

    def __init__(self, sample_rate: int, *, whole: bool):
        self.sample_rate, self._whole = sample_rate, whole
        self.expected_seconds: float | None = None
        """End of the last sample, by the number of samples since the piece's first."""
        self._drift_seconds = 0.0
        """How far times are off that, on average of late."""
        self._pieces: list[_Piece] = []
        self._resampler: av.AudioResampler | None = None
        self._gathered = av.AudioFifo()
        """Decoded and not yet resampled."""
        self._format: tuple = ()
        self._weights = np.ones(1, np.float32)
        """Weights of the channels, in their order."""

    @property
    def are_waiting(self) -> bool:
        """Whether some frames were added and are not resampled yet."""
        return bool(self._gathered.samples)

    def add(self, frame: av.AudioFrame, start_seconds: float) -> None:
        """Take the next decoded frame, which begins at `start_seconds` on the clip's clock by its own time."""
        start, expected = start_seconds, self.expected_seconds
        # Samples are counted, and the count is held against every time that comes.
        error = math.inf if expected is None else start - expected
        has_gap = abs(error) > _GAP_SECONDS
        self._drift_seconds += 0.0 if has_gap else (error - self._drift_seconds) / _DRIFT_FRAMES
        if expected is not None and not has_gap and abs(self._drift_seconds) > _DRIFT_SECONDS:
            has_gap, start = True, expected + self._drift_seconds
        if expected is None or not self._pieces or (has_gap and not self._whole):
            self.end()
            self._pieces.append(_Piece(start, self.sample_rate))
            expected, self._drift_seconds = start, 0.0
        self.expected_seconds = expected + frame.samples / frame.sample_rate
        found = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._resampler is None or found != self._format:
            self._flush_resampler()
            # Each channel by itself: FFmpeg's own way down to mono does not keep the level.
            self._resampler = av.AudioResampler(format="flt", layout=frame.layout, rate=self.sample_rate)
            self._format, self._weights = found, self._weights_of(frame.layout)
        frame.pts = None  # told apart by `expected_seconds`; the fifo would count on its own
        self._gathered.write(frame)
        if self._gathered.samples >= _SAMPLES_AT_ONCE:
            self._resample_gathered()

    def end(self) -> None:
        """End this piece; the next samples begin a new one."""
        self._flush_resampler()
        self.expected_seconds = None

    def cut(self, start_seconds: float, end_seconds: float) -> tuple[SoundRun, ...]:
        """Runs of sound between two times, in order of time, not overlapping."""
        runs = []
        for piece in self._pieces:
            run = piece.cut(start_seconds, end_seconds)
            if run is not None:
                runs.append(run)
                start_seconds = run.start_seconds + len(run.samples) / self.sample_rate
        return tuple(runs)

    def forget(self, before_seconds: float) -> None:
        """Let go of sound that nobody will ask for again."""
        for piece in self._pieces:
            piece.forget(before_seconds)
        # The last one may still grow.
        self._pieces = [piece for piece in self._pieces[:-1] if piece.chunks] + self._pieces[-1:]

    def _resample_gathered(self) -> None:
        if self._resampler is not None and self._gathered.samples:
            self._keep(self._resampler.resample(self._gathered.read()))

    def _keep(self, frames: list[av.AudioFrame]) -> None:
        for frame in frames:
            self._pieces[-1].chunks.append(mixed(frame, self._weights))

    def _weights_of(self, layout: av.AudioLayout) -> np.ndarray:
        # The published scripts hear the mean of all channels.
        num_channels = layout.nb_channels
        return np.full(num_channels, 1 / num_channels, np.float32) if self._whole else mono_weights(layout)

    def _flush_resampler(self) -> None:
        if self._resampler is not None:
            self._resample_gathered()
            self._keep(self._resampler.resample(None))
            self._resampler, self._gathered = None, av.AudioFifo()


class _Piece:
    """Sound without a gap."""

    def __init__(self, origin_seconds: float, sample_rate: int):
        self.origin_seconds, self.sample_rate = origin_seconds, sample_rate
        self.chunks: list[np.ndarray] = []
        self._num_forgotten = 0

    def cut(self, start_seconds: float, end_seconds: float) -> SoundRun | None:
        held = sum(map(len, self.chunks))
        first, last = (
            int(np.clip(self._index(at), self._num_forgotten, self._num_forgotten + held))
            for at in (start_seconds, end_seconds)
        )
        if last <= first:
            return None
        samples = np.concatenate(self.chunks)[first - self._num_forgotten : last - self._num_forgotten]
        return SoundRun(self.origin_seconds + first / self.sample_rate, samples)

    def forget(self, before_seconds: float) -> None:
        while self.chunks and self._num_forgotten + len(self.chunks[0]) <= self._index(before_seconds):
            self._num_forgotten += len(self.chunks.pop(0))

    def _index(self, seconds: float) -> float:
        """The first sample at or after a time; a millionth of a sample is rounding."""
        if math.isinf(seconds):
            return seconds
        return float(math.ceil((seconds - self.origin_seconds) * self.sample_rate - 1e-6))
