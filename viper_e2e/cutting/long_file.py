"""long_file.py: the packets of a long film for each clip cut out of it, if it can be cut."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import av
import numpy as np

from viper_e2e.clip import DecodedClip, Segment
from viper_e2e.config import DecodingConfig, LimitsConfig
from viper_e2e.cutting.frame_log import NO_FRAME, FrameLog, Picture
from viper_e2e.cutting.remuxing import WHOLE_BYTES, cut_exactly, frames_between
from viper_e2e.cutting.stretches import Stretch, demuxed, time_of
from viper_e2e.decoding import (
    BY_RULE,
    EXACT_SECONDS,
    ClipDecoder,
    FramePackets,
    describe_sound,
    first_frame,
    heard_track,
    open_clip,
    read_timeline,
    with_neighbours,
)
from viper_e2e.errors import ClipError

MUXERS = {
    "mp4": ("mp4", "matroska"),
    "mov": ("mov", "mp4", "matroska"),
    "mkv": ("matroska",),
    "webm": ("webm", "matroska"),
    "flv": ("flv", "matroska"),
    "ts": ("mp4", "mpegts", "matroska"),
    "ogg": ("matroska",),
    "avi": ("mov", "matroska", "avi"),
    "asf": ("mov", "matroska", "asf"),
    "mpeg": ("mov", "matroska"),
    "dv": ("mov", "matroska"),
    "gif": ("gif",),
}
"""FFmpeg's names of what may hold the packets of a file of this kind, the likelier first: QuickTime keeps times
exactly, and those at which frames are shown."""
NEW_CONTAINER = ("avi", "asf", "mpeg", "dv")
"""Kinds whose sound may not survive another container, which is looked at therefore."""


@dataclass(frozen=True)
class _Known:
    """The packets that the frames of a film come from."""

    packets: FramePackets
    as_written: np.ndarray
    """int64, a row for each packet: its time as written in the file, and its bytes."""
    hashes: np.ndarray | None = None
    """Hashes of all frames, if they were decoded."""
    picture: Picture | None = None
    has_fields: bool = False


class LongFile:
    """A file that several clips are cut out of: when its frames are shown, and which packets they come from."""

    def __init__(self, path: Path, limits: LimitsConfig, name: str = ""):
        """Raises `ClipError` for a file that cannot be read."""
        self.path, self.limits, self.name = path, limits, name or str(path)
        self.tracks, _ = heard_track(path, limits, self.name, BY_RULE)
        self.sound_note = ""
        """Note on sound that does not go along with clips; empty: all of it does."""
        log = FrameLog()
        with open_clip(path, limits, self.name, self.tracks) as media:
            self.kind, self.num_bytes = media.kind, media.num_bytes
            if (heard := media.audio) is not None:
                self.sound_note = _sound_note(heard, media.container.streams.audio)
            self.timeline = read_timeline(media, path, with_sound=True, log=log)
        self.duration_seconds = max(self.timeline.duration_seconds, self.timeline.sound_end_seconds)
        self._known = self._by_decoding(log) if self.timeline.by_order else self._by_packets()
        self._muxer: str | None = None
        self._is_proved = False

    def stretch(self, start_seconds: float, end_seconds: float) -> Stretch:
        """The stretch to copy so that frames and sound between two times come out bit for bit.

        Raises `ClipError` where the file can be neither cut nor taken whole.
        """
        end_seconds = min(end_seconds, self.duration_seconds)
        whole = Stretch(self.path, start_seconds, end_seconds, self.tracks)
        made = self._made(whole)
        if made is not None and made.num_packets == 0:
            return whole
        if not self._is_proved:
            self._muxer, self._is_proved = self._prove(made), True
            if self._muxer is None and not self.timeline.by_order:
                # Packets told other times than those at which frames are shown.
                self._known = self._by_decoding_again()
                made = self._made(whole)
                self._muxer = self._prove(made)
        return replace(made, muxer=self._muxer) if made and self._muxer else self._checked_whole(whole)

    def _made(self, whole: Stretch) -> Stretch | None:
        """A stretch as it would be copied; without packets where all of the file belongs to it.

        None: it cannot be told which do.
        """
        timeline, known = self.timeline, self._known
        if known is None:
            return None
        packets = known.packets
        wanted = np.zeros(len(timeline.pts), bool)
        inside = frames_between(timeline, whole.start_seconds, whole.end_seconds)
        wanted[inside] = True
        needed = wanted.copy()
        if timeline.seconds[inside.start] > whole.start_seconds + EXACT_SECONDS:
            # The picture that stands when the clip begins, so that its file has that time.
            needed[max(inside.start - 1, 0)] = True
        if known.has_fields:
            # Pictures of two fields are made whole with the help of those beside them.
            needed |= with_neighbours(wanted)
        first, last = int(packets.keyframe[needed].min()), int(packets.own[needed].max())
        if first == 0 and last == len(packets.pts) - 1:
            return whole
        tick, zero = timeline.tick_seconds, int(packets.pts[first])
        shown = whole.shown
        if known.hashes is not None:
            shown = packets.pts[first : last + 1]
            # What is shown before the first picture cannot be decoded without those in front of it.
            shown = np.where(shown < zero, NO_FRAME, shown)
        return replace(
            whole,
            num_packets=last - first + 1,
            first=(int(known.as_written[first, 0]), int(known.as_written[first, 1])),
            zero_seconds=float(zero * tick),
            origin_seconds=timeline.start_seconds,
            frame_seconds=(timeline.pts[inside] - zero) * float(tick),
            shown=shown,
            hashes=whole.hashes if known.hashes is None else known.hashes[inside],
            picture=known.picture,
        )

    def _checked_whole(self, stretch: Stretch) -> Stretch:
        if self.num_bytes > min(WHOLE_BYTES, self.limits.max_bytes_in_memory):
            raise ClipError(
                f"is a {self.kind} file that cannot be cut exactly without re-encoding it, and is too large "
                f"({self.num_bytes:,} bytes) to be packed whole with each clip; cut it, or convert it with "
                "`ffmpeg -i FILE -c copy FILE.mp4`",
                stage="cut",
                clip=self.name,
            )
        return replace(stretch, is_uncut=True)

    def _by_packets(self) -> _Known | None:
        """Match frames to packets by time; None if the timeline has other times, as after a restarted clock."""
        packets, found = self.timeline.packets, []
        if packets is None or self.kind not in MUXERS:
            return None
        with open_clip(self.path, self.limits, self.name) as media:
            for packet in demuxed(media, media.video):
                found.append((time_of(packet), packet.size))
        if any(at is None for at, _ in found):
            return None
        as_written = np.array(found, np.int64).reshape(-1, 2)
        is_same = np.array_equal(as_written[:, 0], packets.pts)
        if not is_same:
            return None
        with open_clip(self.path, self.limits, self.name) as media:
            frame = first_frame(media)
            return _Known(packets, as_written, None, Picture.of(frame), frame.interlaced_frame)

    def _by_decoding(self, log: FrameLog) -> _Known | None:
        """Match frames to packets by decoding each packet."""
        packets = log.frame_packets(self.timeline) if self.kind in MUXERS else None
        return (
            None
            if packets is None
            else _Known(packets, log.as_written, log.hashes, log.picture, log.has_fields)
        )

    def _by_decoding_again(self) -> _Known | None:
        log = FrameLog()
        with open_clip(self.path, self.limits, self.name) as media:
            timeline = read_timeline(media, self.path, with_sound=True, by_decoding=True, log=log)
        if not np.array_equal(timeline.pts, self.timeline.pts):
            return None
        return self._by_decoding(log)

    def _prove(self, stretch: Stretch | None) -> str | None:
        """The first muxer whose file shows the very pixels of this one."""
        if stretch is None:
            return None
        hears: Literal["spans", "none"] = "spans" if self.kind in NEW_CONTAINER else "none"
        # Where all frames have been decoded, `cut_exactly` compares them all.
        count = 4 if self._known is None or self._known.hashes is None else 1
        config = DecodingConfig(
            num_frames=count, max_side=None, sound=hears, span_seconds=1.0, limits=self.limits
        )
        decode = ClipDecoder(config)
        segment = Segment(stretch.start_seconds, stretch.end_seconds)
        by_track = ClipDecoder(replace(config, audio_track=self.tracks.audio))
        meant = by_track(self.path, segment=segment, name=self.name)
        for muxer in MUXERS[self.kind]:
            try:
                made = cut_exactly(replace(stretch, muxer=muxer), self.limits)
                shown = decode(made.data, sound=made.sound, segment=made.segment, name=self.name)
            except ClipError:
                continue
            if np.array_equal(np.asarray(shown.frames), np.asarray(meant.frames)) and _is_alike(shown, meant):
                return muxer
        return None


def _sound_note(heard: av.AudioStream, tracks: Sequence[av.AudioStream]) -> str:
    if heard.codec_context is None:
        return "none, as PyAV cannot decode it"
    return f"{describe_sound(heard, tracks)} of {len(tracks)}" if len(tracks) > 1 else ""


SAME_SOUND_SECONDS = 2e-3
"""Runs of sound may begin and end apart by so much, where a container counts milliseconds."""
SAME_SOUND_SHARE = 0.05
"""Share of its loudness by which sound may differ: decoders fill what a codec left out with noise."""


def _is_alike(shown: DecodedClip, meant: DecodedClip) -> bool:
    """Whether two clips sound alike."""
    if len(shown.sound) != len(meant.sound):
        return False
    for one, other in zip(shown.sound, meant.sound, strict=True):
        rate = DecodingConfig().sample_rate
        late = round((one.start_seconds - other.start_seconds) * rate)
        length = min(len(one.samples) + min(late, 0), len(other.samples) - max(late, 0))
        apart = abs(len(one.samples) - len(other.samples)) / rate
        if abs(late) / rate > SAME_SOUND_SECONDS or apart > 2 * SAME_SOUND_SECONDS or length < 1:
            return False
        here, there = one.samples[max(-late, 0) :][:length], other.samples[max(late, 0) :][:length]
        loud = math.sqrt(float(np.mean(np.square(there))))
        if math.sqrt(float(np.mean(np.square(here - there)))) > SAME_SOUND_SHARE * loud + 1e-3:
            return False
    return True
