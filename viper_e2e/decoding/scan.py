"""scan.py: reads a clip's packets into its timeline, without trusting the counts in its header."""

from __future__ import annotations

from array import array
from dataclasses import replace
from itertools import islice
from typing import Protocol, runtime_checkable

import av
import numpy as np

from viper_e2e.decoding.codec import prepare_video_codec, whole_frames
from viper_e2e.decoding.container import Source, open_clip
from viper_e2e.decoding.media import ClipMedia, SoundMedia
from viper_e2e.decoding.timeline import TORN_SOUND, FramePackets, SoundExtent, Span, Timeline, TornPackets
from viper_e2e.runtime import count_of

_UNREAD_SHARE = 0.1
"""Share of a file after its last packet that counts as unread: an index is less."""
_TORN_FRAME = ("the file breaks off in its last frame, which is left out",)


@runtime_checkable
class PacketLog(Protocol):
    """Notes taken while a clip is decoded from its first packet to its last, as by `cutting.FrameLog`."""

    def watch(self, codec: av.VideoCodecContext) -> None:
        """Before the first packet."""

    def add_packet(self, packet: av.Packet) -> None:
        """Before the packet is decoded."""

    def add_frame(self, frame: av.VideoFrame) -> None:
        """In the order in which frames are shown."""


def read_timeline(
    media: ClipMedia,
    source: Source,
    *,
    with_sound: bool,
    by_decoding: bool = False,
    without_last: bool = False,
    log: PacketLog | None = None,
) -> Timeline:
    """When each frame of a clip is shown. Reads `media`, opened from `source`, to its end.

    Packets are counted and timed without decoding them. Where they do not tell when frames are shown (an
    AVI keeps decoding times only), or `by_decoding` asks for it, all frames are decoded once to learn it.
    `without_last`: the last packet is torn, though nothing but its decoder said so, and its frame is none.
    `log`: gets all packets and frames, where these are decoded.
    Raises `ClipError` (stages ``container``, ``decode``, ``sound``).
    """
    if by_decoding or _tells_no_times_of_display(media):
        return _scan_by_decoding(media, with_sound, log)
    timeline = _scan_packets(media, with_sound, without_last)
    if timeline is not None:
        return timeline
    with open_clip(source, media.limits, media.name, media.tracks) as again:
        return _scan_by_decoding(again, with_sound, log)


def read_sound_extent(media: SoundMedia) -> Span:
    """Start and end of a file's sound in seconds; reads `media` to its end.

    Raises `ClipError` (stage ``sound``) if it is torn or there is none.
    """
    extent = SoundExtent()
    for packet in media.packets(media.audio):
        extent.add(packet)
    # Of a wav that was written into a pipe, whose header knows no length, the last packet is short, not torn.
    has_no_length = media.kind in ("wav", "w64") and media.head[4:8] in (b"\xff" * 4, b"\0" * 4)
    num_torn = extent.torn.num_amid(media.may_break_off) - (has_no_length and extent.is_last_torn)
    if num_torn or not extent.num_packets:
        raise media.fail("has no sound in it, or is cut short; copy it again", stage="sound")
    return extent.seconds(media, media.audio)


def _tells_no_times_of_display(media: ClipMedia) -> bool:
    # AVI and ASF keep decoding times only. A program stream times its blocks of 2 KB, not the pictures in them:
    # several have one time, and FFmpeg's guess at the others is wrong.
    return media.kind in ("avi", "asf", "mpeg")


def _scan_packets(media: ClipMedia, with_sound: bool, without_last: bool) -> Timeline | None:
    """None: the packets do not tell when frames are shown."""
    video, sound, reached = _Packets(media), SoundExtent(), 0
    audio = media.audio if with_sound else None
    if audio is not None and audio.index_entries and media.is_indexed and not media.is_kept:
        # Of a long file, most packets of sound need not be looked at one by one.
        for packet in media.packets(media.video):
            video.add(packet)
        sound = _indexed_extent(media, audio)
    else:
        for packet in media.packets_to_keep(media.video, audio):
            reached = max(reached, (packet.pos or 0) + packet.size)
            if packet.stream is media.video:
                video.add(packet)
            else:
                sound.add(packet)
    _check_complete(media, media.video, len(video.pts), video.torn)
    if video.num_without_time or not any(video.is_key):
        return None
    packet_pts = np.array(video.pts, np.int64)
    keys = np.flatnonzero(np.frombuffer(video.is_key, np.uint8))
    # What comes before the first keyframe, in either order, cannot be decoded.
    shown = np.frombuffer(video.is_hidden, np.uint8) == 0
    shown &= (np.arange(len(packet_pts)) >= keys[0]) & (packet_pts >= packet_pts[keys[0]])
    is_torn = without_last or (media.may_break_off and video.torn.is_end_torn)
    shown[-1] &= not is_torn
    candidates = np.flatnonzero(shown)
    if not len(candidates):
        raise media.fail("has a video stream without a frame to show", stage="decode")
    pts, first = np.unique(packet_pts[candidates], return_index=True)
    own = candidates[first]
    nearest = np.searchsorted(keys, own, side="right") - 1
    is_leading = packet_pts[keys[nearest]] > pts
    timeline = Timeline(
        pts=pts,
        tick_seconds=media.tick_seconds,
        last_frame_ticks=_last_frame_ticks(pts, video.ticks[own[-1]]),
        packets=FramePackets(own, keys[np.maximum(nearest - is_leading, 0)], packet_pts),
        is_torn=is_torn,
        notes=(_TORN_FRAME if is_torn else _cut_short(media, len(video.pts))) + _goes_on(media, reached),
    )
    return _with_sound(media, timeline, sound)


def _scan_by_decoding(media: ClipMedia, with_sound: bool, log: PacketLog | None) -> Timeline:
    video, shown, sound = _Packets(media), _Packets(media), SoundExtent()
    prepare_video_codec(media)
    if log is not None:
        log.watch(media.video.codec_context)
    failure = None
    for packet in media.packets(media.video, media.audio if with_sound else None):
        if packet.stream is not media.video:
            sound.add(packet)
            continue
        if failure is not None:  # in the middle of the file
            raise failure
        video.add(packet)
        if log is not None:
            log.add_packet(packet)
        frames, failure = whole_frames(media, packet)
        shown.add_frames(frames, log)
    frames, failure_at_end = whole_frames(media, None)
    shown.add_frames(frames, log)
    failure = failure or failure_at_end
    if failure is not None and not media.may_break_off:
        raise failure
    _check_complete(media, media.video, len(video.pts), video.torn)
    if not len(shown.pts):
        raise media.fail("has a video stream without a frame to show", stage="decode")
    pts = _times_of_display(media, shown, video)
    timeline = Timeline(
        pts=pts,
        tick_seconds=media.tick_seconds,
        last_frame_ticks=_last_frame_ticks(pts, shown.ticks[-1]),
        num_decoded=len(pts),
        is_torn=failure is not None,
        notes=() if failure is None else _TORN_FRAME,
    )
    return _with_sound(media, timeline, sound)


class _Packets:
    """Times of packets (or frames), in the order in which they come; 14 bytes each."""

    def __init__(self, media: ClipMedia):
        self.media = media
        self.pts, self.ticks = array("q"), array("i")
        self.is_key, self.is_hidden = bytearray(), bytearray()
        self.num_without_time = 0
        self.torn = TornPackets()

    def add(self, packet: av.Packet) -> None:
        self.is_key.append(packet.is_keyframe)
        # An edit list leaves these out of what is shown; others may refer to them.
        self.is_hidden.append(packet.is_discard)
        self.torn.add(packet.is_corrupt)
        self.add_time(packet.pts if packet.pts is not None else packet.dts, packet.duration)

    def add_frames(self, frames: list[av.VideoFrame], log: PacketLog | None) -> None:
        for frame in frames:
            self.add_time(frame.pts, frame.duration)
            if log is not None:
                log.add_frame(frame)

    def add_time(self, pts: int | None, ticks: int | None) -> None:
        self.media.check_num_frames(len(self.pts) + 1)
        self.num_without_time += pts is None
        self.pts.append(pts or 0)
        self.ticks.append(min(max(ticks or 0, 0), 2**31 - 1))


def _times_of_display(media: ClipMedia, shown: _Packets, video: _Packets) -> np.ndarray:
    pts = np.array(shown.pts, np.int64)
    if not shown.num_without_time and (np.diff(pts) > 0).all():
        return pts
    # The decoder handed on decoding times: in ascending order they are the times of display.
    pts = np.unique(np.array(video.pts, np.int64))
    if video.num_without_time or len(pts) < len(shown.pts):
        ticks = 1 / media.frame_rate / media.tick_seconds
        pts = np.round(np.arange(len(shown.pts)) * max(float(ticks), 1.0)).astype(np.int64)
    return pts[: len(shown.pts)]


def _check_complete(media: ClipMedia, stream: av.stream.Stream, found: int, torn: TornPackets) -> None:
    """An mp4's index promises its packets; other containers promise no more than whole packets."""
    what = "frames" if stream is media.video else "packets of sound"
    promised = len(stream.index_entries) if media.kind in ("mp4", "mov") else 0
    if found < promised:
        promised = sum(entry.size > 0 for entry in stream.index_entries)
    if found < promised and not media.is_in_fragments:
        raise media.fail(f"is cut short: {found:,} of {promised:,} {what} are in the file; copy it again")
    num_torn = torn.num_amid(media.may_break_off)
    if num_torn > media.num_whole[stream.index] and not media.is_in_fragments:
        raise media.fail(f"is cut short or damaged: {num_torn:,} of {found:,} {what} are broken; copy it again")
    if stream is media.video and not found:
        raise media.fail("has a video stream without a frame", stage="decode")
    if media.kind == "gif" and found == 1:
        raise media.fail("is a GIF picture, not a clip: nothing moves in it")


def _goes_on(media: ClipMedia, reached: int) -> tuple[str, ...]:
    """Note that the file has more than its reader reaches; ``reached``: the end of its last packet."""
    left = media.num_bytes - reached
    # Files attached to a Matroska may stand at its end.
    may_be_joined = media.kind in ("flv", "mkv", "webm") and all(
        stream.type != "attachment" for stream in media.container.streams
    )
    if not may_be_joined or left <= _UNREAD_SHARE * media.num_bytes:
        return ()
    why = "it seems to be several files joined; give them one by one"
    return (f"the last {left:,} bytes of the file are not read: {why}",)


def _cut_short(media: ClipMedia, found: int) -> tuple[str, ...]:
    """Note on what is missing of a fragmented recording that broke off."""
    missing = _num_missing(media, media.video, found)
    return (
        (f"the file is cut short: {count_of(missing, 'frame is', 'frames are')} missing at its end",)
        if missing > 0
        else ()
    )


def _sound_cut_short(media: ClipMedia, stream: av.AudioStream, found: int) -> tuple[str, ...]:
    missing = _num_missing(media, stream, found)
    what = "packets of sound are" if missing > 1 else "packet of sound is"
    return (f"the file is cut short: {missing:,} {what} missing at its end",) if missing > 0 else ()


def _num_missing(media: ClipMedia, stream: av.stream.Stream, found: int) -> int:
    return sum(entry.size > 0 for entry in stream.index_entries) - found if media.is_in_fragments else 0


def _with_sound(media: ClipMedia, timeline: Timeline, sound: SoundExtent) -> Timeline:
    if media.audio is not None and sound.num_packets:
        _check_complete(media, media.audio, sound.num_packets, sound.torn)
        start, end = (at - timeline.start_seconds for at in sound.seconds(media, media.audio))
        is_torn = sound.is_end_torn(media)
        torn = (TORN_SOUND,) if is_torn else ()
        notes = (*timeline.notes, *torn, *_sound_cut_short(media, media.audio, sound.num_packets))
        timeline = replace(timeline, sound_start_seconds=start, sound_end_seconds=end)
        timeline = replace(timeline, is_sound_torn=is_torn, notes=notes)
        media.check_seconds(end - start)
    media.check_seconds(timeline.duration_seconds)
    return timeline


def _indexed_extent(media: ClipMedia, stream: av.AudioStream) -> SoundExtent:
    """The extent of an indexed clip's sound, from its first packets and its last alone."""
    entries, extent = stream.index_entries, SoundExtent()
    for ticks in (entries[0].timestamp, entries[-1].timestamp):
        media.seek(stream, ticks)
        for packet in islice(media.packets(stream), 2):
            extent.add(packet)
    extent.num_packets = sum(entry.size > 0 and entry.pos + entry.size <= media.num_bytes for entry in entries)
    return extent


def _last_frame_ticks(pts: np.ndarray, stated: int) -> int:
    if stated > 0 or len(pts) == 1:
        return max(stated, 0)
    return int(np.median(np.diff(pts)))
