"""inputs.py: what the encoders get of each clip in one pass: face crops and sound, changed in training."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from viper_e2e.clip import CropSpec
from viper_e2e.encoders.audio import ClipSound
from viper_e2e.errors import ClipError
from viper_e2e.faces import FaceCropper, moved_with
from viper_e2e.model.augment import Augment
from viper_e2e.model.prepared import PreparedClip


class EncoderInputs:
    """Crops and sound of a batch; equal specs are cut once, and each clip is changed by its own seed."""

    def __init__(
        self,
        clips: Sequence[PreparedClip | ClipError],
        faces: FaceCropper,
        sample_rate: int,
        augment: Augment | None = None,
        seeds: Sequence[int] | None = None,
    ):
        """``augment`` needs a seed for each clip; ``None``: clips are left as they are."""
        assert augment is None or (seeds is not None and len(seeds) == len(clips)), "a seed for each clip"
        self._clips, self._faces, self._sample_rate = clips, faces, sample_rate
        self._augment, self._seeds = augment, seeds
        self._made: dict[tuple[int, CropSpec], Tensor] = {}

    def are_changed(self, modality: str) -> bool:
        """Whether this modality gets something else than the clips themselves."""
        return self._augment is not None and self._augment.changes(modality)

    def crops(self, index: int, spec: CropSpec) -> Float[Tensor, "N 3 S S"]:
        """Normalised crops of a readable clip's frames."""
        key = (index, spec)
        if key not in self._made:
            clip = self._clips[index]
            boxes, landmarks = clip.track.boxes, clip.track.landmarks
            if self._augment is not None:
                found, seed = clip.track.face_found, self._seeds[index]
                moved = self._augment.boxes(boxes, found, seed)
                boxes, landmarks = moved, moved_with(landmarks, boxes, moved)
            made = self._faces.crop(clip.pixels, boxes, spec, landmarks)
            if self._augment is not None:
                made = self._augment.pixels(made, spec, self._seeds[index])
            self._made[key] = made
        return self._made[key]

    def sound(self, index: int, frame_seconds: Float[Tensor, " T"]) -> ClipSound:
        """What is heard of a clip, and the instants that want a token; nothing of one that could not be read.

        ``frame_seconds``: the instants of a clip that names none for its sound.
        """
        clip = self._clips[index]
        if isinstance(clip, ClipError):
            return ClipSound([], frame_seconds, 0.0)
        seconds = frame_seconds if clip.sound_instants is None else clip.sound_instants
        runs = clip.sound
        if self._augment is not None:
            runs = self._augment.sound(runs, self._sample_rate, self._seeds[index])
        return ClipSound(runs, seconds, clip.sound_seconds)
