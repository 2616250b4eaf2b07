"""clip_view.py: one clip of a batch as encoders see it: crops, sound, units; augmented in training."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from viper_e2e.clip import CropSpec, Cue
from viper_e2e.encoders.prepared import PreparedClip
from viper_e2e.faces import crop_boxes, moved_with

Runs = list[tuple[float, Float[Tensor, " _"]]]
"""Unbroken stretches of mono sound in order of time: start in seconds on the clip's clock, samples."""


@runtime_checkable
class Augmentation(Protocol):
    """Changes a clip by a seed: what is drawn depends on nothing else."""

    def changes(self, modality: str) -> bool: ...

    def boxes(
        self, boxes: Float[Tensor, "N 4"], face_found: Bool[Tensor, " N"], seed: int
    ) -> Float[Tensor, "N 4"]: ...

    def pixels(
        self, crops: Float[Tensor, "N 3 S S"], spec: CropSpec, seed: int
    ) -> Float[Tensor, "N 3 S S"]: ...

    def sound(self, runs: Runs, sample_rate: int, seed: int) -> Runs: ...


class ClipView:
    """Crops of equal spec are cut once, whichever encoders ask for them.

    A clip that could not be read (`prepared` is ``None``) looks like one blank frame and sounds like nothing.
    """

    def __init__(
        self,
        prepared: PreparedClip | None,
        frame: Int[Tensor, " T"],
        used: Bool[Tensor, " T"],
        sample_rate: int,
        augment: Augmentation | None = None,
        seed: int | None = None,
    ):
        """``frame``: which distinct frame each slot shows. ``used``: see `Stream`. ``augment`` needs a seed."""
        assert augment is None or seed is not None, "a seed for each clip"
        self.prepared, self.frame, self.used = prepared, frame, used
        self.frame_seconds: Float[Tensor, " N"] = (
            torch.zeros(1, device=frame.device) if prepared is None else prepared.seconds
        )
        """Rows of each distinct frame."""
        self._sample_rate = sample_rate
        self._augment, self._seed = augment, seed
        self._crops: dict[CropSpec, Tensor] = {}

    @property
    def is_readable(self) -> bool:
        return self.prepared is not None

    @property
    def name(self) -> str:
        return "" if self.prepared is None else self.prepared.name

    @property
    def seconds(self) -> Float[Tensor, " T"]:
        """When each slot is shown."""
        return self.frame_seconds[self.frame]

    def is_changed(self, modality: str) -> bool:
        """Whether this modality sees or hears something else than the clip itself."""
        return self._augment is not None and self._augment.changes(modality)

    def crops(self, spec: CropSpec) -> Float[Tensor, "N 3 S S"]:
        """Normalised crops of the distinct frames."""
        if self.prepared is None:
            return torch.zeros(1, 3, spec.size, spec.size, device=self.frame.device)
        if spec not in self._crops:
            self._crops[spec] = self._cut(self.prepared, spec)
        return self._crops[spec]

    def _cut(self, clip: PreparedClip, spec: CropSpec) -> Float[Tensor, "N 3 S S"]:
        boxes, landmarks = clip.track.boxes, clip.track.landmarks
        assert clip.pixels is not None, f"{clip.name}: cached without its pictures"
        if self._augment is None or self._seed is None:
            return crop_boxes(clip.pixels, boxes, spec, landmarks)
        moved = self._augment.boxes(boxes, clip.track.face_found, self._seed)
        crops = crop_boxes(clip.pixels, moved, spec, moved_with(landmarks, boxes, moved))
        return self._augment.pixels(crops, spec, self._seed)

    @property
    def whole_frames(self) -> UInt8[Tensor, "N H W 3"]:
        """Every frame, uncropped, of a readable clip that is not cached in memory."""
        assert self.prepared is not None
        frames = self.prepared.pixels if self.prepared.frames is None else self.prepared.frames
        assert isinstance(frames, Tensor), f"{self.name}: cached without its frames"
        return frames

    @property
    def units(self) -> Float[Tensor, "R U"] | None:
        """Action units that came with the clip, spread evenly over it."""
        return None if self.prepared is None else self.prepared.units

    @property
    def words(self) -> tuple[Cue, ...]:
        """Words of the clip, in order."""
        return () if self.prepared is None else self.prepared.words

    def sound(self) -> Runs:
        """Sound of the clip."""
        if self.prepared is None:
            return []
        runs = self.prepared.sound
        if self._augment is None or self._seed is None:
            return runs
        return self._augment.sound(runs, self._sample_rate, self._seed)

    @property
    def sound_seconds(self) -> float:
        """Length of the whole audio stream."""
        return 0.0 if self.prepared is None else self.prepared.sound_seconds

    @property
    def sound_instants(self) -> Float[Tensor, " T"] | None:
        """When the tokens of sound are; ``None``: at the frames."""
        return None if self.prepared is None else self.prepared.sound_instants
