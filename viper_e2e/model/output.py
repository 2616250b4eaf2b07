"""output.py: what the module says of a batch of clips."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from viper_e2e.errors import ClipError


class ViPEROutput(NamedTuple):
    """What the module says of a batch of clips."""

    intensities: Float[Tensor, "B E"]
    """float32, in the order of the label set."""
    by_network: Float[Tensor, "B K E"]
    """The same from each of the networks that are trained to give it, K ≥ 1: what a loss is taken of."""
    valid: Bool[Tensor, "B"]
    """False: the clip could not be read; its row means nothing."""
    present: Bool[Tensor, "B M"]
    """Which modality was there at all, in the order of ``ViPER.modalities``."""
    boxes: Float[Tensor, "B T 4"]
    """x0 y0 x1 y1 in pixels of the displayed clip, upper ends exclusive; the whole frame where no face is."""
    box_source: UInt8[Tensor, "B T"]
    """0 none, 1 detected, 2 interpolated."""
    face_found: Bool[Tensor, "B T"]
    frame_seconds: Float[Tensor, "B T"]
    """Presentation time; slots beyond the clip's distinct frames repeat the last."""
    used: Bool[Tensor, "B T"]
    """The slot holds a distinct frame."""
    duration_seconds: Float[Tensor, "B"]
    errors: tuple[ClipError | None, ...]
    """Why a clip is not valid."""
    notes: tuple[tuple[str, ...], ...]
    """Per clip, what a person should know of how it was read; as in `DecodedClip`."""
    unheard_seconds: tuple[float, ...] = ()
    """Per clip, how much of its sound lies in no token's hearing; empty: nobody counted."""
