"""run_log.py: what a run's ``metrics.jsonl`` says of it as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def yardstick_in(log: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The yardstick's score in a run's metrics: the last, of all its clips, where the first epoch was stopped
    and resumed; ``None`` where it has none."""
    records = [line["yardstick"] for line in log if "mean_pearson" in line.get("yardstick", {})]
    return records[-1] if records else None
