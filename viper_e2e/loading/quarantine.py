"""quarantine.py: clips of a run that are not tried again, and why; which of its clips a key names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Split = Literal["train", "val"]
"""Use of a clip in a run: to train or to validate on."""


class ClipKey(NamedTuple):
    """A clip of a run. Clips to train on and clips to validate on may have the same keys."""

    split: Split
    key: str


@dataclass
class Quarantine:
    """Clips of one source that are not tried again, since they ended a worker or a step without a number."""

    reasons: dict[str, str] = field(default_factory=dict)
    """Reasons by the clip's key."""

    def add(self, key: str, reason: str) -> None:
        self.reasons[key] = reason

    def reason_of(self, key: str) -> str | None:
        """None for clips that may be tried."""
        return self.reasons.get(key)


@dataclass(frozen=True)
class RunQuarantine:
    """Quarantines of a run: of training clips, and of validation clips."""

    train: Quarantine = field(default_factory=Quarantine)
    val: Quarantine = field(default_factory=Quarantine)

    def add(self, clip: ClipKey, reason: str) -> None:
        self._of(clip.split).add(clip.key, reason)

    def items(self) -> list[tuple[ClipKey, str]]:
        return [(ClipKey(split, key), why) for split in SPLITS for key, why in self._of(split).reasons.items()]

    def to_json(self) -> dict[str, dict[str, str]]:
        """Plain data, as in checkpoints."""
        return {split: dict(self._of(split).reasons) for split in SPLITS}

    def restore(self, saved: Mapping[str, str | Mapping[str, str]]) -> None:
        """Add what a checkpoint has; those of 0.4 and before put ``validation/`` before keys of validation."""
        for name, found in saved.items():
            if isinstance(found, str):
                split: Split = "val" if name.startswith(BEFORE_VALIDATION) else "train"
                self.add(ClipKey(split, name.removeprefix(BEFORE_VALIDATION)), found)
            else:
                self._of("val" if name == "val" else "train").reasons.update(found)

    def _of(self, split: Split) -> Quarantine:
        return self.val if split == "val" else self.train


SPLITS: tuple[Split, ...] = ("train", "val")
BEFORE_VALIDATION = "validation/"
