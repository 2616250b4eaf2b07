"""track.py: choice of the face to follow, of the frames searched for it, and boxes for the frames between."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

NONE, DETECTED, INTERPOLATED = 0, 1, 2
"""Sources of a box, as in `FaceTrack.source`."""
SAME_FACE_IOU = 0.2
"""Two detections that overlap more than this are one face, and only between such two a box is interpolated:
a head that moved by two thirds of its width. Faces of two people in one picture hardly overlap."""
SURE = 0.9
"""Probability from which a face that is not followed counts as somebody."""

Face = tuple[float, ...]
"""x0 y0 x1 y1 probability, and, from a detector that sees them, ``x y`` of five landmarks."""
_UNSEEN = (math.nan,) * 10


class FaceTrack(NamedTuple):
    """One face through the frames of one clip."""

    boxes: Float[Tensor, "N 4"]
    """x0 y0 x1 y1 in pixels of the decoded frame, exclusive upper ends; the whole frame if there is no face."""
    probabilities: Float[Tensor, "N"]
    """0 where there is no face."""
    source: UInt8[Tensor, "N"]
    """`NONE`, `DETECTED` or `INTERPOLATED`."""
    landmarks: Float[Tensor, "N 5 2"] | None = None
    """x y in the pixels of the boxes: the eye on the picture's left, the one on its right, nose, corners of the
    mouth. NaN in frames without; ``None``: in no frame, as from a detector that sees none."""
    others_in_view: bool = False
    """Somebody else is seen beside the face in half of the frames looked at, or in more."""

    @classmethod
    def of_no_face(cls, count: int, width: int, height: int, device: torch.device) -> FaceTrack:
        """So many frames in which none was looked for."""
        box = torch.tensor([0.0, 0.0, width, height], device=device)
        source = torch.full((count,), NONE, dtype=torch.uint8, device=device)
        return cls(box.repeat(count, 1), torch.zeros(count, device=device), source)

    def to(self, device: torch.device) -> FaceTrack:
        """The same on another device."""
        landmarks = None if self.landmarks is None else self.landmarks.to(device)
        return self._replace(
            boxes=self.boxes.to(device),
            probabilities=self.probabilities.to(device),
            source=self.source.to(device),
            landmarks=landmarks,
        )

    @property
    def face_found(self) -> Bool[Tensor, "N"]:
        return self.source > NONE


def frames_to_start_with(seconds: list[float], detect_seconds: float) -> list[int]:
    """Frames about ``detect_seconds`` apart, the first and the last among them; all of them for 0."""
    if detect_seconds <= 0 or len(seconds) < 3:
        return list(range(len(seconds)))
    steps = max(1, round((seconds[-1] - seconds[0]) / detect_seconds))
    instants = [seconds[0] + (seconds[-1] - seconds[0]) * step / steps for step in range(1, steps)]
    nearest = {min(range(len(seconds)), key=lambda i: abs(seconds[i] - instant)) for instant in instants}
    return sorted(nearest | {0, len(seconds) - 1})


def frames_still_needed(chosen: Mapping[int, Face | None]) -> list[int]:
    """The middle frame of every gap that must not be interpolated; none when all is known.

    Halving finds the moment a face appears or changes in a few rounds, and ends with every frame of such a gap
    detected if nothing connects its ends.
    """
    looked_at = sorted(chosen)
    return [
        (before + after) // 2
        for before, after in pairwise(looked_at)
        if after - before > 1 and not _same_face(chosen[before], chosen[after])
    ]


def choose_first(faces: Mapping[int, list[Face]]) -> dict[int, Face | None]:
    """The published rule: the detector's first box, which in facenet-pytorch's order is the largest."""
    return {index: max(options, key=_area, default=None) for index, options in faces.items()}


def choose_track(faces: Mapping[int, list[Face]]) -> dict[int, Face | None]:
    """Follows one face both ways from the frame where it is seen best.

    "Best" is probability × area, and next to an already followed face × exp(−distance), the distance between
    centres in units of that face's side: a passer-by has to be e times larger to take over one side away.
    """
    chosen: dict[int, Face | None] = dict.fromkeys(faces)
    seen = [index for index, options in faces.items() if options]
    if not seen:
        return chosen
    start = max(seen, key=lambda index: max(map(_weight, faces[index])))
    order = sorted(faces)
    for direction in (order[order.index(start) :], order[order.index(start) :: -1]):
        last = None
        for index in direction:
            if faces[index]:
                last = max(faces[index], key=lambda face: _weight(face) * _nearness(face, last))
                chosen[index] = last
    return chosen


def others_in_view(chosen: Mapping[int, Face | None], faces: Mapping[int, list[Face]]) -> bool:
    """Whether somebody else is surely seen in at least half of the frames in which the chosen face is.

    That is a face apart from it, of a quarter of its area or more.
    """
    followed = {index: face for index, face in chosen.items() if face is not None}
    with_others = [
        index for index, face in followed.items() if any(_is_somebody_else(one, face) for one in faces[index])
    ]
    return 2 * len(with_others) >= max(1, len(followed))


def _is_somebody_else(one: Face, followed: Face) -> bool:
    return one[4] >= SURE and 4 * _area(one) >= _area(followed) and not _same_face(one, followed)


def fill(
    chosen: Mapping[int, Face | None], seconds: list[float], width: int, height: int, margin: float
) -> FaceTrack:
    """A box for every frame: detected, interpolated linearly in time between detections, or the whole frame.

    Landmarks go the same way, and are NaN where either end has none. Boxes are widened by ``margin`` (share of
    their size, every side) and end at the frame's borders.
    """
    whole = (0.0, 0.0, float(width), float(height), 0.0, *_UNSEEN)
    looked_at = sorted(chosen)
    rows: list[Face] = [whole] * len(seconds)
    source = [NONE] * len(seconds)
    for index, face in chosen.items():
        if face is not None:
            rows[index], source[index] = _within(face, width, height, margin), DETECTED
    for before, after in pairwise(looked_at):
        gap_seconds = seconds[after] - seconds[before]
        for index in range(before + 1, after):
            share = (seconds[index] - seconds[before]) / gap_seconds if gap_seconds > 0 else 0.0
            rows[index] = tuple(a + (b - a) * share for a, b in zip(rows[before], rows[after], strict=True))
            source[index] = INTERPOLATED
    table = torch.tensor(rows, dtype=torch.float32)
    return FaceTrack(
        boxes=table[:, :4].contiguous(),
        probabilities=table[:, 4].contiguous(),
        source=torch.tensor(source, dtype=torch.uint8),
        landmarks=table[:, 5:].unflatten(1, (5, 2)).contiguous(),
    )


def _area(face: Face) -> float:
    return (face[2] - face[0]) * (face[3] - face[1])


def _weight(face: Face) -> float:
    return face[4] * _area(face)


def _nearness(face: Face, last: Face | None) -> float:
    if last is None:
        return 1.0
    across = (face[0] + face[2] - last[0] - last[2]) / 2
    down = (face[1] + face[3] - last[1] - last[3]) / 2
    return math.exp(-math.hypot(across, down) / math.sqrt(_area(last)))


def _same_face(one: Face | None, other: Face | None) -> bool:
    if one is None or other is None:
        return False
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return False
    shared = width * height
    return shared / (_area(one) + _area(other) - shared) > SAME_FACE_IOU


def _within(face: Face, width: int, height: int, margin: float) -> Face:
    x0, y0, x1, y1, probability, *landmarks = face
    wider, taller = margin * (x1 - x0), margin * (y1 - y0)
    return (
        max(x0 - wider, 0.0),
        max(y0 - taller, 0.0),
        min(x1 + wider, float(width)),
        min(y1 + taller, float(height)),
        probability,
        *(landmarks or _UNSEEN),
    )
