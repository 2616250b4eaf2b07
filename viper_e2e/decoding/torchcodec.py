"""torchcodec.py: the third backend: wanted frames through torchcodec, on the CPU or by a GPU's decoder (NVDEC).

It needs FFmpeg's libraries on the machine (4 to 9). From NVDEC frames stay in the GPU's memory, where faces and
encoders want them; such a process cannot hand them to another, so they are decoded where they are used. The
GPU's own conversion to RGB differs from FFmpeg's by a rounding here and there.
"""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BufferedReader
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import av
import numpy as np

from viper_e2e.clip import Pixels
from viper_e2e.decoding.external import FRAMES_AT_ONCE, ExternalReader
from viper_e2e.decoding.media import ClipMedia
from viper_e2e.decoding.timeline import Timeline
from viper_e2e.errors import ViperError

if TYPE_CHECKING:
    from torch import Tensor
    from torchcodec.decoders import VideoDecoder

_log = logging.getLogger(__name__)


class TorchcodecReader(ExternalReader):
    """Wanted frames, decoded on the CPU."""

    library, device = "torchcodec", "cpu"

    @classmethod
    def why_not(cls, media: ClipMedia, timeline: Timeline, frame: av.VideoFrame) -> str:
        if media.video.codec_context.codec.canonical_name == "h264" and timeline.has_leading_frames:
            return "it gives wrong frames from H.264 with intra refresh, which looks like this"
        return super().why_not(media, timeline, frame)

    def __iter__(self) -> Iterator[tuple[int, Pixels]]:
        decoders = import_torchcodec()
        self._check_place()
        with ExitStack() as files:
            # As an open file: no name of ours reaches FFmpeg.
            source: bytes | BufferedReader = (
                self.source
                if isinstance(self.source, bytes)
                else files.enter_context(Path(self.source).open("rb"))
            )
            with self._telling_errors():
                decoder = decoders.VideoDecoder(
                    source, stream_index=self.media.video.index, dimension_order="NCHW", device=self.device
                )
            self._check_count(len(decoder))
            for start in range(0, len(self._indices), FRAMES_AT_ONCE):
                some = self._indices[start : start + FRAMES_AT_ONCE]
                with self._telling_errors():
                    frames = decoder.get_frames_at(some).data
                yield from zip(some, self._handed_out(_scaled(frames, self._size)), strict=True)
            self._tell_way(decoder)

    @contextmanager
    def _telling_errors(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError, IndexError) as error:
            raise self._give_up(error) from error

    def _check_place(self) -> None:
        """Raises `ViperError` where this way of decoding cannot be gone."""

    def _handed_out(self, frames: Tensor) -> np.ndarray | Tensor:
        return frames.numpy()

    def _tell_way(self, decoder: VideoDecoder) -> None:
        """A word where a clip was decoded on another way than was asked for."""


class NvdecReader(TorchcodecReader):
    """Wanted frames, decoded by the GPU and left there, as a tensor."""

    device = "cuda"

    def _check_place(self) -> None:
        import torch

        if multiprocessing.parent_process() is not None:
            raise ViperError(
                "decoding.backend nvdec leaves frames in GPU memory, which a worker process cannot pass on; "
                "set "
                "--num-workers 0"
            )
        if not torch.cuda.is_available():
            raise ViperError("decoding.backend nvdec needs a GPU that torch can use; set it to pyav")

    def _handed_out(self, frames: Tensor) -> np.ndarray | Tensor:
        return frames

    def _tell_way(self, decoder: VideoDecoder) -> None:
        if decoder.cpu_fallback:
            _log.warning("%s was decoded on the CPU: %s", self.media.name or "a clip", decoder.cpu_fallback)


def import_torchcodec() -> ModuleType:
    """torchcodec's decoders, or a `ViperError` that says how to get them."""
    advice = "or leave decoding.backend at pyav"
    try:
        import torchcodec
        from torchcodec import decoders
    except ImportError as error:
        raise ViperError(f"torchcodec is not installed: pip install torchcodec, {advice}") from error
    if torchcodec.ffmpeg_major_version is None:
        raise ViperError(f"torchcodec finds no FFmpeg libraries (4 to 9) here: install ffmpeg, {advice}")
    return decoders


def _scaled(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 ``N 3 H W`` -> uint8 ``N H W 3`` of (width, height)."""
    from torchvision.transforms.v2 import functional as pixels

    if frames.shape[-2:] != size[::-1]:
        frames = pixels.resize(frames, list(size[::-1]), antialias=True)
    return frames.permute(0, 2, 3, 1)
