"""decoder.py: one clip's bytes -> the frames and the seconds of sound that its tokens need."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from typing import Literal

import av
import numpy as np

from viper_e2e.clip import DecodedClip, Segment, Side
from viper_e2e.config import DecodingConfig, ModelConfig, needs_of
from viper_e2e.decoding.assembly import Assembly, Pictures
from viper_e2e.decoding.attempts import Attempt, ReadAgain
from viper_e2e.decoding.audible_track import heard_track
from viper_e2e.decoding.blank_frames import Unseen
from viper_e2e.decoding.close_up_frames import frame_source_of
from viper_e2e.decoding.codec import first_frame
from viper_e2e.decoding.container import Source, name_of, open_clip, open_sound
from viper_e2e.decoding.decord import DecordReader
from viper_e2e.decoding.external import ExternalReader
from viper_e2e.decoding.media import ClipMedia
from viper_e2e.decoding.plan import Plan, Window
from viper_e2e.decoding.pyav import FrameReader
from viper_e2e.decoding.scan import read_sound_extent, read_timeline
from viper_e2e.decoding.sound import SoundReader, SoundTrack
from viper_e2e.decoding.timeline import Timeline
from viper_e2e.decoding.torchcodec import NvdecReader, TorchcodecReader
from viper_e2e.decoding.tracks import Tracks, sound_note
from viper_e2e.errors import ViperError

_log = logging.getLogger(__name__)

Sees = Literal["always", "without units", "never"]

_EXTERNAL: dict[str, type[ExternalReader]] = {
    "decord": DecordReader,
    "torchcodec": TorchcodecReader,
    "nvdec": NvdecReader,
}
"""Backends beside PyAV."""


class ClipDecoder:
    """Decodes clips, both inside the module and in the loader's workers; picklable, loads no torch."""

    def __init__(
        self,
        config: DecodingConfig,
        *,
        hears: bool = True,
        sees: Sees = "always",
        comes_back: bool = False,
    ):
        """Make a decoder; anything that is not needed is neither decoded nor checked.

        `hears`: whether sound is needed. `sees`: whether pictures are; ``without units``: only those of a clip
        that has no action units. `comes_back`: frames smaller than the clip's own record where they came from,
        so that faces in them can be decoded again at a higher resolution.
        """
        if config.num_frames < 1:
            raise ViperError(f"decoding.num_frames is {config.num_frames}; give at least 1")
        if config.max_side is not None and config.max_side < 1:
            raise ViperError(f"decoding.max_side is {config.max_side}; give at least 1, or null")
        if config.video_track is not None and config.video_track < 1:
            raise ViperError(f"decoding.video_track is {config.video_track}; tracks are counted from 1")
        if config.audio_track is not None and config.audio_track < 1:
            raise ViperError(f"decoding.audio_track is {config.audio_track}; tracks are counted from 1")
        if config.span_seconds <= 0:
            raise ViperError(f"decoding.span_seconds is {config.span_seconds}; give more than 0")
        self.config, self.hears, self.sees, self.comes_back = config, hears, sees, comes_back
        self.frames_decoded: int | None = 0
        """Frames that the codec really decoded in the last call; None: the backend does not report it."""

    @classmethod
    def for_model(cls, config: ModelConfig) -> ClipDecoder:
        """A decoder for a model, which leaves out what none of its modalities needs."""
        needs = needs_of(config.decoding.for_modalities or config.modalities)
        sees: Sees = "always" if "face" in needs else "without units" if "units" in needs else "never"
        comes_back = config.faces.close_ups and sees == "always"
        return cls(config.decoding, hears="sound" in needs, sees=sees, comes_back=comes_back)

    def __call__(
        self,
        source: Source,
        *,
        sound: Source | None = None,
        name: str = "",
        action_units: np.ndarray | None = None,
        segment: Segment | None = None,
    ) -> DecodedClip:
        """Decode what a clip's tokens need.

        `source`: the file's bytes, or its path (never read whole). `sound`: a separate file (wav, flac, m4a,
        mp3, opus …) that replaces the file's own sound; its first sample belongs to the clip's first frame.
        `action_units` are handed on. `segment`: decode only this part of the file (and of `sound`), as if it
        were the clip, whose times then count from where it begins.
        Raises `ClipError`: stage ``read`` (no such file), ``container`` (not a clip, cut short, over
        `config.limits`), ``decode`` (damaged pictures), ``sound`` (damaged or unknown sound).
        """
        sees = self.sees == "always" or (self.sees == "without units" and action_units is None)
        ((_, clip),) = self._decode(source, sound, name, None, sees=sees, segment=segment)
        return replace(clip, action_units=action_units)

    def windows(
        self,
        source: Source,
        window_seconds: float | int,
        hop_seconds: float | int,
        *,
        sound: Source | None = None,
        name: str = "",
        segment: Segment | None = None,
    ) -> Iterator[tuple[float, DecodedClip]]:
        """Each window of a clip as if it were a clip, in one pass; memory is bounded by a window's.

        Yields (start in seconds after the file's first frame, or after the start of `segment`; clip whose times
        count from that start). The last window ends where the file does, or `segment`; what is shorter than a
        window is one.
        Raises `ViperError` for lengths that are not positive, and what decoding a clip raises.
        """
        if not (window_seconds > 0 and hop_seconds > 0):
            raise ViperError(f"windows of {window_seconds} s every {hop_seconds} s: both must be more than 0")
        tiling = float(window_seconds), float(hop_seconds)
        return self._decode(source, sound, name, tiling, sees=self.sees != "never", segment=segment)

    def _decode(
        self,
        source: Source,
        sound: Source | None,
        name: str,
        tiling: tuple[float, float] | None,
        *,
        sees: bool,
        segment: Segment | None,
    ) -> Iterator[tuple[float, DecodedClip]]:
        config = self.config if self.hears else replace(self.config, sound="none")
        decoding = _Decoding(config, source, sound, name_of(source, name), tiling, sees, segment)
        side = "full" if segment is None else segment.side
        zero = 0.0 if segment is None else segment.start_seconds
        try:
            for window, clip in decoding.run():
                if self.comes_back and max(clip.frames.shape[1:3]) < max(clip.display_size):
                    clip = replace(clip, frame_source=frame_source_of(source, window.frames, side))
                yield window.start_seconds - zero, clip
        finally:
            self.frames_decoded = decoding.num_decoded


class _Decoding:
    """One call's way through one file."""

    def __init__(
        self,
        config: DecodingConfig,
        source: Source,
        sound: Source | None,
        name: str,
        tiling: tuple[float, float] | None,
        sees: bool = True,
        segment: Segment | None = None,
    ):
        self.sees = sees
        self._side: Side = "full" if segment is None else segment.side
        # Without a time of its own, a segment is a half of all pictures.
        self._span = None if segment is None or segment.span == (0.0, math.inf) else segment.span
        self.config, self.source, self.sound, self.name, self.tiling = config, source, sound, name, tiling
        self.num_decoded: int | None = 0
        hears = config.sound != "none" and sound is None
        self._tracks = Tracks(config.video_track, config.audio_track if hears else None, hears)
        self._sound_notes: tuple[str, ...] = ()

    def run(self) -> Iterator[tuple[Window, DecodedClip]]:
        """Each attempt continues after the windows that those before have handed out."""
        num_done, attempt = 0, Attempt()
        while True:
            try:
                for item in self._pass(attempt, num_done):
                    yield item
                    num_done += 1
                return
            except ReadAgain as reason:
                attempt = attempt.after(reason, self.name)

    def _pass(self, attempt: Attempt, num_done: int) -> Iterator[tuple[Window, DecodedClip]]:
        config = self.config
        with ExitStack() as files:
            media = self._with_sound_chosen(files)
            timeline = read_timeline(
                media,
                self.source,
                with_sound=self._tracks.hears,
                by_decoding=attempt.by_decoding,
                without_last=attempt.is_torn,
            )
            self._count(timeline.num_decoded)
            if timeline.by_order or not media.kept.is_complete:
                files.close()
                media = files.enter_context(self._open())
            frame = None if attempt.has_fields or not self.sees else self._frame_for_another(timeline)
            track = self._sound_track(files, media, timeline, apart=frame is not None or not self.sees)
            plan = Plan(config, timeline, track.extent if track else (0.0, 0.0), self.tiling, self._span)
            mask, spans = plan.wanted(num_done)
            whole = config.sound == "windows"
            sound = SoundReader(track, spans, config.sample_rate, whole=whole) if track else None
            pictures = self._pictures(media, timeline, frame, mask, sound, attempt.has_fields)
            has_sound = track is not None or (config.sound == "none" and bool(media.audio or self.sound))
            try:
                notes = (*media.notes, *timeline.notes, *self._sound_notes)
                yield from Assembly(plan, num_done, pictures, sound, self.name, has_sound, notes)
            finally:
                self._count(pictures.num_decoded)

    def _with_sound_chosen(self, files: ExitStack) -> ClipMedia:
        """The open clip, in which the sound track to use is chosen and reported, once for all its windows."""
        media = files.enter_context(self._open())
        if not self._tracks.hears or self._sound_notes or len(media.container.streams.audio) <= 1:
            return media
        if self.config.audio_track is None:
            files.close()
            self._tracks, note = heard_track(self.source, self.config.limits, self.name, self._tracks)
            self._sound_notes = (note,)
            return files.enter_context(self._open())
        if media.audio is not None:
            self._sound_notes = (sound_note(media.container, media.audio),)
        return media

    def _pictures(
        self,
        media: ClipMedia,
        timeline: Timeline,
        frame: av.VideoFrame | None,
        mask: np.ndarray,
        sound: SoundReader | None,
        has_fields: bool,
    ) -> Pictures:
        """Whoever decodes the wanted frames: nobody, another backend, which has a first ``frame``, or PyAV."""
        max_side = self.config.max_side
        if not self.sees:
            return Unseen(media, mask)
        if frame is not None:
            return _EXTERNAL[self.config.backend](media, self.source, frame, mask, max_side)
        return FrameReader(media, timeline, mask, max_side, sound, has_fields=has_fields, side=self._side)

    def _sound_track(
        self, files: ExitStack, media: ClipMedia, timeline: Timeline, *, apart: bool
    ) -> SoundTrack | None:
        """Source of the sound; None if none is wanted or there is none."""
        if self.config.sound == "none":
            return None
        if self.sound is None:
            extent = (timeline.sound_start_seconds, timeline.sound_end_seconds)
            own = files.enter_context(self._open()) if apart and extent[0] < extent[1] else media
            if own.audio is None or extent[0] == extent[1]:
                return None
            return SoundTrack(own, own.audio, extent, timeline.start_seconds, apart, timeline.is_sound_torn)
        name, limits = f"{self.name} (sound)", self.config.limits
        with open_sound(self.sound, limits, name) as beside:
            # Some kinds count from before the first sample that is to be heard (MP3's decoder delay).
            zero = float((beside.audio.start_time or 0) * beside.tick_seconds_of(beside.audio))
            start, end = read_sound_extent(beside)
        beside = files.enter_context(open_sound(self.sound, limits, name))
        return SoundTrack(beside, beside.audio, (start - zero, end - zero), zero, True)

    def _frame_for_another(self, timeline: Timeline) -> av.VideoFrame | None:
        """The clip's first frame, if another backend than PyAV shall and can read the others."""
        backend = self.config.backend
        if backend == "pyav" or self._side != "full":
            return None
        with self._open() as again:
            frame = first_frame(again)
            reason = _EXTERNAL[backend].why_not(again, timeline, frame)
        if reason:
            _log.info("%s is read by PyAV, not by %s: %s", self.name or "a clip", backend, reason)
        return None if reason else frame

    def _open(self) -> AbstractContextManager[ClipMedia]:
        return open_clip(self.source, self.config.limits, self.name, self._tracks)

    def _count(self, num_decoded: int | None) -> None:
        known = self.num_decoded
        self.num_decoded = None if known is None or num_decoded is None else known + num_decoded
