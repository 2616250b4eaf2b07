"""blank_frames.py: times of frames without their pictures, for models that only hear; decodes nothing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from viper_e2e.decoding.media import ClipMedia


class Unseen:
    """Takes the place of a backend for a model that only hears."""

    num_decoded = 0
    notes: tuple[str, ...] = ()

    def __init__(self, media: ClipMedia, wanted: np.ndarray):
        """`wanted`: bool mask over the timeline's frames."""
        codec = media.video.codec_context
        self.display_size = (codec.width, codec.height)
        self._indices = np.flatnonzero(wanted).tolist()

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        """(index in the timeline, one black pixel) of each wanted frame, ascending."""
        black = np.zeros((1, 1, 3), np.uint8)
        for index in self._indices:
            yield index, black
