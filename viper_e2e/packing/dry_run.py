"""packing/dry_run.py: counts what a writer of shards would write, and writes nothing (--dry-run)."""

from __future__ import annotations

from collections.abc import Mapping

from viper_e2e.packing.report import SplitReport


class Rehearsal:
    """Counts the clips of one split that would be written."""

    def __init__(self, split: str):
        self.split = split
        self.clips = self.unlabelled = 0
        self.subjects: set[str] = set()

    def add(
        self,
        key: str,
        members: Mapping[str, bytes],
        *,
        intensities: tuple[float, ...] | None = None,
        subject: str | None = None,
        **others: object,
    ) -> None:
        """Count a sample, in place of `ShardWriter.add`."""
        self.clips += 1
        self.unlabelled += intensities is None
        self.subjects |= {subject} if subject is not None else set()

    def report(self) -> SplitReport:
        """The report of a real run, without shards."""
        return SplitReport(self.split, self.clips, self.unlabelled, len(self.subjects), 0, 0)
