"""packing/segments.py: clips that are a part of a longer file: what is cut out of it, and what is wrong."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from viper_e2e.clip import Segment
from viper_e2e.config import LimitsConfig
from viper_e2e.cutting import TAIL_SECONDS, LongFile, Stretch, sound_as_wav
from viper_e2e.decoding import open_sound
from viper_e2e.errors import ClipError
from viper_e2e.packing.media_worker import in_worker
from viper_e2e.packing.report import Findings
from viper_e2e.runtime import count_of, first_of, printable
from viper_e2e.tables import Row

FAR_APART_SECONDS = 1.0
"""Film in front of a clip that is reported, if it is also longer than the clip, on average."""
MUCH_SECONDS = 0.1
"""An End that is further beyond the end of its file is reported."""
FAR_BEHIND = 10
"""Times the length of a file: who is so far off has another unit in mind."""


@dataclass(frozen=True)
class Clip:
    """A row with its files."""

    row: Row
    video: Path
    sound: Path | None
    units: Path | None
    stretch: Stretch | None = None
    """The stretch to cut out of the video; ``None``: the clip is the whole file."""
    file_seconds: float = math.inf
    """Duration of the video, if the clip is cut out of it."""
    has_own_files: bool = False
    """Whether sound and action units begin where the clip does, not where the video does."""


def with_stretches(clips: Sequence[Clip], limits: LimitsConfig, findings: Findings) -> list[Clip]:
    """The clips, those that have a time in their file with what is to be cut; a file is looked at once.

    What cannot be cut is left out; ``findings`` have it, and which files are cut and which are not.
    """
    films = Films()
    by_video = defaultdict(list)
    for clip in clips:
        if is_timed(clip.row.segment):
            by_video[clip.video].append(clip)
    found: dict[int, Clip | None] = {}
    for video, same in by_video.items():
        try:
            spans = [_span_of(clip) for clip in same]
            film, stretches = in_worker.on_file(video, look_into, video, limits, spans)
        except ClipError as error:
            lines = ", ".join(str(clip.row.line) for clip in same)
            findings.leave_out(f"lines {lines}: {error}")
            found |= dict.fromkeys((clip.row.line for clip in same), None)
            continue
        cuts = [_cut_out_of(film, *both, findings) for both in zip(same, stretches, strict=True)]
        found |= {clip.row.line: made for clip, made in zip(same, cuts, strict=True)}
        films.add(film, [made.stretch for made in cuts if made is not None and made.stretch is not None])
    findings.note(films.lines())
    placed = [found.get(clip.row.line, clip) for clip in clips]
    return [clip for clip in placed if clip is not None]


class Films:
    """Counts files that clips are cut out of, and those that cannot be cut."""

    def __init__(self) -> None:
        self._cut: Counter[str] = Counter()
        self._whole: list[tuple[str, int, int]] = []
        """Name, clips, bytes."""
        self._sounds: list[str] = []
        """Names of films with which not all sound goes along, and what does."""
        self._num_clips, self._clip_seconds, self._early_seconds = 0, 0.0, 0.0

    def add(self, film: LongFile, stretches: Sequence[Stretch]) -> None:
        """Take a file and what is to be cut out of it."""
        uncut = sum(stretch.is_uncut for stretch in stretches)
        if uncut:
            self._whole.append((film.path.name, uncut, film.num_bytes))
        elif stretches:
            self._cut[film.kind] += 1
            if film.sound_note:
                self._sounds.append(f"{printable(film.path.name)} ({film.sound_note})")
        for stretch in stretches:
            if stretch.muxer is not None:
                self._num_clips += 1
                self._clip_seconds += stretch.end_seconds - stretch.start_seconds
                self._early_seconds += stretch.early_seconds

    def lines(self) -> list[str]:
        """Lines to show before hours of work."""
        lines = []
        if self._cut:
            kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self._cut.items()))
            lines.append(f"cut by copying packets: {count_of(self._cut.total(), 'film')} ({kinds})")
        if self._whole:
            few = first_of(
                f"{printable(name)} ({clips} × {size / 1e6:.1f} MB)" for name, clips, size in self._whole
            )
            megabytes = sum(clips * size for _, clips, size in self._whole) / 1e6
            lines.append(
                "packed whole with each of their clips, as they cannot be cut without re-encoding: "
                f"{count_of(len(self._whole), 'film')}, {megabytes:,.1f} MB in all: {few}; "
                "`ffmpeg -i FILE -c copy FILE.mkv` may help"
            )
        if self._sounds:
            lines.append(
                f"clips cut out of {count_of(len(self._sounds), 'film')} keep one sound track, the one that is "
                f"used for the whole film: {first_of(self._sounds)}; `ffmpeg -i FILE -map 0:v -map 0:a:1 -c "
                "copy FILE.mkv` makes a film with only the second"
            )
        if self._early_seconds > max(self._clip_seconds, FAR_APART_SECONDS * self._num_clips):
            clip, early = (at / self._num_clips for at in (self._clip_seconds, self._early_seconds))
            lines.append(
                f"keyframes are far apart: shards hold {early:.1f} s of film before each Start, on average, "
                f"for {count_of(self._num_clips, 'clip')} of {clip:.1f} s, which decoders have to go through; "
                "nothing is wrong"
            )
        return lines


def is_timed(segment: Segment | None) -> bool:
    """Whether it is less than the whole time of its file."""
    return segment is not None and segment.span != (0.0, math.inf)


def look_into(
    video: Path, limits: LimitsConfig, spans: Sequence[tuple[float, float]]
) -> tuple[LongFile, list[Stretch | ClipError | None]]:
    """A film, and what is to be cut out of it for each span; None for one that begins after its end.

    Raises `ClipError` for a film that cannot be read.
    """
    film = LongFile(video, limits)
    return film, [_stretch(film, *span) if span[0] < film.duration_seconds else None for span in spans]


def _stretch(film: LongFile, start_seconds: float, end_seconds: float) -> Stretch | ClipError:
    try:
        return film.stretch(start_seconds, end_seconds)
    except ClipError as error:
        return error


def _span_of(clip: Clip) -> tuple[float, float]:
    assert clip.row.segment is not None
    return clip.row.segment.span


def _cut_out_of(
    film: LongFile, clip: Clip, stretch: Stretch | ClipError | None, findings: Findings
) -> Clip | None:
    row, lasts = clip.row, film.duration_seconds
    start, end = _span_of(clip)
    if stretch is None:
        hint = "; are these milliseconds? Start and End are seconds, or hh:mm:ss.mmm" * _are_thousandths(
            start, lasts
        )
        findings.leave_out(
            f"{row.file_id}: line {row.line}: Start {start:g} s is beyond the end of {clip.video}, "
            f"which lasts {lasts:.3f} s{hint}"
        )
        return None
    if not math.isinf(end) and end > lasts + MUCH_SECONDS:
        hint = " (far beyond it: are these milliseconds? End is seconds)" * _are_thousandths(end, lasts)
        findings.count(f"whose End is beyond the end of their file; they end with the file{hint}")
    if isinstance(stretch, ClipError):
        findings.leave_out(f"{row.file_id}: line {row.line}: {stretch}")
        return None
    return replace(clip, stretch=stretch, file_seconds=lasts)


def _are_thousandths(seconds: float, lasts: float) -> bool:
    """Whether a time is far beyond the end of its file, and within it as milliseconds."""
    return FAR_BEHIND * lasts < seconds <= 1000 * (lasts + MUCH_SECONDS)


def sound_of(clip: Clip, segment: Segment, limits: LimitsConfig) -> bytes:
    """The sound kept apart that belongs to a stretch, as a wav that begins with the stretch's file.

    ``segment``: where in that file the clip lies. Raises `ClipError`.
    """
    assert clip.sound is not None
    assert clip.stretch is not None
    begin = -segment.start_seconds if clip.has_own_files else clip.stretch.start_seconds - segment.start_seconds
    end = begin + segment.end_seconds + TAIL_SECONDS
    return in_worker.on_file(clip.sound, _heard_between, clip.sound, limits, begin, end)


def _heard_between(sound: Path, limits: LimitsConfig, begin: float, end: float) -> bytes:
    """Seconds from the file's first."""
    with open_sound(sound, limits) as media:
        zero = float((media.audio.start_time or 0) * media.tick_seconds_of(media.audio))
        return sound_as_wav(media, media.audio, zero + begin, zero + end)


def units_of(clip: Clip, units: np.ndarray) -> np.ndarray:
    """The rows of a clip, of action units that are spread evenly over the whole file."""
    if clip.stretch is None or clip.has_own_files:
        return units
    span, lasts = (clip.stretch.start_seconds, clip.stretch.end_seconds), clip.file_seconds
    start, end = (min(at, lasts) / lasts * len(units) for at in span)
    first = min(round(start), len(units) - 1)
    return units[first : max(round(end), first + 1)]
