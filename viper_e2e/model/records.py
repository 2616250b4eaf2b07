"""records.py: predictions as people and programs get them, plain data; of windows, their mean."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from viper_e2e.clip import UNHEARD, WORTH_TELLING_SECONDS
from viper_e2e.config import looks_at_face, reads_words
from viper_e2e.labels import LabelSet
from viper_e2e.model.calibration import Calibration
from viper_e2e.model.prediction import NO_NUMBER, Prediction, failed
from viper_e2e.runtime import count_of

Record = dict[str, Any]

MAX_STRETCHES = 3
"""Most stretches of a clip that a warning lists."""


def record_of(
    prediction: Prediction, labels: LabelSet | None = None, calibration: Calibration | None = None
) -> Record:
    """A prediction as JSON has it.

    Keys: ``clip``, ``person``, ``valid``, ``error``, ``warning``, ``start_seconds``, ``end_seconds``,
    ``duration_seconds``, ``intensities`` (``{name: value}``), ``present`` (``{modality: bool}``),
    ``face_found`` (share of the looked-at frames that have a face; ``None`` if the model looks at none),
    ``unheard_seconds`` (of sound that no token covers), ``frame_seconds`` and, with boxes, ``boxes``: per
    frame ``[x0, y0, x1, y1, "detected" | "interpolated"]`` or ``None``. ``warning`` tells what a person should
    know of how the clip was read, or is ``None``. A clip that could not be read, or for which the model gave no
    number, has ``valid`` False, its ``error``, and ``None`` elsewhere. Where ``labels`` have classes there is
    ``classes`` too: ``{task: the most probable one}``. ``spread``: of members that were trained apart
    (``--ensemble``), the standard deviation of each label. ``words``: those that were read, of a model that
    reads.
    With a ``calibration``, which the prediction was made with, a whole clip has ``intervals``, ``sets`` and
    ``coverage`` (`Calibration.said`); what they promise goes for whole clips alone, so that windows have none.
    """
    one = prediction
    if not one.has_number:
        one = failed(one.clip, NO_NUMBER, tuple(one.present or ()))
        if prediction.start_seconds is not None and prediction.end_seconds is not None and prediction.is_window:
            one = one.in_window(prediction.start_seconds, prediction.end_seconds)
    record: Record = {
        "clip": one.clip,
        "person": one.person,
        "valid": one.is_valid,
        "error": one.error,
        "warning": one.warning,
        "start_seconds": one.start_seconds,
        "end_seconds": one.end_seconds,
        "duration_seconds": one.duration_seconds if one.error is None else None,
        "intensities": one.intensities,
        "present": dict(one.present or {}),
        "face_found": one.face_found,
        "unheard_seconds": one.unheard_seconds,
        "frame_seconds": None if one.frame_seconds is None else list(one.frame_seconds),
    }
    if reads_words(record["present"]):
        record["words"] = one.words
    if labels is not None and (classes := labels.classes_of(one.intensities or {})):
        record["classes"] = classes
    if labels is not None and calibration is not None and not (one.is_window or one.num_windows):
        record |= calibration.said(one.intensities or {}, labels)
    if one.spread is not None:
        record["spread"] = one.spread
    if one.boxes is not None:
        record["boxes"] = [None if box is None else list(box) for box in one.boxes]
    if one.is_window or one.num_windows:
        record["window_seconds"] = [one.start_seconds, one.end_seconds] if one.is_window else None
    return record


def is_faceless(record: Record) -> bool:
    """See `Prediction.is_faceless`."""
    sees = any(there and looks_at_face(name) for name, there in record["present"].items())
    return bool(record["valid"]) and sees and record["face_found"] == 0


def summary_of(windows: Sequence[Prediction]) -> Prediction:
    """One for a whole clip from those of its windows: means in which each second counts once.

    Windows that could not be scored are left out of the means, and ``warning`` tells from where to where they
    reach. One alone that is of no window stays as it is.
    """
    scored = [window for window in windows if window.is_valid]
    if not scored or not scored[0].is_window:
        return windows[0]
    weights = seconds_counted_once([(w.start_seconds or 0.0, w.end_seconds or 0.0) for w in scored])
    unheard = sum(map(_own_unheard, scored, weights))
    first, emotions = scored[0], list(scored[0].intensities or {})
    return Prediction(
        first.clip,
        first.index,
        first.person,
        first.start_seconds,
        scored[-1].end_seconds,
        num_windows=len(scored),
        intensities={n: _mean([(window.intensities or {})[n] for window in scored], weights) for n in emotions},
        spread=_mean_spread(scored, weights),
        present={n: any((window.present or {})[n] for window in scored) for n in first.present or ()},
        face_found=_mean([window.face_found for window in scored], weights),
        unheard_seconds=round(unheard, 3),
        warning="; ".join(_warnings(windows, unheard)) or None,
        words=_joined([window.words for window in scored]),
    )


def seconds_counted_once(spans: Sequence[tuple[float, float]]) -> list[float]:
    """Own part of each span (start, end) in the seconds that all of them, overlapping or not, cover.

    A second that lies in n spans counts 1/n for each, so that the parts add up to the seconds covered: weights
    for a mean over time in which no second counts twice.
    """
    edges = sorted({edge for span in spans for edge in span})
    waiting = deque(sorted(range(len(spans)), key=lambda i: spans[i][0]))
    parts, under_way = [0.0] * len(spans), []
    for left, right in pairwise(edges):
        while waiting and spans[waiting[0]][0] <= left:
            under_way.append(waiting.popleft())
        under_way = [i for i in under_way if spans[i][1] > left]
        for i in under_way:
            parts[i] += (right - left) / len(under_way)
    return parts


def _mean_spread(windows: Sequence[Prediction], weights: Sequence[float]) -> dict[str, float] | None:
    """The mean over windows; members are taken to agree equally in each."""
    names = list(windows[0].spread or {})
    means = {name: _mean([(window.spread or {}).get(name) for window in windows], weights) for name in names}
    return {name: mean for name, mean in means.items() if mean is not None} or None


def _joined(words: Sequence[str | None]) -> str | None:
    """The words of all windows, each text once."""
    there = [text for text in words if text is not None]
    return " ".join(filter(None, dict.fromkeys(there))) if there else None


def _own_unheard(window: Prediction, own_seconds: float) -> float:
    """Unheard seconds of a window's own part of its clip, as if they were spread evenly."""
    return (window.unheard_seconds or 0.0) * own_seconds / max(window.duration_seconds or 0.0, 1e-9)


def _warnings(windows: Sequence[Prediction], unheard_seconds: float) -> list[str]:
    """Warnings of the windows, each once, with its seconds unless it holds for all that were scored;
    and which windows are missing.

    Unused sound of windows is reported for the whole clip.
    """
    scored = [window for window in windows if window.is_valid]
    of_windows: dict[str, list[Prediction]] = {}
    hint = ""
    for window in scored:
        for warning in filter(None, (window.warning or "").split("; ")):
            if UNHEARD in warning:
                hint = hint or warning.partition(UNHEARD)[2]
            else:
                of_windows.setdefault(warning, []).append(window)
    found = [
        told if len(own) == len(scored) else f"{told}, {_stretches(own)}" for told, own in of_windows.items()
    ]
    for window in windows:
        if not window.is_valid:
            until = "on" if window.end_seconds is None else f"to {window.end_seconds:g} s"
            found.append(f"not scored from {window.start_seconds:g} s {until}: {window.error or NO_NUMBER}")
    if unheard_seconds >= WORTH_TELLING_SECONDS:
        found.append(f"{unheard_seconds:.1f} s{UNHEARD}{hint}")
    return list(dict.fromkeys(found))


def _stretches(windows: Sequence[Prediction]) -> str:
    """Stretches that these windows cover, adjacent ones joined; the first few."""
    joined: list[tuple[float, float]] = []
    for window in windows:
        start, end = window.start_seconds or 0.0, window.end_seconds or 0.0
        if joined and start <= joined[-1][1]:
            start, _ = joined.pop()
        joined.append((start, end))
    told = [f"from {start:g} to {end:g} s" for start, end in joined[:MAX_STRETCHES]]
    more = len(joined) - MAX_STRETCHES
    return ", ".join(told) + (f" and {count_of(more, 'more stretch', 'more stretches')}" if more > 0 else "")


def _mean(values: Sequence[float | None], weights: Sequence[float]) -> float | None:
    """Over those that are there; None if none is."""
    there = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None]
    total = sum(weight for _, weight in there)
    return sum(value * weight for value, weight in there) / total if total > 0 else None
