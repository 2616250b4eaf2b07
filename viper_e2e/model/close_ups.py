"""close_ups.py: faces that the decoded frames show too small, fetched from the clip at its own resolution."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from viper_e2e.clip import CropSpec, DecodedClip
from viper_e2e.config import DecodingConfig
from viper_e2e.decoding import scaled_size
from viper_e2e.encoders import PreparedClip
from viper_e2e.errors import ClipError
from viper_e2e.faces import FaceRegions, FaceTrack, Window, windows_around
from viper_e2e.loading import CloseUpJob, SecondDecoding
from viper_e2e.model.transfer import Transfer

LEAST_GAIN = 1.1
"""A clip is decoded again only if its face becomes larger by more than this."""

TOO_LARGE = (
    "the face is small and the clip too large to be decoded again from memory, so its crops have fewer pixels "
    "than the clip could give: score it from its own file, or raise decoding.max_side"
)


@dataclass(frozen=True)
class View:
    """Part of a clip to decode again."""

    max_side: int
    size: tuple[int, int]
    """Width, height of its frames at that size."""
    windows: dict[int, Window]
    """Windows of the frames with a face, by their place."""

    @property
    def num_bytes(self) -> int:
        return sum((x1 - x0) * (y1 - y0) * 3 for x0, y0, x1, y1 in self.windows.values())


def plan_view(
    track: FaceTrack,
    frame_size: tuple[int, int],
    display_size: tuple[int, int],
    specs: Sequence[CropSpec],
    margin: float,
) -> View | None:
    """The part to decode again of a clip whose face has fewer pixels than its crops; ``None``: nothing.

    At the clip's own resolution, unless that took more bytes than the frames do, as where a face is large in a
    very large picture: then as large as these allow.
    """
    found = track.face_found.nonzero()[:, 0].tolist()
    gain = max(display_size) / max(frame_size)
    if not found or not specs or gain <= LEAST_GAIN:
        return None
    boxes = track.boxes[found].cpu()
    side = float((boxes[:, 2:] - boxes[:, :2]).amin(1).median())
    if side >= max(spec.size for spec in specs):
        return None
    seen = track.landmarks if any(spec.align == "eyes" for spec in specs) else None
    landmarks = None if seen is None else seen[found].cpu()
    budget = len(track.boxes) * frame_size[0] * frame_size[1] * 3
    while gain > LEAST_GAIN:
        size = scaled_size(*display_size, max_side := round(max(frame_size) * gain))
        scale = torch.tensor(size) / torch.tensor(frame_size)
        scaled = None if landmarks is None else landmarks * scale
        windows = windows_around(boxes * scale.repeat(2), scaled, size, margin)
        view = View(max_side, size, dict(zip(found, windows, strict=True)))
        if view.num_bytes <= budget:
            return view
        gain *= min(math.sqrt(budget / view.num_bytes), 0.98)
    return None


class CloseUps:
    """Has faces decoded again while the next clips of a batch are looked at; a context manager."""

    def __init__(
        self,
        decoding: DecodingConfig,
        specs: Sequence[CropSpec],
        margin: float,
        transfer: Transfer,
        again: SecondDecoding,
        *,
        keeps_frames: bool,
    ):
        """``keeps_frames``: whole frames are wanted besides."""
        self._decoding, self._specs, self._margin = decoding, specs, margin
        self._transfer, self._again, self._keeps_frames = transfer, again, keeps_frames

    def __enter__(self) -> CloseUps:
        return self

    def __exit__(self, *_: object) -> None:
        self._again.end()

    def begin(self, clip: PreparedClip, decoded: DecodedClip) -> Callable[[], PreparedClip | ClipError]:
        """The function returned waits for the clip with its face at a better resolution, if there is one."""
        view = plan_view(clip.track, clip.frame_size, clip.display_size, self._specs, self._margin)
        if view is None:
            return lambda: clip
        if decoded.frame_source is None:
            return lambda: replace(clip, notes=(*clip.notes, TOO_LARGE))
        job = CloseUpJob(self._decoding, decoded.frame_source, view.windows, view.max_side, clip.name)
        pixels = self._again.begin(job)
        return partial(self._finish, clip, view, pixels)

    def _finish(
        self, clip: PreparedClip, view: View, pixels: Callable[[], np.ndarray]
    ) -> PreparedClip | ClipError:
        try:
            (flat,) = self._transfer.send([pixels()])()
        except ClipError as error:
            return error
        frames = clip.pixels
        assert isinstance(frames, Tensor), f"{clip.name}: closer frames need whole frames"
        regions = _regions(frames, clip.frame_size, view, flat)
        return replace(clip, pixels=regions, frames=frames if self._keeps_frames else None)


def _regions(frames: Tensor, frame_size: tuple[int, int], view: View, flat: Tensor) -> FaceRegions:
    """Close-ups of the frames with a face; of the others, in which the whole frame is looked at, all of it."""
    pieces, origins, cut_from, start = [], [], [], 0
    for place in range(len(frames)):
        if place not in view.windows:
            pieces.append(frames[place].clone())
            origins.append((0, 0))
            cut_from.append(frame_size)
            continue
        x0, y0, x1, y1 = view.windows[place]
        end = start + (x1 - x0) * (y1 - y0) * 3
        pieces.append(flat[start:end].view(y1 - y0, x1 - x0, 3))
        origins.append((x0, y0))
        cut_from.append(view.size)
        start = end
    return FaceRegions(tuple(pieces), tuple(origins), frame_size, tuple(cut_from))
