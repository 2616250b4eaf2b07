"""colour.py: a decoded picture's samples as the RGB that a player shows: matrix, transparency, HDR made SDR."""

from __future__ import annotations

import struct
from functools import cache

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from viper_e2e.decoding.geometry import side_data

# H.273 (ISO/IEC 23091-2), tables 2 to 4, as FFmpeg hands them on.
_UNSPECIFIED, _RESERVED = 2, 3
_PQ, _HLG = 16, 18
_BT2020, _P3_THEATRE, _P3 = 9, 11, 12
_SWS_BT709, _SWS_BT2020 = 1, 9
"""Numbers of swscale's matrices, as PyAV takes them; before 18 it has no name for the second."""

WHITE_NITS = 203.0
"""Luminance of a white sheet in HDR (ITU-R BT.2408, table 1), which becomes white."""
_PEAK_NITS = 1000.0
"""Peak of an HDR master that states none; HLG's nominal one."""


class RGBConverter:
    """Decoded frame → uint8 RGB of the wanted size, as stored (not turned).

    - Without a flag, pictures from 720 lines or 1280 columns on are BT.709, smaller ones BT.601, and of BT.2020
      what has its primaries, as players (not the program ffmpeg) have it. Flagged ones are as flagged.
    - What is transparent is shown over black.
    - PQ and HLG are tone-mapped to BT.709.
    """

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
        """uint8 ``H W 3``. Raises `FFmpegError` for a pixel format that cannot be converted."""
        if is_hdr(frame):
            return tone_mapped(self._scaled(frame, width, height, "rgb48le"), frame)
        if not has_alpha(frame):
            return self._scaled(frame, width, height, "rgb24")
        pixels = self._scaled(frame, width, height, "rgba").astype(np.uint16)
        return ((pixels[..., :3] * pixels[..., 3:] + 127) // 255).astype(np.uint8)

    def _scaled(self, frame: av.VideoFrame, width: int, height: int, format_: str) -> np.ndarray:
        # One thread, and named: PyAV's default is one per core.
        return self._reformatter.reformat(
            frame,
            width,
            height,
            format_,
            src_colorspace=guessed_matrix(frame),
            interpolation="BILINEAR",
            threads=1,
        ).to_ndarray()


def is_hdr(frame: av.VideoFrame) -> bool:
    """Whether its transfer function is PQ or HLG (BT.2100)."""
    return frame.color_trc in (_PQ, _HLG)


def guessed_matrix(frame: av.VideoFrame) -> int | None:
    """The matrix (swscale's number) that a player assumes without a flag; None: BT.601, or as flagged."""
    if frame.colorspace not in (_UNSPECIFIED, _RESERVED) or frame.format.is_rgb:
        return None
    if frame.color_primaries == _BT2020:
        return _SWS_BT2020
    return _SWS_BT709 if frame.height >= 720 or frame.width >= 1280 else None


def has_alpha(frame: av.VideoFrame) -> bool:
    """Whether it has a plane of transparency."""
    return _has_alpha(frame.format.name)


@cache
def _has_alpha(format_: str) -> bool:
    return any(component.is_alpha for component in av.VideoFormat(format_).components)


def tone_mapped(pixels: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """uint16 RGB ``H W 3`` coded in PQ or HLG → uint8 RGB as a BT.709 display of 203 cd/m² shows it.

    Light as BT.2100 defines it; brought from the master's peak down to white with BT.2390's curve (5.4.1,
    EETF), applied to the largest of R, G, B, so that hues stay; coded for a display of BT.1886 (gamma 2.4).
    """
    nits = (_pq_table() if frame.color_trc == _PQ else _hlg_table())[pixels]
    matrix = _to_bt709(frame.color_primaries)
    if matrix is not None:
        nits = np.maximum(nits @ matrix.T, 0.0)
    largest = np.maximum(nits.max(axis=-1, keepdims=True), 1e-3)
    ratio = _compressed(largest, _peak_nits(frame)) / (largest * WHITE_NITS)
    return np.rint(255 * np.clip(nits * ratio, 0.0, 1.0) ** (1 / 2.4)).astype(np.uint8)


_M1, _M2 = 2610 / 16384, 2523 / 4096 * 128
_C1, _C2, _C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
"""BT.2100, table 4."""


def _pq_to_nits(code: np.ndarray) -> np.ndarray:
    root = code ** (1 / _M2)
    return 10_000 * (np.maximum(root - _C1, 0) / (_C2 - _C3 * root)) ** (1 / _M1)


def _nits_to_pq(nits: np.ndarray) -> np.ndarray:
    root = (nits / 10_000) ** _M1
    return ((_C1 + _C2 * root) / (1 + _C3 * root)) ** _M2


@cache
def _pq_table() -> np.ndarray:
    """Light, cd/m², of each code."""
    return _pq_to_nits(np.arange(65536) / 65535).astype(np.float32)


@cache
def _hlg_table() -> np.ndarray:
    """Light on a display of 1,000 cd/m².

    BT.2100, table 5. Its gamma of 1.2 between scene and display acts on each of R, G, B, as in SDR's chain and
    in FFmpeg's zscale (zimg), not on luminance: what was filmed in SDR and HLG comes out alike.
    """
    code = np.arange(65536) / 65535
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12)
    return (_PEAK_NITS * scene**1.2).astype(np.float32)


def _compressed(nits: np.ndarray, peak: float) -> np.ndarray:
    """BT.2390-11, 5.4.1: as it is up to a knee, then a Hermite spline that brings `peak` to white."""
    top, white = _nits_to_pq(np.array([peak, WHITE_NITS])).tolist()
    white /= top
    knee = 1.5 * white - 0.5
    code = np.minimum(_nits_to_pq(nits) / top, 1.0)
    t = (code - knee) / max(1 - knee, 1e-6)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * white
    )
    return _pq_to_nits(np.where(code < knee, code, spline) * top)


def _peak_nits(frame: av.VideoFrame) -> float:
    """The brightest light of the master, as the file says, else 1,000 cd/m²."""
    if frame.color_trc == _HLG:
        return _PEAK_NITS
    try:
        light = side_data(frame, "CONTENT_LIGHT_LEVEL")
        display = side_data(frame, "MASTERING_DISPLAY_METADATA")
    except ValueError:
        return _PEAK_NITS  # as in `geometry.py`
    peak = 0.0
    if light is not None:
        peak = float(struct.unpack_from("=I", light)[0])  # AVContentLightMetadata.MaxCLL
    if not peak and display is not None:
        # AVMasteringDisplayMetadata: eight rationals (primaries, white), darkest, brightest, two flags.
        numerator, denominator = struct.unpack_from("=ii", display, 9 * 8)
        peak = numerator / denominator if denominator > 0 else 0.0
    return float(np.clip(peak, WHITE_NITS, 10_000)) if peak > 0 else _PEAK_NITS


_CHROMATICITIES = {
    1: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    _BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    _P3_THEATRE: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    _P3: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
"""x, y of red, green, blue (H.273, table 2); theatre's white is taken for D65, as players do."""


@cache
def _to_bt709(primaries: int) -> np.ndarray | None:
    """float32 3×3: linear RGB of these primaries → of BT.709; None where they are the same. Unsaid: BT.2020."""
    if primaries == 1:
        return None
    own = _to_xyz(_CHROMATICITIES.get(primaries, _CHROMATICITIES[_BT2020]))
    return (np.linalg.inv(_to_xyz(_CHROMATICITIES[1])) @ own).astype(np.float32)


def _to_xyz(chromaticities: tuple[tuple[float, float], ...]) -> np.ndarray:
    columns = np.array([(x / y, 1.0, (1 - x - y) / y) for x, y in chromaticities]).T
    white_x, white_y = 0.3127, 0.3290
    white = np.array([white_x / white_y, 1.0, (1 - white_x - white_y) / white_y])
    return columns * np.linalg.solve(columns, white)
