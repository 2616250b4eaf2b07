"""slots.py: the T slots of each clip of a batch: which frame each shows, when, and where the face is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from viper_e2e.encoders import PreparedClip
from viper_e2e.errors import ClipError


@dataclass(frozen=True)
class Slots:
    """B clips, T slots each. Zeros, and `used`, where a clip could not be read."""

    frame: Int[Tensor, "B T"]
    """Number of the distinct frame that a slot shows."""
    used: Bool[Tensor, "B T"]
    """A clip with fewer distinct frames than T leaves slots unused; their frame repeats the last one."""
    seconds: Float[Tensor, "B T"]
    boxes: Float[Tensor, "B T 4"]
    """Boxes in pixels of the displayed clip."""
    box_source: UInt8[Tensor, "B T"]
    duration_seconds: Float[Tensor, " B"]
    valid: Bool[Tensor, " B"]
    """Whether the clip could be read."""

    @property
    def face_found(self) -> Bool[Tensor, "B T"]:
        return self.box_source > 0


def lay_out(
    clips: Sequence[PreparedClip | ClipError], num_slots: int, device: torch.device, *, spread: bool
) -> Slots:
    """``spread``: a short clip's frames are spread over all slots, as the published concatenation needs."""
    shape = (len(clips), num_slots)
    slots = Slots(
        frame=torch.zeros(shape, dtype=torch.long, device=device),
        used=torch.ones(shape, dtype=torch.bool, device=device),
        seconds=torch.zeros(shape, device=device),
        boxes=torch.zeros(*shape, 4, device=device),
        box_source=torch.zeros(shape, dtype=torch.uint8, device=device),
        duration_seconds=torch.zeros(len(clips), device=device),
        valid=torch.tensor([not isinstance(clip, ClipError) for clip in clips], device=device),
    )
    places = torch.arange(num_slots, device=device)
    for i, clip in enumerate(clips):
        if isinstance(clip, ClipError):
            continue
        num_frames = len(clip.seconds)
        if spread:
            slots.frame[i] = places * num_frames // num_slots
        else:
            slots.frame[i] = places.clamp(max=num_frames - 1)
            slots.used[i] = places < num_frames
        frame = slots.frame[i]
        scale = torch.tensor(clip.display_size, device=device) / torch.tensor(clip.frame_size, device=device)
        slots.seconds[i] = clip.seconds[frame]
        slots.boxes[i] = (clip.track.boxes * scale.repeat(2))[frame]
        slots.box_source[i] = clip.track.source[frame]
        slots.duration_seconds[i] = clip.duration_seconds
    return slots
