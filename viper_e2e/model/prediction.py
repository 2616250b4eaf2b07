"""prediction.py: a model's prediction for one clip or a window of it, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import isfinite, nan
from typing import Any

from viper_e2e.config import looks_at_face

ONLY_PERSON = 1
"""One person of a clip is followed."""
NO_NUMBER = "the model gave no number (NaN); is its checkpoint intact?"
NOTHING_THERE = "nothing could be seen or heard: the model answered without any input"
OTHERS_IN_VIEW = "another face is in view: one face is followed, the other is ignored"
NO_FACE = "no face was found: the whole picture was scored"

Box = tuple[float, float, float, float, str]
"""x0 y0 x1 y1 in pixels of the clip as displayed, and how it was found."""


@dataclass(frozen=True)
class Prediction:
    """The intensities of one clip or window, or the error that prevented them."""

    clip: str
    """Its key or file name."""
    index: int = -1
    """Number of the clip in its source; -1: it is not there as a whole, or there is no source."""
    person: int = ONLY_PERSON
    start_seconds: float | None = None
    """Begin on the clip's clock, to the millisecond, as all times here; ``None`` if nothing was read."""
    end_seconds: float | None = None
    is_window: bool = False
    """A part of its clip, scored as a clip of its own."""
    num_windows: int = 0
    """Number of windows that this is the mean of."""
    intensities: dict[str, float | None] | None = None
    """By emotion. NaN: the model gave no number; ``None``: left out on purpose; no dict: not read."""
    spread: dict[str, float] | None = None
    """Standard deviation over separately trained heads, by emotion; ``None`` for a single head."""
    present: Mapping[str, bool] | None = None
    """Whether the clip has each modality."""
    face_found: float | None = None
    """Share of the model's frames that show a face, 0 … 1; ``None`` if the model reads no frames."""
    unheard_seconds: float | None = None
    """Seconds of sound that no token covers."""
    words: str | None = None
    """The words that the model read; ``None`` if it reads none."""
    frame_seconds: tuple[float, ...] | None = None
    """Times of the model's frames, to a tenth of a millisecond; ``None`` unless asked for."""
    boxes: tuple[Box | None, ...] | None = None
    """The face in each of these frames; ``None`` unless asked for."""
    warning: str | None = None
    """Warning about how the clip was read."""
    error: str | None = None
    """Why there are no intensities."""
    stage: str = ""
    """Stage that failed, as in `ClipError.stage`; journals of earlier versions lack it."""
    hidden: tuple[str, ...] = ()
    """Modalities that were treated as absent."""

    @property
    def duration_seconds(self) -> float | None:
        if self.start_seconds is None or self.end_seconds is None:
            return None
        return round(self.end_seconds - self.start_seconds, 3)

    @property
    def has_number(self) -> bool:
        """False if the model gave a number that is not finite."""
        return all(value is None or isfinite(value) for value in (self.intensities or {}).values())

    @property
    def is_valid(self) -> bool:
        """Whether the clip could be read and the model gave numbers (some may be left out on purpose)."""
        return self.error is None and self.has_number

    @property
    def is_faceless(self) -> bool:
        """Whether the model read frames of the clip and none of them shows a face."""
        sees = any(there and looks_at_face(name) for name, there in (self.present or {}).items())
        return self.is_valid and sees and self.face_found == 0

    def without_faceless(self) -> Prediction:
        """Without its numbers if no face was found (``--no-face nan``); it stays valid."""
        if not self.is_faceless:
            return self
        told = (self.warning or NO_FACE).replace(NO_FACE, "no face was found: no numbers (--no-face nan)")
        return replace(self, intensities=dict.fromkeys(self.intensities or {}), spread=None, warning=told)

    def in_window(self, start_seconds: float, end_seconds: float) -> Prediction:
        """The same on the clock of its clip, for a window that was scored as a clip of its own."""
        frames = self.frame_seconds and tuple(round(start_seconds + s, 4) for s in self.frame_seconds)
        start, end = round(start_seconds, 3), round(end_seconds, 3)
        return replace(self, start_seconds=start, end_seconds=end, is_window=True, frame_seconds=frames)

    def to_json(self) -> dict[str, Any]:
        """Record for a journal: all values that differ from their defaults, except the number in the source."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "index"}
        return {"clip": self.clip} | {n: v for n, v in values.items() if v != _DEFAULTS.get(n)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Prediction:
        """Read from a journal's record, also from those of earlier versions."""
        known = {field.name: data[field.name] for field in fields(cls) if field.name in data}
        # Records told a window by its times.
        known.setdefault("is_window", data.get("window_seconds") is not None)
        for name in ("frame_seconds", "boxes", "hidden"):
            if known.get(name) is not None:
                known[name] = tuple(tuple(x) if isinstance(x, list) else x for x in known[name])
        if known.get("intensities") is not None:
            # JSON has null where a number was none.
            known["intensities"] = {n: nan if v is None else v for n, v in known["intensities"].items()}
        return cls(**known)


_DEFAULTS = {field.name: field.default for field in fields(Prediction)}


def failed(
    clip: str, reason: str, modalities: Sequence[str], *, stage: str = "", start_seconds: float | None = None
) -> Prediction:
    """The prediction of a clip that could not be read, or could not from some second on."""
    present = dict.fromkeys(modalities, False)
    return Prediction(clip, present=present, error=reason, stage=stage, start_seconds=start_seconds)
