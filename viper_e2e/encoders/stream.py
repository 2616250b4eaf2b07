"""stream.py: one modality's tokens for a batch of clips, with what is there and what is not."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor


class Stream(NamedTuple):
    """Tokens of one modality. Absence is a mask, never a branch."""

    tokens: Float[Tensor, "B T D"]
    """Zeros where nothing is present."""
    present: Bool[Tensor, "B T"]
    """Something was seen or heard here; elsewhere fusion puts a learned missing token."""
    used: Bool[Tensor, "B T"]
    """The slot exists; a clip with fewer distinct frames than T leaves the rest unused (masked out)."""
    seconds: Float[Tensor, "B T"]
    """Presentation time of each slot on the clip's clock, float32."""
