"""tracks.py: which of several picture tracks is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import av
from av.stream import Disposition

_NO_CLIP = Disposition.attached_pic | Disposition.timed_thumbnails
"""Covers and previews: video streams to FFmpeg."""


@dataclass(frozen=True)
class Tracks:
    """Tracks that a person named, counted from 1 among those of their kind; None: by rule."""

    video: int | None = None
    audio: int | None = None
    hears: bool = True
    """Whether sound is read at all; if not, nothing is asked of it."""


BY_RULE = Tracks()


def video_tracks(streams: Sequence[av.VideoStream]) -> list[av.VideoStream]:
    """The moving pictures among a file's video streams, in the file's order."""
    return [stream for stream in streams if not stream.disposition & _NO_CLIP]


def choose_video(tracks: Sequence[av.VideoStream], number: int | None) -> av.VideoStream | None:
    """The track that is looked at: the one of that number, else by rule; None if there is none.

    The rule: those that can be decoded; of them those that the file calls its default, if it does so of any; of
    them the one with the largest picture, the first of several equal ones.
    """
    if number is not None:
        return tracks[number - 1] if 1 <= number <= len(tracks) else None
    rest = [track for track in tracks if track.codec_context is not None] or list(tracks)
    rest = [track for track in rest if track.disposition & Disposition.default] or rest
    return max(rest, key=_num_pixels, default=None)


def video_note(tracks: Sequence[av.VideoStream], chosen: av.VideoStream) -> str:
    """What a person should know where there is more than one; else empty."""
    if len(tracks) < 2:
        return ""
    others = [describe(tracks, track) for track in tracks if track is not chosen]
    return (
        f"of {len(tracks)} video tracks {describe(tracks, chosen)} was looked at, not {', '.join(others)} "
        "(--video-track N takes another)"
    )


def alpha_note(track: av.VideoStream) -> str:
    """What a person should know of transparency kept beside the picture (VP8, VP9); else empty."""
    if track.metadata.get("alpha_mode") != "1":
        return ""
    return "the transparency that its file keeps beside the picture was not looked at"


def describe(tracks: Sequence[av.VideoStream], track: av.VideoStream) -> str:
    """``2 (640×480 h264, "Camera")``"""
    context, title = track.codec_context, track.metadata.get("title") or track.metadata.get("handler_name")
    codec = context.codec.canonical_name if context is not None else "unknown codec"
    size = f"{context.width}×{context.height} " if context is not None and context.width else ""
    # Names that recorders write into every file say nothing.
    title = f', "{title}"' if title and "handler" not in title.lower() else ""
    return f"{list(tracks).index(track) + 1} ({size}{codec}{title})"


def _num_pixels(track: av.VideoStream) -> int:
    context = track.codec_context
    return context.width * context.height if context is not None else 0
