"""cropper.py: one face per clip found, followed and cut out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from viper_e2e.clip import CropSpec
from viper_e2e.config import FaceConfig
from viper_e2e.faces.crop import FaceRegions, crop_boxes, cut_regions
from viper_e2e.faces.mtcnn import MTCNN
from viper_e2e.faces.track import (
    Face,
    FaceTrack,
    choose_first,
    choose_track,
    fill,
    frames_still_needed,
    frames_to_start_with,
    others_in_view,
)


class FaceCropper(nn.Module):
    """Finds one face per clip, follows it, and crops it.

    The detector has no parameters and no entry in a state dict. It stays in float32 when its parent is cast to
    another dtype, and ignores autocast.
    """

    def __init__(self, config: FaceConfig):
        super().__init__()
        self.config = config
        first, second, third = config.thresholds
        self.detector = MTCNN(config.min_face_size, (first, second, third))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FaceCropper:
        # To another device with the parent, never into another dtype: in bf16 boxes are off by pixels.
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)

    @torch.no_grad()
    def forward(
        self, frames: Sequence[UInt8[Tensor, "_ _ _ 3"]], frame_seconds: Sequence[Float[Tensor, "_"]]
    ) -> list[FaceTrack]:
        """One track per clip, on the detector's device.

        Clips are ragged, uint8 RGB ``N H W 3`` with their presentation times. They go through the detector one
        after the other, each in batches of its own frames: in a batch of several clips, rounding would depend
        on the other clips, and a clip cached in memory would not have bitwise the same boxes as elsewhere.
        """
        return [self._track(*clip) for clip in zip(frames, frame_seconds, strict=True)]

    def _track(self, frames: UInt8[Tensor, "N H W 3"], frame_seconds: Float[Tensor, "N"]) -> FaceTrack:
        height, width = frames.shape[1:3]
        seconds = frame_seconds.tolist()
        choose = choose_track if self.config.selection == "track" else choose_first
        faces: dict[int, list[Face]] = {}
        wanted = frames_to_start_with(seconds, self.config.detect_seconds)
        while wanted:
            for index, found in zip(wanted, self.detector(frames[wanted]), strict=True):
                faces[index] = self._usable(found, width, height)
            chosen = choose(faces)
            wanted = frames_still_needed(chosen)
        track = fill(chosen, seconds, width, height, self.config.margin)
        return track._replace(others_in_view=others_in_view(chosen, faces)).to(self.detector.device)

    def _usable(self, found: Float[Tensor, "K _"], width: int, height: int) -> list[Face]:
        """Faces that are probable enough and of which at least two pixels each way lie in the frame."""
        return [
            (x0, y0, x1, y1, probability, *landmarks)
            for x0, y0, x1, y1, probability, *landmarks in found.tolist()
            if probability >= self.config.min_probability
            and min(x1, width) - max(x0, 0) >= 2
            and min(y1, height) - max(y0, 0) >= 2
        ]

    def regions(
        self,
        frames: UInt8[Tensor, "N H W 3"],
        track: FaceTrack,
        margin: float | None = None,
        *,
        aligned: bool = True,
    ) -> FaceRegions:
        """The regions around faces, cached instead of whole frames; ``margin`` defaults to ``hold_margin``.

        ``aligned``: whether some encoder's crops are.
        """
        margin = self.config.hold_margin if margin is None else margin
        return cut_regions(frames, track.boxes, margin, track.landmarks if aligned else None)

    def crop(
        self,
        source: UInt8[Tensor, "N H W 3"] | FaceRegions,
        boxes: Float[Tensor, "N 4"],
        spec: CropSpec,
        landmarks: Float[Tensor, "N 5 2"] | None = None,
    ) -> Float[Tensor, "N 3 S S"]:
        """Normalised crops of frames or cached regions; see `crop_boxes`."""
        return crop_boxes(source, boxes, spec, landmarks)

    def pictures(
        self, source: UInt8[Tensor, "N H W 3"] | FaceRegions, boxes: Float[Tensor, "N 4"], size: int
    ) -> list[UInt8[np.ndarray, "S S 3"]]:
        """Crops for people to look at."""
        as_seen = CropSpec(size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        pixels = (self.crop(source, boxes, as_seen).clamp(0, 1) * 255).round().byte()
        return list(pixels.permute(0, 2, 3, 1).cpu().numpy())
