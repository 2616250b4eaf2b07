"""records.py: what is said of a clip, or of a window of it, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from viper_e2e.clip import UNHEARD, WORTH_TELLING_SECONDS
from viper_e2e.decoding.sampling import seconds_counted_once
from viper_e2e.model.output import ViPEROutput
from viper_e2e.model.predictions import SEEING

BOX_SOURCES = ("none", "detected", "interpolated")

ONLY_PERSON = 1
"""One person of a clip is followed."""

Record = dict[str, Any]
NOTHING_THERE = "nothing could be seen or heard: the numbers are what the model says of nothing"
NO_FACE = "no face was found: the whole picture was scored"


def records_of(
    output: ViPEROutput,
    clips: Sequence[str],
    emotions: Sequence[str],
    modalities: Sequence[str],
    *,
    boxes: bool = False,
) -> list[Record]:
    """One record per clip of a batch.

    Keys: ``clip``, ``person``, ``valid``, ``error``, ``warning``, ``start_seconds``, ``end_seconds``,
    ``duration_seconds``, ``intensities`` (``{name: value}``), ``present`` (``{modality: bool}``),
    ``face_found`` (share of the looked-at frames that have a face; ``None`` if the model looks at none),
    ``unheard_seconds`` (of sound that no token hears), ``frame_seconds`` and, with ``boxes``, ``boxes``: per
    frame ``[x0, y0, x1, y1, "detected" | "interpolated"]`` or ``None``. ``warning`` tells what a person should
    know of how the clip was read, or is ``None``. A clip that could not be read, or for which the model gave no
    number, has ``valid`` False, its ``error``, and ``None`` elsewhere.
    """
    return [
        failed(clip, output.errors[i].reason, modalities)
        if output.errors[i] is not None
        else _scored(output, i, clip, emotions, modalities, boxes)
        for i, clip in enumerate(clips)
    ]


def failed(clip: str, reason: str, modalities: Sequence[str], *, start_seconds: float | None = None) -> Record:
    """The record of a clip that could not be read, or of what is left of it from some second on."""
    return {
        "clip": clip,
        "person": ONLY_PERSON,
        "valid": False,
        "error": reason,
        "warning": None,
        "start_seconds": start_seconds,
        "end_seconds": None,
        "duration_seconds": None,
        "intensities": None,
        "present": dict.fromkeys(modalities, False),
        "face_found": None,
        "unheard_seconds": None,
        "frame_seconds": None,
    }


def _scored(
    output: ViPEROutput, i: int, clip: str, emotions: Sequence[str], modalities: Sequence[str], boxes: bool
) -> Record:
    used = output.used[i]
    values = output.intensities[i].tolist()
    if not all(map(isfinite, values)):
        return failed(clip, "the model gave no number (NaN); is its checkpoint sound?", modalities)
    seconds = round(output.duration_seconds[i].item(), 3)
    is_looking = any(modality in SEEING for modality in modalities)
    record = {
        "clip": clip,
        "person": ONLY_PERSON,
        "valid": True,
        "error": None,
        "warning": None,
        "start_seconds": 0.0,
        "end_seconds": seconds,
        "duration_seconds": seconds,
        "intensities": dict(zip(emotions, values, strict=True)),
        "present": dict(zip(modalities, output.present[i].tolist(), strict=True)),
        "face_found": output.face_found[i][used].float().mean().item() if is_looking else None,
        "unheard_seconds": round(output.unheard_seconds[i], 3) if output.unheard_seconds else 0.0,
        "frame_seconds": [round(s, 4) for s in output.frame_seconds[i][used].tolist()],
    }
    told = [*output.notes[i], NO_FACE] if is_faceless(record) else list(output.notes[i])
    if not any(record["present"].values()):
        told.append(NOTHING_THERE)
    record["warning"] = "; ".join(told) or None
    if boxes:
        sources = output.box_source[i][used].tolist()
        record["boxes"] = [
            [*(round(value, 2) for value in box), BOX_SOURCES[source]] if source else None
            for box, source in zip(output.boxes[i][used].tolist(), sources, strict=True)
        ]
    return record


def is_faceless(record: Record) -> bool:
    """Whether pictures of a clip were looked at, and none of them shows a face."""
    sees = any(record["present"].get(modality) for modality in SEEING)
    return bool(record["valid"]) and sees and record["face_found"] == 0


def without_faceless(record: Record) -> Record:
    """The record without its numbers if no face was found (``--no-face nan``); it stays valid."""
    if not is_faceless(record):
        return record
    told = (record["warning"] or NO_FACE).replace(NO_FACE, "no face was found: no numbers (--no-face nan)")
    return record | {"intensities": dict.fromkeys(record["intensities"]), "warning": told}


# --- windows --------------------------------------------------------------------------------------


def in_window(record: Record, start_seconds: float, end_seconds: float) -> Record:
    """The record of a window that was scored as a clip of its own, on the clock of its clip."""
    start, end = round(start_seconds, 3), round(end_seconds, 3)
    times = {"start_seconds": start, "end_seconds": end, "window_seconds": [start, end]}
    if record["valid"]:
        times["duration_seconds"] = round(end - start, 3)
        times["frame_seconds"] = [round(start_seconds + s, 4) for s in record["frame_seconds"]]
    return record | times


def summary_of(records: Sequence[Record]) -> Record:
    """One record for a whole clip from those of its windows: means in which each second counts once.

    Windows that could not be scored are left out of the means, and ``warning`` tells from where to where they
    reach. One record alone that is of no window stays as it is.
    """
    scored = [record for record in records if record["valid"]]
    if not scored or "window_seconds" not in scored[0]:
        return records[0]
    weights = seconds_counted_once([tuple(record["window_seconds"]) for record in scored])
    start, end = scored[0]["start_seconds"], scored[-1]["end_seconds"]
    unheard = sum(map(_own_unheard, scored, weights))
    return {
        "clip": scored[0]["clip"],
        "person": ONLY_PERSON,
        "valid": True,
        "error": None,
        "warning": "; ".join(_warnings(records, unheard)) or None,
        "start_seconds": start,
        "end_seconds": end,
        "duration_seconds": round(end - start, 3),
        "intensities": {
            name: _mean([record["intensities"][name] for record in scored], weights)
            for name in scored[0]["intensities"]
        },
        "present": {name: any(r["present"][name] for r in scored) for name in scored[0]["present"]},
        "face_found": _mean([record["face_found"] for record in scored], weights),
        "unheard_seconds": round(unheard, 3),
        "frame_seconds": None,
        "window_seconds": None,
    }


def _own_unheard(record: Record, own_seconds: float) -> float:
    """Unheard seconds of a window's own part of its clip, as if they were spread evenly."""
    return record["unheard_seconds"] * own_seconds / max(record["duration_seconds"], 1e-9)


def _warnings(records: Sequence[Record], unheard_seconds: float) -> list[str]:
    """What the windows warn of, each thing once, and which of them are missing.

    How much of a window is not heard is said of the whole clip.
    """
    found: list[str] = []
    hint = ""
    for record in records:
        if record["valid"]:
            for warning in (record["warning"] or "").split("; "):
                if UNHEARD in warning:
                    hint = hint or warning.partition(UNHEARD)[2]
                else:
                    found.append(warning)
            continue
        start, end = record["start_seconds"], record["end_seconds"]
        until = "on" if end is None else f"to {end:g} s"
        found.append(f"not scored from {start:g} s {until}: {record['error']}")
    if unheard_seconds >= WORTH_TELLING_SECONDS:
        found.append(f"{unheard_seconds:.1f} s{UNHEARD}{hint}")
    return list(dict.fromkeys(filter(None, found)))


def _mean(values: Sequence[float | None], weights: Sequence[float]) -> float | None:
    """Over those that are there; None if none is."""
    there = [(value, weight) for value, weight in zip(values, weights, strict=True) if value is not None]
    total = sum(weight for _, weight in there)
    return sum(value * weight for value, weight in there) / total if total > 0 else None
