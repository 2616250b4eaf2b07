"""demo_subject.py: the people of the demo corpus: what lasts about a face, a voice, a camera and a room.

A `Subject` is numbers only, drawn from one generator per person; `demo_look.py` paints the face from them and
`demo_voice.py` sounds the voice. Everything here is the same in all clips of a person. A face at rest is not
neutral: some people look as though they smile or frown when they do not, so that how far a mouth's corners
are up says as much about who somebody is as about what they show.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from demo_voice import Speaker

SHAPE = {
    "face_width": 0.13,
    "face_length": 0.10,
    "jaw_width": 0.16,
    "chin_length": 5.0,
    "forehead": 5.0,
    "eye_distance": 3.6,
    "eye_size": 0.22,
    "eye_height": 2.6,
    "eye_slant": 2.0,
    "brow_height": 2.4,
    "nose_width": 0.26,
    "nose_length": 4.0,
    "mouth_width": 0.16,
    "mouth_height": 3.0,
    "lip_fullness": 0.25,
    "cheek_fullness": 4.0,
    "hair_volume": 0.16,
    "turn": 0.12,
    "lean": 0.06,
}
"""Traits of the geometry: each is drawn between minus and plus this, in pixels of the photograph or a share."""
NUM_BUMPS = 10
"""Of a person's own unevenness: small displacements that have no name."""

SKIN = (
    (0.97, 0.83, 0.76),
    (0.91, 0.72, 0.60),
    (0.82, 0.62, 0.46),
    (0.70, 0.49, 0.35),
    (0.56, 0.37, 0.26),
    (0.44, 0.28, 0.20),
)
"""From light to dark; colours in between are mixed."""
HAIR = {
    "black": (0.09, 0.08, 0.08),
    "dark brown": (0.20, 0.13, 0.09),
    "chestnut": (0.38, 0.22, 0.13),
    "red": (0.60, 0.27, 0.12),
    "blond": (0.78, 0.63, 0.38),
    "grey": (0.55, 0.55, 0.56),
    "white": (0.85, 0.85, 0.84),
    "blue": (0.20, 0.28, 0.55),
}
HAIR_SHARES = (0.2, 0.2, 0.15, 0.1, 0.14, 0.1, 0.07, 0.04)
IRIS = ((0.25, 0.15, 0.08), (0.42, 0.28, 0.12), (0.30, 0.42, 0.25), (0.30, 0.48, 0.68), (0.5, 0.55, 0.58))
CUTS = ("full", "short", "long", "cap")
CUT_SHARES = (0.3, 0.3, 0.22, 0.18)
BEARDS = ("none", "stubble", "moustache", "goatee", "full")
BEARD_SHARES = (0.52, 0.14, 0.12, 0.1, 0.12)
GLASSES = ("none", "round", "square")
GLASSES_SHARES = (0.6, 0.2, 0.2)

REST = {
    # action: (least, most) that a face at rest already shows
    "smile": (-0.40, 0.60),
    "lip_stretch": (-0.15, 0.45),
    "mouth_open": (0.0, 0.22),
    "nose_wrinkle": (-0.2, 0.45),
    "brow_raise": (-0.40, 0.60),
    "brow_lower": (-0.2, 0.60),
    "inner_brow_raise": (-0.2, 0.5),
    "eye_widen": (-0.4, 0.45),
}

SIZES = ((256, 192), (320, 240), (288, 216), (240, 240), (192, 256), (240, 320), (320, 192))
FRAMES_PER_SECOND = (10, 12, 15, 20)
SAMPLE_RATES = (22050, 32000, 44100, 48000)


@dataclass(frozen=True)
class Camera:
    """What takes the picture and the sound of one person, and how they sit before it."""

    size: tuple[int, int]
    """Width, height."""
    frames_per_second: int
    sample_rate: int
    channels: int
    gains: tuple[float, float, float]
    """White balance: red, green, blue are multiplied by these."""
    gamma: float
    saturation: float
    sharpness: float
    """Pixels of the sensor per pixel of the file, along a side."""
    grain: float
    """Noise, as a share of white."""
    face_share: float
    """Height of the face, as a share of the picture's."""
    center: tuple[float, float]
    """Where the face is, as shares of the picture's width and height."""
    light_side: float
    """How much brighter the right edge is than the middle."""


@dataclass(frozen=True)
class Subject:
    """One person, and what surrounds them, the same in all their clips."""

    name: str
    stream: tuple[int, int, int]
    """Seed of what is drawn while painting: hairs, freckles, the wall behind."""
    shape: dict[str, float]
    """Traits of `SHAPE`."""
    skin: tuple[float, float, float]
    hair: tuple[float, float, float]
    iris: tuple[float, float, float]
    clothes: tuple[float, float, float]
    cap: tuple[float, float, float]
    lips: tuple[float, float, float]
    cut: str
    beard: str
    glasses: str
    rim: tuple[float, float, float]
    brow_weight: float
    freckles: float
    age: float
    """How deep the lines of the face are, 0 to 1."""
    mirror: bool
    rest: dict[str, float]
    """Amount of each action in a face at rest."""
    camera: Camera
    speaker: Speaker

    def __hash__(self) -> int:
        return hash(self.stream)  # dictionaries have none


def draw_subject(
    name: str, stream: tuple[int, int, int], speaker: dict[str, float], rng: np.random.Generator
) -> Subject:
    """Draw one person.

    :param speaker: entries of the `Speaker` that are drawn elsewhere, because they depend on the split.
    """
    return Subject(
        name=name,
        stream=stream,
        shape={trait: float(reach * rng.uniform(-1, 1)) for trait, reach in SHAPE.items()},
        skin=_between(SKIN, rng.uniform(), rng),
        hair=_near(HAIR[rng.choice(list(HAIR), p=HAIR_SHARES)], 0.12, rng),
        iris=_near(IRIS[rng.integers(len(IRIS))], 0.1, rng),
        clothes=_vivid(rng),
        cap=_vivid(rng),
        lips=_near(((0.80, 0.45, 0.42), (0.66, 0.20, 0.24), (0.62, 0.38, 0.34))[rng.integers(3)], 0.1, rng),
        cut=str(rng.choice(CUTS, p=CUT_SHARES)),
        beard=str(rng.choice(BEARDS, p=BEARD_SHARES)),
        glasses=str(rng.choice(GLASSES, p=GLASSES_SHARES)),
        rim=_vivid(rng, dark=0.5),
        brow_weight=float(rng.uniform(0.0, 1.0)),
        freckles=float(rng.uniform() if rng.uniform() < 0.35 else 0.0),
        age=float(rng.uniform() ** 1.5),
        mirror=bool(rng.integers(2)),
        rest={action: float(rng.uniform(*reach)) for action, reach in REST.items()},
        camera=_camera(rng),
        speaker=Speaker(**_voice(rng), **speaker),
    )


def _camera(rng: np.random.Generator) -> Camera:
    return Camera(
        size=SIZES[rng.integers(len(SIZES))],
        frames_per_second=int(rng.choice(FRAMES_PER_SECOND)),
        sample_rate=int(rng.choice(SAMPLE_RATES)),
        channels=int(rng.integers(1, 3)),
        gains=tuple(float(value) for value in rng.uniform((0.88, 0.92, 0.86), (1.1, 1.04, 1.12))),
        gamma=float(rng.uniform(0.8, 1.25)),
        saturation=float(rng.uniform(0.55, 1.25)),
        sharpness=float(rng.uniform(0.7, 1.0)),
        grain=float(rng.uniform(0.003, 0.016)),
        face_share=float(rng.uniform(0.42, 0.52)),
        center=(float(rng.uniform(0.42, 0.58)), float(rng.uniform(0.45, 0.54))),
        light_side=float(rng.uniform(-0.22, 0.22)),
    )


def _voice(rng: np.random.Generator) -> dict[str, float]:
    """What `Speaker` says of the voice itself; pitch is spread evenly over semitones."""
    return {
        "pitch_hz": float(95.0 * (290.0 / 95.0) ** rng.uniform()),
        "tract_scale": float(rng.uniform(0.86, 1.16)),
        "tilt": float(rng.uniform(0.0, 0.75)),
        "breathiness": float(rng.uniform(0.0, 0.25)),
        "room_seconds": float(rng.uniform(0.05, 0.45)),
        "room_share": float(rng.uniform(0.0, 0.5)),
        "hum_hz": float(rng.choice((50.0, 60.0, 100.0, 120.0))),
        "hum": float(rng.uniform(0.0, 0.006)),
    }


def _between(colors: tuple[tuple[float, ...], ...], share: float, rng: np.random.Generator) -> tuple:
    """Mixed from two neighbours in a row of colours, and a little off."""
    at = share * (len(colors) - 1)
    low = min(int(at), len(colors) - 2)
    mixed = np.array(colors[low]) * (1 - at + low) + np.array(colors[low + 1]) * (at - low)
    return _near(tuple(mixed), 0.05, rng)


def _near(color: tuple[float, ...], reach: float, rng: np.random.Generator) -> tuple:
    changed = np.array(color) * rng.uniform(1 - reach, 1 + reach, 3)
    return tuple(float(value) for value in np.clip(changed, 0, 1))


def _vivid(rng: np.random.Generator, dark: float = 1.0) -> tuple[float, float, float]:
    """Any hue, any lightness: the colours of cloth."""
    hue = 2 * np.pi * rng.uniform()
    wheel = np.cos(hue - 2 * np.pi / 3 * np.arange(3))
    value = rng.uniform(0.12, 0.8) * dark
    return tuple(float(v) for v in np.clip(value * (1 + rng.uniform(0.0, 0.75) * wheel), 0.02, 1.0))
