"""probe.py: the contents of a clip, from its headers and its first frame."""

from __future__ import annotations

from dataclasses import dataclass

import av

from viper_e2e.config import LimitsConfig
from viper_e2e.decoding.codec import first_frame
from viper_e2e.decoding.container import Source, open_clip
from viper_e2e.decoding.geometry import orientation_of, pixel_aspect, shown_size
from viper_e2e.decoding.headers import stated_seconds
from viper_e2e.decoding.tracks import Tracks


@dataclass(frozen=True)
class ClipInfo:
    """Facts from a clip's headers and its first frame."""

    container: str
    """One of `magic.VIDEO_CONTAINERS`."""
    video_codec: str
    audio_codec: str | None
    """``None``: no audio stream."""
    width: int
    height: int
    """Height as displayed: turned upright, in square pixels."""
    rotation: int
    """Degrees by which frames are turned counter-clockwise for display: 0, 90, 180 or 270."""
    is_mirrored: bool
    """Whether left and right change places before that."""
    num_frames: int
    """Number of frames by the header, else duration times rate: an estimate; 0 if neither is known."""
    duration_seconds: float
    """Duration by the header; 0 if it states none."""
    sample_rate: int = 0
    channels: int = 0
    notes: tuple[str, ...] = ()
    """Notes on what was chosen among several tracks."""


def probe(source: Source, limits: LimitsConfig, *, name: str = "", video_track: int | None = None) -> ClipInfo:
    """Probe a clip: its headers and its first frame. `video_track`: as in `DecodingConfig`.

    Raises `ClipError` (stages ``read``, ``container``, ``decode``), also where it is over the limits.
    """
    with open_clip(source, limits, name, Tracks(video_track)) as media:
        video, audio = media.video, media.audio
        frame = first_frame(media)
        orientation = orientation_of(frame)
        width, height = shown_size(media.crop.size(frame.width, frame.height), orientation, pixel_aspect(media))
        seconds = stated_seconds(media.container, media.kind)
        return ClipInfo(
            container=media.kind,
            video_codec=_codec(video),
            audio_codec=_codec(audio) if audio else None,
            width=width,
            height=height,
            rotation=orientation.degrees,
            is_mirrored=orientation.is_mirrored,
            num_frames=video.frames or round(seconds * (video.average_rate or 0)),
            duration_seconds=seconds,
            sample_rate=audio.codec_context.sample_rate if audio else 0,
            channels=audio.codec_context.channels if audio else 0,
            notes=media.notes,
        )


def _codec(stream: av.stream.Stream) -> str:
    return stream.codec_context.codec.canonical_name if stream.codec_context else "unknown"
