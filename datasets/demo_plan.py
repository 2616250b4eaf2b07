"""demo_plan.py: all that decides a clip of the demo corpus, drawn from its seed, split and number alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from demo_face import ACTIONS
from demo_subject import Subject, draw_subject
from demo_voice import Speaker

from viper_e2e.labels import HUME_REACTION

EMOTIONS = HUME_REACTION.columns

FACE = {
    "Adoration": {"smile": 1.1, "brow_raise": 0.25},
    "Disgust": {"nose_wrinkle": 1.0, "brow_lower": 1.0, "smile": -0.3},
    "Surprise": {"mouth_open": 1.0, "brow_raise": 1.0, "eye_widen": 0.4},
    "Fear": {"lip_stretch": 1.0, "inner_brow_raise": 1.0, "eye_widen": 0.7},
}
"""Actions of each emotion at intensity 1; what is not here leaves the face at rest."""
VOICE = {"Amusement": "laugh", "Anxiety": "pant", "Empathic-Pain": "groan", "Fear": "shriek"}
"""Cue of each emotion; what is not here leaves the voice murmuring."""

RANGES: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    # name: (training and validation), (test, below), (test, above)
    "laugh_hz": ((4.4, 5.4), (4.0, 4.4), (5.4, 5.9)),
    "pant_hz": ((2.2, 2.9), (1.9, 2.2), (2.9, 3.3)),
    "groan_seconds": ((0.9, 1.3), (0.75, 0.9), (1.3, 1.5)),
    "breath_hz": ((2200, 2800), (1950, 2200), (2800, 3100)),
    "warp_strength": ((0.92, 1.08), (0.84, 0.92), (1.08, 1.16)),
    "voice_strength": ((0.92, 1.08), (0.84, 0.92), (1.08, 1.16)),
    "brightness": ((0.8, 1.0), (0.72, 0.8), (1.0, 1.08)),
    "warmth": ((-0.06, 0.06), (-0.1, -0.06), (0.06, 0.1)),
    "background_hue": ((0.45, 0.75), (0.15, 0.45), (0.75, 0.95)),
    "background_scale": ((0.2, 0.4), (0.1, 0.2), (0.4, 0.6)),
}
"""Lasting of a subject: all but the two strengths, which differ from clip to clip."""
OF_CLIP = ("warp_strength", "voice_strength")
NO_FACE = NO_SOUND = 0.05
LABEL_NOISE = 0.1
ONE_CONSTANT_IN = 3
"""Of so many clips in a row, one holds its expression throughout."""
CLIPS_PER_SUBJECT = 4
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Plan:
    """Everything that decides one clip."""

    name: str
    split: str
    subject: Subject
    stream: tuple[int, int, int]
    """Seed of everything that is drawn while rendering."""
    truth: dict[str, float]
    """Intensity of each emotion as shown; the largest is 1."""
    reported: dict[str, float]
    """The same with the noise of self-report; the largest is 1."""
    scene: dict[str, float]
    """Drawn from `RANGES`, with the speaker's own entries left out."""
    seconds: float
    apex: float
    """When the expression is strongest, as a share of the clip."""
    spread: float
    """How long it is strong, as a share of the clip."""
    constant: bool
    """Whether the expression does not change instead."""
    has_face: bool
    has_sound: bool

    @property
    def actions(self) -> dict[str, float]:
        """How far each facial action goes at the apex, from the face at rest."""
        amounts = dict.fromkeys(ACTIONS, 0.0)
        for emotion, parts in FACE.items():
            for action, amount in parts.items():
                amounts[action] += amount * self.truth[emotion] * self.scene["warp_strength"]
        return amounts

    @property
    def cues(self) -> dict[str, float]:
        """How strong each cue of the voice is."""
        return {cue: self.truth[emotion] * self.scene["voice_strength"] for emotion, cue in VOICE.items()}


def plan_clip(seed: int, split: str, index: int) -> Plan:
    """Draw one clip; the same (seed, split, index) is the same clip on every machine and in any order."""
    split_number = SPLITS.index(split) if split in SPLITS else len(SPLITS)
    subject, lasting = plan_subject(seed, split, index // CLIPS_PER_SUBJECT)
    own = np.random.default_rng([seed, split_number, index, 2])
    scene = lasting | {name: _draw(own, name, split) for name in OF_CLIP}
    truth, reported = _intensities(own)
    missing = own.uniform()
    block = np.random.default_rng([seed, split_number, index // ONE_CONSTANT_IN, 6])
    return Plan(
        name=f"{10000 * (1 + split_number) + index:05d}",
        split=split,
        subject=subject,
        stream=(seed, split_number, index),
        truth=truth,
        reported=reported,
        scene=scene,
        seconds=float(own.uniform(2.0, 3.5)),
        apex=float(own.uniform(0.4, 0.6)),
        spread=float(own.uniform(0.18, 0.25)),
        constant=bool(block.integers(ONE_CONSTANT_IN) == index % ONE_CONSTANT_IN),
        has_face=bool(missing >= NO_FACE),
        has_sound=bool(not NO_FACE <= missing < NO_FACE + NO_SOUND),
    )


def plan_subject(seed: int, split: str, number: int) -> tuple[Subject, dict[str, float]]:
    """Draw one person, and what of `RANGES` lasts around them."""
    split_number = SPLITS.index(split) if split in SPLITS else len(SPLITS)
    rng = np.random.default_rng([seed, split_number, number, 1])
    lasting = {name: _draw(rng, name, split) for name in RANGES if name not in OF_CLIP}
    manner = {name: lasting.pop(name) for name in list(lasting) if name in Speaker.__dataclass_fields__}
    subject = draw_subject(f"{split}-{number:03d}", (seed, split_number, number), manner, rng)
    return subject, lasting


def _draw(rng: np.random.Generator, name: str, split: str) -> float:
    seen, below, above = RANGES[name]
    band = seen if split in ("train", "val") else (below, above)[rng.integers(2)]
    return float(rng.uniform(*band))


def _intensities(rng: np.random.Generator) -> tuple[dict[str, float], dict[str, float]]:
    """One to three emotions, divided by their maximum as in Hume-Reaction; then the same as self-reported."""
    active = rng.choice(len(EMOTIONS), size=rng.choice([1, 2, 3], p=[0.35, 0.4, 0.25]), replace=False)
    truth = np.zeros(len(EMOTIONS))
    truth[active] = rng.uniform(0.3, 1.0, len(active))
    truth /= truth.max()
    reported = np.clip(truth + rng.normal(0.0, LABEL_NOISE, len(EMOTIONS)), 0.0, None)
    reported /= reported.max()
    return dict(zip(EMOTIONS, truth.tolist(), strict=True)), dict(zip(EMOTIONS, reported.tolist(), strict=True))
