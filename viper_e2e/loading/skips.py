"""skips.py: skipped clips: the record of each, and how many are too many."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from viper_e2e.errors import ViperError
from viper_e2e.loading.quarantine import ClipKey, Split

ALWAYS_ENDURED = 4
"""Clips of one epoch that may be unreadable however small the set is."""


@dataclass(frozen=True)
class SkipRecord:
    """One line of `skipped.jsonl`."""

    key: str
    shard: str
    stage: str
    """The stage that failed, as in `ClipError.stage`."""
    exception: str
    """The message."""
    epoch: int
    position: int
    split: Split | None = None
    """`"val"` for a clip to validate on, whose `position` is that in the validation shards."""
    step: int | None = None
    """Step of the validation."""

    def to_json(self) -> dict[str, str | int]:
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass
class SkipBudget:
    """Counts the clips of an epoch in the order in which they were trained on; over budget is a `ViperError`.

    A few unreadable clips are the nature of large corpora; many are a broken disk or a wrong setting, and
    training on what is left would be a quiet mistake. Give it the clips of all processes to get one verdict
    everywhere. Clips in quarantine are no new trouble and are not counted again.
    """

    max_in_a_row: int = 100
    max_share: float = 0.02
    """Largest share of unreadable clips among the epoch's so far, judged once `grace_clips` were seen."""
    grace_clips: int = 200
    num_clips: int | None = None
    """In an epoch: where these are fewer than `grace_clips`, `ALWAYS_ENDURED` may be unreadable."""
    num_seen: int = 0
    num_skipped: int = 0
    num_used: int = 0
    in_a_row: int = 0
    epoch: int = 0
    stages: Counter[str] = field(default_factory=Counter)
    known: set[ClipKey] = field(default_factory=set)
    """Reported before."""
    last: SkipRecord | None = None

    def begin(self, epoch: int) -> None:
        """Count for this epoch, from zero if it is a new one."""
        if epoch != self.epoch:
            self.epoch, self.num_seen, self.num_skipped, self.num_used = epoch, 0, 0, 0
            self.stages.clear()

    def read(self, num_clips: int = 1) -> None:
        """So many clips were read without trouble."""
        self.num_seen += num_clips
        self.num_used += num_clips
        self.in_a_row = 0 if num_clips else self.in_a_row

    def skip(self, record: SkipRecord) -> bool:
        """One was left out. True: the first time for this clip, so write its line to `skipped.jsonl`."""
        clip = ClipKey(record.split or "train", record.key)
        first_time = clip not in self.known
        self.known.add(clip)
        self.num_seen += 1
        self.stages[record.stage] += 1
        self.last = record
        if record.stage != "quarantine":
            self.num_skipped += 1
            self.in_a_row += 1
        return first_time

    def skip_late(self, record: SkipRecord) -> bool:
        """`skip` for a clip that was counted as read."""
        self.num_seen -= 1
        self.num_used -= 1
        return self.skip(record)

    def check(self) -> None:
        """Raise once a budget is exceeded; call it after the lines are written."""
        if self.in_a_row > self.max_in_a_row:
            self._stop(f"{self.in_a_row} clips in a row could not be used (at most {self.max_in_a_row})")
        is_small = self.num_clips is not None and self.num_clips < self.grace_clips
        if is_small and self.num_skipped > ALWAYS_ENDURED:
            self._stop(
                f"{self.num_skipped} of the {self.num_clips} clips of an epoch could not be used "
                f"(at most {ALWAYS_ENDURED})"
            )
        share = self.num_skipped / max(1, self.num_seen)
        if self.num_seen >= self.grace_clips and share > self.max_share:
            self._stop(
                f"{self.num_skipped} of {self.num_seen} clips could not be used "
                f"({share:.1%}, at most {self.max_share:.1%})"
            )

    def end(self) -> None:
        """Raise where nothing of the epoch could be used."""
        if self.num_seen and not self.num_used:
            self._stop(f"none of the {self.num_seen} clips of an epoch could be used, so nothing was learned")

    def _stop(self, what: str) -> None:
        stages = ", ".join(f"{stage} {count}" for stage, count in self.stages.most_common())
        last = f"; last: {self.last.exception} (shard {self.last.shard})" if self.last else ""
        raise ViperError(
            f"{what}; by stage: {stages}{last}; look at skipped.jsonl and run `viper check` on the shards"
        )

    def state_dict(self) -> dict[str, Any]:
        """State for a resumed run, as JSON."""
        return {
            "num_seen": self.num_seen,
            "num_skipped": self.num_skipped,
            "num_used": self.num_used,
            "in_a_row": self.in_a_row,
            "epoch": self.epoch,
            "stages": dict(self.stages),
            "known": [list(clip) for clip in sorted(self.known)],
            "last": None if self.last is None else self.last.to_json(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.in_a_row = state["in_a_row"]
        self.known = {_saved_key(clip) for clip in state["known"]}
        # Earlier versions counted over all epochs: that says nothing of this one.
        counts_epochs = "epoch" in state
        for name in ("num_seen", "num_skipped", "num_used", "epoch"):
            setattr(self, name, state[name] if counts_epochs else 0)
        self.stages = Counter(state["stages"] if counts_epochs else {})
        last = state.get("last")
        self.last = None if last is None else SkipRecord(**last)


def _saved_key(clip: str | list[str]) -> ClipKey:
    """Versions up to 0.4 saved the key alone, with ``val/`` before that of a validation clip."""
    if isinstance(clip, str):
        clip = ["val" if clip.startswith("val/") else "train", clip.removeprefix("val/")]
    split, key = clip
    return ClipKey("val" if split == "val" else "train", key)
