"""demo_voice.py: a synthesised voice that laughs, pants, groans and shrieks, by source and filter.

A glottal pulse train through four formants, and noise for breath (Fant 1960; Klatt 1980). Under every cue the
voice murmurs to itself. A cue of strength s takes up a share of the clip in proportion to s: a longer bout of
laughter, more of the clip spent panting.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import butter, fftconvolve, lfilter, sosfilt

CUES = ("laugh", "pant", "groan", "shriek")
VOWELS = {
    "a": (760.0, 1250.0, 2600.0, 3600.0),
    "m": (270.0, 950.0, 2200.0, 3300.0),
    "o": (430.0, 820.0, 2400.0, 3300.0),
    "i": (380.0, 2350.0, 3100.0, 3900.0),
}
"""Formants in Hz of a vocal tract of scale 1 (after Peterson & Barney 1952)."""
LONGEST_SHARE = 0.85
"""Of the clip, that a cue of strength 1 fills."""


@dataclass(frozen=True)
class Speaker:
    """What stays the same in one person's voice, and how they make each sound."""

    pitch_hz: float
    """Of the murmur; cues are pitched relative to it."""
    tract_scale: float
    """Formants are multiplied by this; shorter vocal tracts have higher ones."""
    laugh_hz: float
    """Syllables of a laugh per second."""
    pant_hz: float
    """Breaths per second."""
    groan_seconds: float
    """Length of one groan."""
    breath_hz: float
    """Lower edge of the noise of a breath."""
    tilt: float
    """How much duller than a clear voice: pole of a low-pass on the pulses, 0 to below 1, at 16 kHz."""
    breathiness: float
    """Share of noise in every voiced sound."""
    room_seconds: float
    """Until an echo has died away by 60 dB."""
    room_share: float
    """How loud the room is beside the voice."""
    hum_hz: float
    hum: float
    """Frequency and amplitude of what hums nearby."""


def voice(
    cues: dict[str, float], speaker: Speaker, seconds: float, rate: int, apex: float, rng: np.random.Generator
) -> np.ndarray:
    """One clip's voice.

    :param cues: strength of each of `CUES`, 0 to about 1.2.
    :param apex: middle of the bouts, as a share of the clip.
    :return: float32, `S`; the murmur alone has an RMS of about 0.03, a cue about 0.15.
    """
    size = round(seconds * rate)
    seconds_axis = np.arange(size) / rate
    sound = 0.03 * _murmur(seconds_axis, rate, speaker, rng)
    makers = {"laugh": _laugh, "pant": _pant, "groan": _groan, "shriek": _shriek}
    for cue, make in makers.items():
        # Drawn whether heard or not: one cue's strength changes nothing about the others.
        own = np.random.default_rng(rng.integers(2**63))
        offset = own.uniform(-0.08, 0.08)
        strength = cues.get(cue, 0.0)
        if strength > 0.0:
            bout = _bout(seconds_axis / seconds, apex + offset, LONGEST_SHARE * min(strength, 1.15))
            sound += 0.15 * bout * make(seconds_axis, rate, speaker, own)
    return sound.astype(np.float32)


def in_room(sound: np.ndarray, speaker: Speaker, rate: int, rng: np.random.Generator) -> np.ndarray:
    """The voice where it is recorded: with echoes and hum, as long and as loud as before.

    :param rng: the room's own; the same room sounds the same in every clip.
    """
    t = np.arange(round(speaker.room_seconds * rate)) / rate
    echoes = rng.standard_normal(len(t)) * 10 ** (-3 * t / speaker.room_seconds)
    heard = fftconvolve(sound, echoes / np.sqrt(np.sum(echoes**2)))[: len(sound)]
    hum = speaker.hum * np.sin(2 * np.pi * speaker.hum_hz * np.arange(len(sound)) / rate)
    mixed = (1 - speaker.room_share) * sound + speaker.room_share * heard + hum
    return mixed.astype(np.float32)


def _bout(position: np.ndarray, center: float, share: float) -> np.ndarray:
    """1 over `share` of the clip around `center`, moved inwards where it would leave the clip; soft ends."""
    share = min(share, 0.98)
    start = np.clip(center - share / 2, 0.01, 0.99 - share)
    rise = 0.02
    return np.clip((position - start) / rise, 0, 1) * np.clip((start + share - position) / rise, 0, 1)


def _murmur(t: np.ndarray, rate: int, speaker: Speaker, rng: np.random.Generator) -> np.ndarray:
    syllables = 0.55 + 0.45 * np.sin(2 * np.pi * rng.uniform(2.0, 3.2) * t + rng.uniform(0, 2 * np.pi))
    pitch = speaker.pitch_hz * (1 + 0.06 * np.sin(2 * np.pi * rng.uniform(0.3, 0.8) * t))
    return syllables * _voiced(pitch, rate, "m", speaker, 1.0, rng)


def _laugh(t: np.ndarray, rate: int, speaker: Speaker, rng: np.random.Generator) -> np.ndarray:
    """Ha-ha-ha: an aspirated start, then a short open vowel whose pitch falls."""
    phase = (speaker.laugh_hz * t + rng.uniform()) % 1.0
    vowel = np.where(phase < 0.25, 0.0, np.exp(-0.5 * ((phase - 0.45) / 0.14) ** 2))
    aspiration = np.exp(-0.5 * ((phase - 0.2) / 0.08) ** 2)
    pitch = speaker.pitch_hz * (1.75 - 0.35 * phase)
    voiced = _voiced(pitch, rate, "a", speaker, 1.0, rng)
    return 1.6 * vowel * voiced + 0.5 * aspiration * _noise(len(t), rate, 1200.0, 4500.0, rng)


def _pant(t: np.ndarray, rate: int, speaker: Speaker, rng: np.random.Generator) -> np.ndarray:
    """Quick shallow breaths: noise only, in and out by turns."""
    phase = (speaker.pant_hz * t + rng.uniform()) % 1.0
    inward = np.exp(-0.5 * ((phase - 0.25) / 0.11) ** 2)
    outward = np.exp(-0.5 * ((phase - 0.72) / 0.13) ** 2)
    high = _noise(len(t), rate, speaker.breath_hz, 7000.0, rng)
    low = _noise(len(t), rate, 0.6 * speaker.breath_hz, 5000.0, rng)
    return 1.2 * inward * high + 1.2 * outward * low


def _groan(t: np.ndarray, rate: int, speaker: Speaker, rng: np.random.Generator) -> np.ndarray:
    """Long, low and falling, with a creak towards the end of each groan."""
    phase = (t / speaker.groan_seconds + rng.uniform()) % 1.0
    envelope = np.clip(phase / 0.1, 0, 1) * np.clip((1 - phase) / 0.25, 0, 1)
    pitch = speaker.pitch_hz * (0.68 - 0.22 * phase)
    creak = 1 + 0.35 * np.sign(np.sin(2 * np.pi * 24.0 * t)) * (phase > 0.6)
    return 1.1 * envelope * creak * _voiced(pitch, rate, "o", speaker, 0.92, rng)


def _shriek(t: np.ndarray, rate: int, speaker: Speaker, rng: np.random.Generator) -> np.ndarray:
    """A gasp, then a thin cry that rises and trembles."""
    phase = (1.25 * t + rng.uniform()) % 1.0
    gasp = np.exp(-0.5 * ((phase - 0.12) / 0.06) ** 2)
    cry = np.clip((phase - 0.25) / 0.06, 0, 1) * np.clip((1 - phase) / 0.1, 0, 1)
    pitch = speaker.pitch_hz * (3.0 + 0.8 * phase) * (1 + 0.03 * np.sin(2 * np.pi * 7.0 * t))
    voiced = _voiced(pitch, rate, "i", speaker, 1.1, rng)
    return 0.8 * gasp * _noise(len(t), rate, 900.0, 3500.0, rng) + cry * voiced


def _voiced(
    pitch_hz: np.ndarray, rate: int, vowel: str, speaker: Speaker, tract: float, rng: np.random.Generator
) -> np.ndarray:
    """A glottal pulse train, dull or clear, with breath in it, through the formants of a vowel; RMS 1."""
    drift = lfilter([0.002], [1, -0.998], rng.standard_normal(len(pitch_hz)))
    phase = np.cumsum(pitch_hz * (1 + 0.25 * drift) / rate) % 1.0
    opening = np.where(phase < 0.4, 0.5 - 0.5 * np.cos(np.pi * phase / 0.4), 0.0)
    closing = np.where((phase >= 0.4) & (phase < 0.56), np.cos(0.5 * np.pi * (phase - 0.4) / 0.16), 0.0)
    pole = speaker.tilt ** (16000 / rate)
    pulses = lfilter([1 - pole], [1, -pole], np.diff(opening + closing, prepend=0.0))
    breath = 0.002 + speaker.breathiness * np.sqrt(np.mean(pulses**2))
    sound = pulses + breath * rng.standard_normal(len(phase))
    for formant, bandwidth in zip(VOWELS[vowel], (80.0, 100.0, 150.0, 220.0), strict=True):
        radius = np.exp(-np.pi * bandwidth / rate)
        angle = 2 * np.pi * formant * tract * speaker.tract_scale / rate
        pole = [1.0, -2 * radius * np.cos(angle), radius**2]
        sound = lfilter([sum(pole)], pole, sound)
    return sound / (np.sqrt(np.mean(sound**2)) + 1e-9)


def _noise(size: int, rate: int, low_hz: float, high_hz: float, rng: np.random.Generator) -> np.ndarray:
    """Noise between two frequencies, RMS 1."""
    band = butter(2, [low_hz, min(high_hz, 0.45 * rate)], btype="band", fs=rate, output="sos")
    sound = sosfilt(band, rng.standard_normal(size))
    return sound / np.sqrt(np.mean(sound**2))
