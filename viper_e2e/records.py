"""records.py: what is said of a clip, as plain data that JSON, CSV and Parquet can hold."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import plain_json
from .errors import ViperError
from .output import ViPEROutput
from .predictions import neutralised

BOX_SOURCES = ("none", "detected", "interpolated")

FORMATS = (".json", ".jsonl", ".csv", ".parquet")

Record = dict[str, Any]


def records_of(
    output: ViPEROutput,
    clips: Sequence[str],
    emotions: Sequence[str],
    modalities: Sequence[str],
    *,
    boxes: bool = False,
) -> list[Record]:
    """One record per clip of a batch.

    Keys: ``clip``, ``valid``, ``error``, ``duration_seconds``, ``intensities`` (``{name: value}``), ``present``
    (``{modality: bool}``), ``face_found`` (share of the looked-at frames that have a face), ``unheard_seconds``
    (of sound that no token hears), ``frame_seconds``
    and, with ``boxes``, ``boxes``: per frame ``[x0, y0, x1, y1, "detected" | "interpolated"]`` or ``None``.
    ``warning`` tells what a person should know of how the clip was read, or is ``None``.
    A clip that could not be read has ``valid`` False, its ``error``, and ``None`` elsewhere.
    """
    return [
        failed(clip, output.errors[i].reason, modalities)
        if output.errors[i] is not None
        else _scored(output, i, clip, emotions, modalities, boxes)
        for i, clip in enumerate(clips)
    ]


def failed(clip: str, reason: str, modalities: Sequence[str]) -> Record:
    """The record of a clip that could not be read."""
    return {
        "clip": clip,
        "valid": False,
        "error": reason,
        "warning": None,
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
    record = {
        "clip": clip,
        "valid": True,
        "error": None,
        "warning": "; ".join(output.notes[i]) or None,
        "duration_seconds": round(output.duration_seconds[i].item(), 3),
        "intensities": dict(zip(emotions, output.intensities[i].tolist(), strict=True)),
        "present": dict(zip(modalities, output.present[i].tolist(), strict=True)),
        "face_found": output.face_found[i][used].float().mean().item(),
        "unheard_seconds": round(output.unheard_seconds[i], 3) if output.unheard_seconds else 0.0,
        "frame_seconds": [round(s, 4) for s in output.frame_seconds[i][used].tolist()],
    }
    if boxes:
        sources = output.box_source[i][used].tolist()
        record["boxes"] = [
            [*(round(value, 2) for value in box), BOX_SOURCES[source]] if source else None
            for box, source in zip(output.boxes[i][used].tolist(), sources, strict=True)
        ]
    return record


# --- records -> a file ----------------------------------------------------------------------------


def check_output(path: Path) -> None:
    """Refuse an output that cannot be written, before anything is computed."""
    if path.suffix not in FORMATS:
        raise ViperError(f"{path}: unknown format {path.suffix!r}; name it {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise ViperError(f"{path}: there is no folder {path.parent}; make it first")


def write_records(records: Sequence[Record], path: Path) -> None:
    """Write records as the suffix says: a JSON list, JSON lines, or a flat table."""
    check_output(path)
    if path.suffix == ".json":
        path.write_text(plain_json.dumps(list(records), indent=2) + "\n", encoding="utf-8")
    elif path.suffix == ".jsonl":
        lines = (plain_json.dumps(record) + "\n" for record in records)
        path.write_text("".join(lines), encoding="utf-8")
    else:
        _write_table([_flat(record) for record in records], path)


def _flat(record: Record) -> dict[str, Any]:
    """Nested objects become columns (``intensities`` under their own names), lists become JSON text."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if name == "intensities":
            flat |= value or {}
        elif isinstance(value, dict):
            flat |= {f"{name}_{inner}": v for inner, v in value.items()}
        else:
            flat[name] = plain_json.dumps(value) if isinstance(value, list) else value
    return flat


def _write_table(rows: Sequence[dict[str, Any]], path: Path) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
        return
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({name: [row.get(name) for row in rows] for name in columns}), path)


def _cell(value: Any) -> Any:
    return neutralised(value) if isinstance(value, str) else value
