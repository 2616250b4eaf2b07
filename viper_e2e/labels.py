"""labels.py: label sets: the corpus's column names, our names, the range of values; names of action units."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class LabelSet:
    """The targets of a corpus, in a fixed order."""

    columns: tuple[str, ...]
    """Column titles as the corpus writes them, for reading labels and writing submissions."""
    minimum: float = 0.0
    maximum: float = 1.0
    """Range of the values; inside [0, 1] the model ends in a sigmoid, otherwise it is linear."""
    means: tuple[float, ...] | None = None
    """Of the training labels, once known: what a submission says of a clip that cannot be read."""
    centres: tuple[float, ...] | None = None
    """Of the training labels: where the model's head begins. None: the head's numbers are the labels."""
    widths: tuple[float, ...] | None = None
    """How far the training labels reach, the head's and the loss's unit. 0: as without."""

    @property
    def names(self) -> tuple[str, ...]:
        """Our spelling: lower case, words joined by underscores."""
        return tuple(name_of(column) for column in self.columns)

    @property
    def in_unit_interval(self) -> bool:
        return self.minimum >= 0.0 and self.maximum <= 1.0

    def __len__(self) -> int:
        return len(self.columns)


def name_of(column: str) -> str:
    """``"Empathic-Pain"`` → ``"empathic_pain"``."""
    return re.sub(r"[^0-9a-z]+", "_", column.strip().lower()).strip("_")


HUME_REACTION = LabelSet(("Adoration", "Amusement", "Anxiety", "Disgust", "Empathic-Pain", "Fear", "Surprise"))
"""The seven self-reported reaction intensities of MuSe 2022 (Christ et al. 2022), in the challenge's order."""


ACTION_UNITS = tuple(
    f"au{n}" for n in (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, 17, 20, 23, 24, 25, 26, 28, 43)
)
FACIAL_EMOTIONS = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
"""The 27 columns of action units in the published order: py-feat's 20 action units, then its seven emotions."""


def unit_name(column: str) -> str:
    """``"AU01"`` → ``"au1"``, ``" Anger"`` → ``"anger"``."""
    title = column.strip().lower()
    unit = re.fullmatch(r"au0*(\d+)", title)
    return f"au{unit.group(1)}" if unit else title
