"""run_logs.py: logs of runs out of what a test says of their epochs."""

from __future__ import annotations

from typing import Any

from viper_e2e.report import EpochRecord, RunLog

Line = dict[str, Any]


def epoch_of(line: Line, best_by: str = "") -> EpochRecord:
    """``line``: as in ``metrics.jsonl``; what it lacks is that of a first step, or of an earlier version whose
    run was judged by ``best_by``."""
    (epoch,) = RunLog.from_json([{"epoch": 0, "step": 1, "train_loss": 0.1} | line], best_by).epochs
    return epoch


def log_of(*lines: Line, best_by: str = "") -> RunLog:
    return RunLog(tuple(epoch_of(line, best_by) for line in lines))
