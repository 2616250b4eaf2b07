"""skips.py: clips that were left out: what is written about each, and how many are too many."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from .errors import ViperError


@dataclass(frozen=True)
class SkipRecord:
    """One line of `skipped.jsonl`."""

    key: str
    shard: str
    stage: str
    """Where it failed, as in `ClipError.stage`; `"worker"` where it ended or held up a process,
    `"quarantine"` where it is left out for what it did before."""
    exception: str
    """The message."""
    epoch: int
    position: int

    def to_json(self) -> dict[str, str | int]:
        return asdict(self)


@dataclass
class SkipBudget:
    """Counts clips in the order in which they were trained on; over budget is a `ViperError`.

    A few unreadable clips are the nature of large corpora; many are a broken disk or a wrong setting, and
    training on what is left would be a quiet mistake. Give it the clips of all processes to get one verdict
    everywhere.
    """

    max_in_a_row: int = 100
    max_share: float = 0.02
    """Of all clips seen, judged once `grace_clips` were seen."""
    grace_clips: int = 200
    num_seen: int = 0
    num_skipped: int = 0
    in_a_row: int = 0
    stages: Counter[str] = field(default_factory=Counter)
    known: set[str] = field(default_factory=set)
    """Keys reported before."""
    last: SkipRecord | None = None

    def read(self, num_clips: int = 1) -> None:
        """So many clips were read without trouble."""
        self.num_seen += num_clips
        self.in_a_row = 0 if num_clips else self.in_a_row

    def skip(self, record: SkipRecord) -> bool:
        """One was left out. True: the first time for this clip, so write its line to `skipped.jsonl`."""
        first_time = record.key not in self.known
        self.known.add(record.key)
        self.num_seen += 1
        self.num_skipped += 1
        self.in_a_row += 1
        self.stages[record.stage] += 1
        self.last = record
        return first_time

    def check(self) -> None:
        """Raise once a budget is exceeded; call it after the lines are written."""
        if self.in_a_row > self.max_in_a_row:
            self._stop(f"{self.in_a_row} clips in a row could not be used (at most {self.max_in_a_row})")
        share = self.num_skipped / max(1, self.num_seen)
        if self.num_seen >= self.grace_clips and share > self.max_share:
            self._stop(
                f"{self.num_skipped} of {self.num_seen} clips could not be used "
                f"({share:.1%}, at most {self.max_share:.1%})"
            )

    def _stop(self, what: str) -> None:
        stages = ", ".join(f"{stage} {count}" for stage, count in self.stages.most_common())
        assert self.last is not None
        raise ViperError(
            f"{what}; by stage: {stages}; last: {self.last.exception} (shard {self.last.shard}); "
            "look at skipped.jsonl and run `viper check` on the shards"
        )

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, as JSON."""
        return {
            "num_seen": self.num_seen,
            "num_skipped": self.num_skipped,
            "in_a_row": self.in_a_row,
            "stages": dict(self.stages),
            "known": sorted(self.known),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.num_seen = state["num_seen"]
        self.num_skipped = state["num_skipped"]
        self.in_a_row = state["in_a_row"]
        self.stages = Counter(state["stages"])
        self.known = set(state["known"])
