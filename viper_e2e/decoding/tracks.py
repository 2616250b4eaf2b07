"""tracks.py: chooses among several picture tracks and sound tracks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import av
import numpy as np
from av.error import FFmpegError
from av.stream import Discard, Disposition

from viper_e2e.decoding.downmix import mono_weights

_NO_CLIP = Disposition.attached_pic | Disposition.timed_thumbnails
"""Covers and previews: video streams to FFmpeg."""
_SIDE_TRACKS = (
    Disposition.comment
    | Disposition.visual_impaired
    | Disposition.hearing_impaired
    | Disposition.descriptions
    | Disposition.karaoke
    | Disposition.lyrics
    | Disposition.clean_effects
    | Disposition.non_diegetic
    | Disposition.dependent
)
"""Commentary, descriptions of the picture, music without the voice: beside the sound of the clip itself."""
_SILENT_PEAK = 1e-4
"""Below the last bits of 16: nobody, and no microphone, was there."""
_NUM_PLACES, _PLACE_SECONDS = 24, 1.0
"""Number and length of the samples of a track, spread over the clip; together all of a short clip."""


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
    """Note if there is more than one; else empty."""
    if len(tracks) < 2:
        return ""
    others = ", ".join(describe_picture(tracks, track) for track in tracks if track is not chosen)
    which = f"of {len(tracks)} video tracks {describe_picture(tracks, chosen)} was used"
    return f"{which}, not {others} (--video-track N takes another)"


def alpha_note(track: av.VideoStream) -> str:
    """Note on transparency kept beside the picture (VP8, VP9); else empty."""
    if track.metadata.get("alpha_mode") != "1":
        return ""
    return "the transparency that its file keeps beside the picture was not used"


def describe_picture(tracks: Sequence[av.VideoStream], track: av.VideoStream) -> str:
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


# --- sound ----------------------------------------------------------------------------------------


def sound_tracks(container: av.container.InputContainer, video: av.VideoStream | None) -> list[av.AudioStream]:
    """A file's sound tracks that come into question, the one that a player takes first.

    The clip's own sound before side tracks; of it what can be decoded; of that what the file calls its default;
    of several the first. In a TS with several programs, that of the picture's program.
    """
    tracks = list(container.streams.audio)
    related = container.streams.best("audio", related=video) if video is not None else None
    own = [track for track in tracks if not track.disposition & _SIDE_TRACKS] or tracks
    own = [track for track in own if track.codec_context is not None] or own
    has_programs = container.format.name == "mpegts" and len(container.streams.video) > 1
    first = [
        track is related if has_programs else bool(track.disposition & Disposition.default) for track in own
    ]
    return [
        track for _, track in sorted(zip(first, own, strict=True), key=lambda one: (not one[0], one[1].index))
    ]


def first_that_speaks(
    container: av.container.InputContainer, tracks: Sequence[av.AudioStream]
) -> av.AudioStream:
    """The first of some tracks; where it is silent throughout and others are not, the first of those.

    Reads on from the position of `container`, no further than until the first track is known to have sound, and
    decodes a second at each of a few places.
    """
    by_index = {track.index: track for track in tracks}
    peaks = dict.fromkeys(by_index, 0.0)
    for packet in _at_places(container, tracks):
        index = packet.stream.index
        try:
            peaks[index] = max([peaks[index], *map(_peak, by_index[index].decode(packet))])
        except FFmpegError:
            # What cannot be decoded is reported where it is read.
            continue
        if peaks[tracks[0].index] > _SILENT_PEAK:
            return tracks[0]
    return next((track for track in tracks if peaks[track.index] > _SILENT_PEAK), tracks[0])


def sound_note(
    container: av.container.InputContainer, heard: av.AudioStream, silent: av.AudioStream | None = None
) -> str:
    """Note if there is more than one; else empty. `silent`: passed over as such."""
    tracks = container.streams.audio
    if len(tracks) < 2:
        return ""
    others = ", ".join(describe_sound(track, tracks) for track in tracks if track.index != heard.index)
    why = f"not {others}" if silent is None else f"as {describe_sound(silent, tracks)} is silent"
    which = f"of {len(tracks)} sound tracks {describe_sound(heard, tracks)} was used"
    return f"{which}, {why} (--audio-track N takes another)"


def describe_sound(track: av.AudioStream, tracks: Sequence[av.AudioStream]) -> str:
    """``2 (aac stereo, eng, "Microphone")``; counted among all of a file, from 1."""
    context, words = track.codec_context, []
    if context is not None:
        words.append(f"{context.codec.canonical_name} {context.layout.name}".strip())
    language, title = track.language, track.metadata.get("title") or track.metadata.get("handler_name")
    words += [language] if language and language != "und" else []
    # Names that recorders write into every file say nothing.
    words += [f'"{title}"'] if title and "handler" not in title.lower() else []
    return f"{number_of(track, tracks)} ({', '.join(words) or 'unknown codec'})"


def number_of(track: av.AudioStream, tracks: Sequence[av.AudioStream]) -> int:
    """Number of a track, from 1 as people count."""
    return [other.index for other in tracks].index(track.index) + 1


def _at_places(container: av.container.InputContainer, tracks: Sequence[av.AudioStream]) -> Iterator[av.Packet]:
    seconds = (container.duration or 0) / av.time_base
    every = max(seconds / _NUM_PLACES, _PLACE_SECONDS)
    wanted = {track.index for track in tracks}
    for stream in container.streams:
        stream.discard = Discard.default if stream.index in wanted else Discard.all
    starts: dict[int, float] = {}
    for packet in container.demux(list(tracks)):
        at = packet.pts if packet.pts is not None else packet.dts
        if not packet.size or at is None:
            continue
        at_seconds = float(at * packet.time_base)
        at_seconds -= starts.setdefault(packet.stream.index, at_seconds)
        if at_seconds % every < _PLACE_SECONDS:
            yield packet


def _peak(frame: av.AudioFrame) -> float:
    if not mono_weights(frame.layout).any() or not frame.samples:
        return 0.0
    # Packed: see `downmix.mixed`.
    resampler = av.AudioResampler(format="flt", layout=frame.layout, rate=frame.sample_rate)
    return max((float(np.abs(block.to_ndarray()).max()) for block in resampler.resample(frame)), default=0.0)
