"""action_units.py: measured facial action units -> tokens, as published: 27 values padded with zeros to 32."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from viper_e2e.config import ActionUnitConfig, ModelConfig
from viper_e2e.encoders.base import Encoder, Stream
from viper_e2e.encoders.clip_view import ClipView
from viper_e2e.encoders.py_feat import NotMeasured, PyFeat
from viper_e2e.encoders.weights import Search
from viper_e2e.errors import ViperError

_log = logging.getLogger(__name__)


class UnitRows(NamedTuple):
    """Measurements of one clip."""

    rows: Float[Tensor, "R U"] | None
    """Spread evenly over the clip; ``None``: nothing was measured."""
    frame_seconds: Float[Tensor, " N"]
    frame: Int[Tensor, " T"]
    """Number of the distinct frame, of N, that each slot shows."""
    used: Bool[Tensor, " T"]


class ActionUnitEncoder(Encoder[UnitRows]):
    """20 action units and 7 emotions per row, from the shard or by py-feat; nothing in here has weights."""

    name = "action_units"
    _place: Tensor

    def __init__(self, config: ActionUnitConfig):
        super().__init__()
        if config.num_units > config.embed_dim:
            raise ViperError(
                f"action_units: {config.num_units} units do not fit into embed_dim {config.embed_dim}"
            )
        self.num_units = config.num_units
        self.embed_dim = config.embed_dim
        self.register_buffer("_place", torch.zeros(()), persistent=False)
        self._py_feat: PyFeat | None = None
        self._is_measuring = config.source == "py-feat"

    @classmethod
    def of_model(cls, config: ModelConfig, search: Search) -> ActionUnitEncoder:
        return cls(config.action_units)

    @property
    def reads_whole_frames(self) -> bool:
        """py-feat has a face detector of its own."""
        return self._is_measuring

    def inputs(self, clip: ClipView) -> UnitRows:
        rows = clip.units
        if rows is None and clip.is_readable and self._is_measuring:
            rows = self.measure(clip.whole_frames, clip.name)
        return UnitRows(rows, clip.frame_seconds, clip.frame, clip.used)

    def forward(self, inputs: Sequence[UnitRows]) -> Stream:
        num_frames = [len(clip.frame_seconds) for clip in inputs]
        tokens, present = self.embed([clip.rows for clip in inputs], num_frames)
        frames = [clip.frame for clip in inputs]
        return Stream(
            torch.stack([of_clip[frame] for of_clip, frame in zip(tokens, frames, strict=True)]),
            torch.stack([of_clip[frame] for of_clip, frame in zip(present, frames, strict=True)]),
            torch.stack([clip.used for clip in inputs]),
            torch.stack([clip.frame_seconds[clip.frame] for clip in inputs]),
        )

    def measure(self, frames: UInt8[Tensor, "N H W 3"], name: str = "") -> Float[Tensor, "N U"] | None:
        """Units of whole frames, a row each, if `action_units.source` is ``py-feat``; otherwise ``None``.

        Also ``None`` where py-feat, its weights or this clip (``name``) fail it: the modality is then absent,
        and a warning says so, once if it is for good.
        """
        if not self._is_measuring:
            return None
        if self._py_feat is None:
            self._py_feat = PyFeat(str(self._place.device))
        self._py_feat.clip_timeout_seconds = self.clip_timeout_seconds
        try:
            return torch.from_numpy(self._py_feat(frames.cpu().numpy())).to(frames.device)
        except NotMeasured as error:
            self._is_measuring = not error.for_good
            whose = "all further clips" if error.for_good else name or "this clip"
            _log.warning("action units are absent from %s: %s", whose, error)
            return None

    def embed(
        self, units: Sequence[Float[Tensor, "_ U"] | None], num_tokens: Sequence[int]
    ) -> tuple[Float[Tensor, "B T D"], Bool[Tensor, "B T"]]:
        """Per clip: rows spread evenly over it -> the row nearest to each of its evenly spread instants.

        ``units``: T' rows (any T' ≥ 1), or ``None`` where none were measured. ``num_tokens``: instants of each
        clip; T is the largest. NaN becomes 0 (published); a row of nothing but NaN is no face, so not present.
        """
        longest = max(num_tokens, default=0)
        tokens = self._place.new_zeros(len(units), longest, self.embed_dim, dtype=torch.float32)
        present = self._place.new_zeros(len(units), longest, dtype=torch.bool)
        for clip, (rows, count) in enumerate(zip(units, num_tokens, strict=True)):
            if rows is None or len(rows) == 0:
                continue
            if rows.shape[1] != self.num_units:
                raise ViperError(
                    f"action_units: rows of {rows.shape[1]} values, expected {self.num_units}; "
                    "pack them again, or set action_units.num_units"
                )
            rows = rows.to(tokens)
            nearest = torch.linspace(0, len(rows) - 1, count).round().long()
            chosen = rows[nearest.to(rows.device)]
            present[clip, :count] = chosen.isfinite().any(1)
            tokens[clip, :count, : self.num_units] = chosen.nan_to_num(0.0, 0.0, 0.0)
        return tokens, present
