"""sound_tracks.py: which of several sound tracks is heard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import av
import numpy as np
from av.error import FFmpegError
from av.stream import Discard, Disposition

from viper_e2e.decoding.downmix import mono_weights

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
"""Where a track is listened to, spread over the clip: all of a clip of so many seconds."""


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

    Reads on from where `container` stands, no further than until the first track is known to have sound, and
    decodes a second at each of a few places.
    """
    by_index = {track.index: track for track in tracks}
    peaks = dict.fromkeys(by_index, 0.0)
    for packet in _at_places(container, tracks):
        index = packet.stream.index
        try:
            peaks[index] = max([peaks[index], *map(_peak, by_index[index].decode(packet))])
        except FFmpegError:
            # What cannot be decoded is told where it is read.
            continue
        if peaks[tracks[0].index] > _SILENT_PEAK:
            return tracks[0]
    return next((track for track in tracks if peaks[track.index] > _SILENT_PEAK), tracks[0])


def sound_note(
    container: av.container.InputContainer, heard: av.AudioStream, silent: av.AudioStream | None = None
) -> str:
    """What a person should know where there is more than one; else empty. `silent`: passed over as such."""
    tracks = container.streams.audio
    if len(tracks) < 2:
        return ""
    others = ", ".join(describe(track, tracks) for track in tracks if track.index != heard.index)
    why = f"not {others}" if silent is None else f"as {describe(silent, tracks)} is silent"
    which = f"of {len(tracks)} sound tracks {describe(heard, tracks)} was heard"
    return f"{which}, {why} (--audio-track N takes another)"


def describe(track: av.AudioStream, tracks: Sequence[av.AudioStream]) -> str:
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
    """As people count them, from 1."""
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
