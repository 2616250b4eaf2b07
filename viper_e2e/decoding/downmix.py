"""downmix.py: several channels of sound -> one, as for a listener in the middle, with speech at its level."""

from __future__ import annotations

import av
import numpy as np

_FRONT = ("FL", "FR", "FLC", "FRC", "DL", "DR")
_AROUND = (
    "BL",
    "BR",
    "SL",
    "SR",
    "WL",
    "WR",
    "TFL",
    "TFR",
    "TBL",
    "TBR",
    "TSL",
    "TSR",
    "BFL",
    "BFR",
    "SDL",
    "SDR",
)
_MIDDLE_AROUND = ("BC", "TC", "TFC", "TBC", "BFC")
_DEEP = ("LFE", "LFE2")
_MINUS_3_DB = 2**-0.5


def mono_weights(layout: av.AudioLayout) -> np.ndarray:
    """float32, one per channel: what each contributes to the one channel that is heard.

    One or two channels: their mean. More: the downmix to one channel of ITU-R BS.775-3, annex 4, table 2: left
    and right at −3 dB of the centre, those around at −3 dB of left and right, low-frequency effects left out.
    It is scaled so that speech in the middle of the front keeps its level, whether it comes from the centre's
    own loudspeaker or, in layouts without one, from left and right alike. Six channels without a layout (PCM in
    Matroska has none) are taken for 5.1, as FFmpeg takes them; others whose places are unknown count alike.
    """
    if layout.name == "6 channels":
        layout = av.AudioLayout("5.1")
    names = [channel.name for channel in layout.channels]
    placed = [name for name in names if name not in _DEEP]
    weights = [weight for weight in map(_weight, names) if weight is not None]
    if not placed or len(placed) == len(names) <= 2 or len(weights) < len(names):
        return np.full(len(names), 1 / len(names), np.float32)
    scale = _MINUS_3_DB if not {"FC", "AMBI0"} & set(names) else 1.0
    return np.array([weight * scale for weight in weights], np.float32)


def _weight(name: str) -> float | None:
    """Beside a centre of 1; None: this place is not known."""
    if name in ("FC", "AMBI0"):
        # Ambisonics: the first channel is what one microphone open to all sides would hear.
        return 1.0
    if name in _FRONT or name in _MIDDLE_AROUND:
        return _MINUS_3_DB
    if name in _AROUND:
        return 0.5
    return 0.0 if name in _DEEP or name.startswith("AMBI") else None


def mixed(frame: av.AudioFrame, weights: np.ndarray) -> np.ndarray:
    """float32 samples of one channel out of a frame in packed ``flt``.

    Packed, as a frame of eight planes or more must not be asked for its planes: PyAV 17 to 19 read on behind
    the eighth.
    """
    samples = frame.to_ndarray().reshape(-1, len(weights))
    if len(weights) == 1:
        return samples[:, 0].copy()
    heard = samples[:, 0] * weights[0]
    for channel, weight in enumerate(weights[1:], 1):
        if weight:
            heard += samples[:, channel] * weight
    return heard
