"""clip_reader.py: one clip read and decoded, from a shard or a file, in a worker or where it is needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from viper_e2e.clip import DecodedClip, Sample, with_all_words
from viper_e2e.errors import ClipError
from viper_e2e.loading.clip_source import P, PlaceReader

T = TypeVar("T")


def decoded(sample: Sample, decoder: Callable[..., DecodedClip]) -> DecodedClip:
    """A sample through a `ClipDecoder`."""
    part = {} if sample.segment is None else {"segment": sample.segment}
    units = sample.action_units
    clip = decoder(sample.video, sound=sample.sound, name=sample.key, action_units=units, **part)
    return with_all_words(clip, sample.words)


@dataclass(frozen=True)
class DecodeSample:
    """The module's own decoder, applied to a sample as it lies in a shard."""

    decoder: Callable[..., DecodedClip]
    """A `ClipDecoder`; picklable."""

    def __call__(self, sample: Sample) -> DecodedClip:
        return decoded(sample, self.decoder)


@dataclass(frozen=True)
class ClipReader(Generic[P, T]):
    """`reader(place)` → what ``decode`` makes of the clip, or the `ClipError` that says why there is nothing.

    Imports no torch, so that a worker that runs it stays small. Other errors are ours, and are raised.
    """

    reader: PlaceReader[P]
    decode: Callable[[Sample], T]

    def __call__(self, place: P) -> T | ClipError:
        return self.compute(self.read(place))

    def read(self, place: P) -> Sample | ClipError:
        """The first part, which waits for a disk or a server: workers do it while they decode another clip."""
        try:
            return self.reader.read(place)
        except ClipError as error:
            return without_traceback(error)

    def compute(self, sample: Sample | ClipError) -> T | ClipError:
        """The second part."""
        if isinstance(sample, ClipError):
            return sample
        try:
            return self.decode(sample)
        except ClipError as error:
            return without_traceback(error)


def without_traceback(error: ClipError) -> ClipError:
    """A copy without traceback and cause: these would keep the clip's bytes and frames alive."""
    return ClipError(error.reason, stage=error.stage, clip=error.clip)
