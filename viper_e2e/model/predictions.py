"""predictions.py: predictions for a set of clips, as columns, as CSV and as the challenge's submission."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Integer

from viper_e2e.config import looks_at_face
from viper_e2e.labels import HUME_REACTION, LabelSet, order_of
from viper_e2e.loading import ClipSource
from viper_e2e.model.calibration import Calibration
from viper_e2e.model.prediction import Prediction
from viper_e2e.model.predictions_csv import (
    Column,
    Values,
    exact_number,
    flag,
    number,
    read_columns,
    short_number,
    submission_ids,
    text,
)
from viper_e2e.model.table_columns import said_columns, write_csv, write_lines
from viper_e2e.runtime import written_whole
from viper_e2e.tasks import Task


@dataclass
class Predictions:
    """N clips, E emotions, M modalities; row i of everything is one clip. A CSV has them in this order."""

    labels: LabelSet
    modalities: tuple[str, ...]
    _: KW_ONLY
    keys: list[str] = field(metadata=text("key"))
    """Name inside the shard."""
    file_ids: list[str] = field(metadata=text("file_id"))
    """The corpus's own identifier, verbatim; empty where it has none."""
    shards: list[str] = field(metadata=text("shard"))
    subjects: list[str | None] | None = field(
        default=None, metadata=text("subject", unknown=None, is_optional=True)
    )
    errors: list[str | None] = field(metadata=text("error", unknown=None))
    """Why a clip is not valid."""
    valid: Bool[np.ndarray, "N"] = field(metadata=flag("valid", unknown=True))
    duration_seconds: Float64[np.ndarray, "N"] = field(metadata=number("duration_seconds", "seconds"))
    face_share: Float64[np.ndarray, "N"] = field(metadata=number("face_share", "computed"))
    """Share of the looked-at frames that have a face; NaN where the clip could not be read."""
    predicted: Float64[np.ndarray, "N E"] = field(metadata=number("predicted", "computed", each="label"))
    """NaN where the clip could not be read."""
    true: Float64[np.ndarray, "N E"] = field(metadata=number("true", "given", each="label"))
    """NaN where unlabelled."""
    present: Bool[np.ndarray, "N M"] = field(metadata=flag("present", unknown=False, each="modality"))
    words: list[str | None] | None = field(default=None, metadata=text("", unknown=None, is_optional=True))
    """Those that the model read of each clip; only in memory, for the page, not in tables."""

    def __post_init__(self) -> None:
        columns: list[Sized | None] = [getattr(self, name) for name in COLUMNS]
        assert {len(rows) for rows in columns if rows is not None} == {len(self.keys)}, "every row is one clip"
        assert self.predicted.shape == self.true.shape == (len(self), len(self.labels))
        assert self.present.shape[1] == len(self.modalities)

    @classmethod
    def of(
        cls,
        predictions: Iterable[Prediction],
        labels: LabelSet,
        modalities: tuple[str, ...],
        source: ClipSource,
    ) -> Predictions:
        """One of each clip of a source, in its order; those that could not be found whole there come last."""
        rows = sorted(predictions, key=lambda one: (one.index < 0, one.index))
        entries = [source.entry(one.index) if one.index >= 0 else None for one in rows]
        places = [source.shard_of(one.index).path_or_url if one.index >= 0 else "" for one in rows]
        unlabelled = (np.nan,) * len(labels)

        def numbers(values: list, width: int) -> Float64[np.ndarray, "N W"]:
            # As float: None is no number.
            return np.array(values, dtype=np.float64).reshape(len(rows), width)

        intensities = [tuple((one.intensities or {}).values()) or unlabelled for one in rows]
        return cls(
            labels=labels,
            modalities=modalities,
            keys=[one.clip if entry is None else entry.key for one, entry in zip(rows, entries, strict=True)],
            file_ids=["" if entry is None else entry.file_id for entry in entries],
            shards=[place.partition("?")[0] for place in places],
            predicted=numbers(intensities, len(labels)),
            true=numbers([(entry and entry.intensities) or unlabelled for entry in entries], len(labels)),
            valid=np.array([one.error is None for one in rows], dtype=bool),
            errors=[one.error for one in rows],
            present=numbers([[(one.present or {})[m] for m in modalities] for one in rows], len(modalities))
            > 0,
            face_share=numbers([one.face_found for one in rows], 1)[:, 0],
            duration_seconds=numbers([None if r.error else r.duration_seconds for r in rows], 1)[:, 0],
            subjects=[None if entry is None else entry.subject for entry in entries],
            words=[one.words for one in rows] if any(one.words for one in rows) else None,
        )

    @classmethod
    def of_numbers(
        cls, labels: LabelSet, predicted: Float64[np.ndarray, "N E"], true: Float64[np.ndarray, "N E"]
    ) -> Predictions:
        """Predictions to measure, of clips about which nothing else is known."""
        names = {"label": labels.names, "modality": ()}
        columns: dict[str, Any] = {
            name: column.blank(len(predicted), names) for name, column in COLUMNS.items()
        }
        return cls(labels, (), **columns | {"predicted": predicted, "true": true})

    def __len__(self) -> int:
        return len(self.keys)

    def only(self, keep: Bool[np.ndarray, "N"]) -> Predictions:
        """Only the rows to keep."""
        return self._at(np.flatnonzero(keep))

    def _at(self, rows: Integer[np.ndarray, "R"]) -> Predictions:
        """These rows, in this order."""
        columns: dict[str, Any] = {name: _rows_of(getattr(self, name), rows) for name in COLUMNS}
        return replace(self, **columns)

    @property
    def scored(self) -> Bool[np.ndarray, "N"]:
        """Clips that were read and have a label: those that metrics and plots are about."""
        return self.valid & ~np.isnan(self.true).all(1) & np.isfinite(self.predicted).all(1)

    def by_task(self) -> Iterator[tuple[Task, Predictions]]:
        """Predictions of each task alone, columns under their own names; clips without its label unlabelled."""
        for task, columns in self.labels.parts:
            true = self.true[:, columns]
            true = np.where(np.isnan(true).any(1, keepdims=True), np.nan, true)
            labels = LabelSet(self.labels.own_titles(task, columns), task.minimum, task.maximum)
            yield task, replace(self, labels=labels, predicted=self.predicted[:, columns], true=true)

    @property
    def faceless(self) -> Bool[np.ndarray, "N"]:
        """Clips whose pictures were looked at, and none of them shows a face."""
        seeing = [looks_at_face(name) for name in self.modalities]
        return self.valid & self.present[:, seeing].any(1) & (self.face_share == 0)

    @property
    def absent(self) -> list[str]:
        """Modalities for which none of the clips that could be read has anything."""
        there = self.present[self.valid].any(0)
        return [name for name, is_there in zip(self.modalities, there, strict=True) if not is_there]

    def without_faceless(self) -> Predictions:
        """The same without numbers for clips in which no face was found (``--no-face nan``)."""
        return replace(self, predicted=np.where(self.faceless[:, None], np.nan, self.predicted))

    @property
    def keys_without_number(self) -> list[str]:
        """Clips that were read, but for which the model came to no finite number; no metric counts them."""
        missing = self.valid & ~np.isfinite(self.predicted).all(1)
        return [key for key, is_missing in zip(self.keys, missing, strict=True) if is_missing]

    @property
    def squared_error(self) -> Float64[np.ndarray, "N"]:
        """Mean over emotions of the squared difference; NaN where not scored."""
        known = ~np.isnan(self.true)
        squares = np.where(known, self.predicted - self.true, 0.0) ** 2
        return np.where(self.scored, squares.sum(1) / known.sum(1).clip(1), np.nan)

    def best_and_worst(self, count: int) -> tuple[list[int], list[int]]:
        """Rows with the smallest and with the largest squared error, most extreme first, none in both."""
        order = [int(row) for row in np.argsort(self.squared_error, kind="stable") if self.scored[row]]
        best = order[: min(count, (len(order) + 1) // 2)]
        return best, order[len(best) :][::-1][:count]

    @classmethod
    def joined(cls, parts: Sequence[Predictions], keys: Sequence[str]) -> Predictions:
        """Rows of several sets of the same labels and modalities, in the order of ``keys``, which name each
        once."""
        first = parts[0]
        assert all(p.labels.names == first.labels.names and p.modalities == first.modalities for p in parts)
        sizes = list(map(len, parts))
        columns: dict[str, Any] = {
            name: _end_to_end([getattr(part, name) for part in parts], sizes) for name in COLUMNS
        }
        whole = replace(first, **columns)
        rows = {key: row for row, key in enumerate(whole.keys)}
        assert len(rows) == len(whole) == len(keys), "every clip once"
        return whole._at(np.array([rows[key] for key in keys], dtype=int))

    def write_csv(
        self,
        path: str | os.PathLike,
        *,
        bom: bool = False,
        exact: bool = False,
        calibration: Calibration | None = None,
    ) -> None:
        """One line per clip, missing numbers empty; :meth:`read_csv` gives the same rows back.

        Labels stay as they are, what was computed has six significant digits, or with ``exact`` all of them. A
        text that a spreadsheet could take for a formula gets an apostrophe before it. ``bom``: the mark by
        which Excel knows UTF-8. ``calibration``, which they were made with: its intervals and sets come last,
        in columns that are called as in tables of `viper infer`.
        """
        shown = exact_number if exact else short_number
        names = {"label": self.labels.names, "modality": self.modalities}
        columns = [
            in_csv
            for name, column in IN_CSV.items()
            for in_csv in column.in_csv(getattr(self, name), len(self), names, shown)
        ]
        if calibration is not None:
            said = [calibration.said(self._by_name(row), self.labels) for row in range(len(self))]
            columns += said_columns(said, calibration.said({}, self.labels), shown)
        with written_whole(path) as partial:
            write_csv(partial, columns, bom=bom)

    def _by_name(self, row: int) -> dict[str, float | None]:
        values = self.predicted[row].tolist()
        return {n: None if np.isnan(v) else v for n, v in zip(self.labels.names, values, strict=True)}

    @classmethod
    def read_csv(cls, path: str | os.PathLike, labels: LabelSet = HUME_REACTION) -> Predictions:
        """Read what :meth:`write_csv` wrote, but for intervals and sets.

        Raises :class:`ViperError` for a file with other columns, another label set or a torn line.
        """
        return cls(labels, **read_columns(path, IN_CSV, labels))

    def write_submission(
        self, path: str | os.PathLike, fallback: Sequence[float], columns: LabelSet | None = None
    ) -> list[str]:
        """Write the challenge's form: ``File_ID`` verbatim, then the emotions.

        ``columns``: the same emotions with the titles and in the order that are wanted (default: as predicted).
        One row per clip, none missing: a clip without a prediction gets ``fallback`` (the mean of the
        training labels). Returns the keys of those clips. Raises what :func:`submission_ids` does.
        """
        assert len(fallback) == len(self.labels)
        assert np.isfinite(fallback).all()
        columns = columns or self.labels
        order = order_of(self.labels.names, columns.names)
        assert order is not None, "other emotions than were predicted"
        ids = submission_ids(path, self.file_ids, self.keys, columns)
        readable = self.valid & np.isfinite(self.predicted).all(1)
        rows = np.where(readable[:, None], self.predicted, np.asarray(fallback, np.float64))
        lines = (
            [file_id, *map(exact_number, row)] for file_id, row in zip(ids, rows[:, list(order)], strict=True)
        )
        with written_whole(path) as partial:
            write_lines(partial, ["File_ID", *columns.columns], lines)
        return [key for key, fine in zip(self.keys, readable, strict=True) if not fine]


COLUMNS: dict[str, Column] = {
    one.name: one.metadata["column"] for one in fields(Predictions) if "column" in one.metadata
}
"""Columns of `Predictions`, by the names of their fields."""
IN_CSV = {name: column for name, column in COLUMNS.items() if column.title}


def _rows_of(column: Values | None, rows: Integer[np.ndarray, "R"]) -> Values | None:
    if isinstance(column, list):
        return [column[row] for row in rows]
    return None if column is None else column[rows]


def _end_to_end(columns: Sequence[Values | None], sizes: Sequence[int]) -> Values | None:
    """One column of several parts; rows of a part that does not know it have nothing there."""
    arrays = [column for column in columns if isinstance(column, np.ndarray)]
    if arrays:
        return np.concatenate(arrays)
    if all(column is None for column in columns):
        return None
    of_parts = (column or [None] * size for column, size in zip(columns, sizes, strict=True))
    return [value for of_part in of_parts for value in of_part]
