"""What an epoch came to is one line, also in a log that is narrower than it."""

from __future__ import annotations

import io
import time

from rich.console import Console

from viper_e2e.config.presets import micro
from viper_e2e.config.settings import Settings
from viper_e2e.config.training import TrainConfig
from viper_e2e.loading.skips import SkipBudget
from viper_e2e.runtime.progress import ProgressBar
from viper_e2e.training.reporting import Reporter, _Shown
from viper_e2e.training.run_folder import RunFolder
from viper_e2e.training.tables import epoch_line


def test_an_epoch_is_one_line_in_a_narrow_log(tmp_path):
    said = io.StringIO()
    narrow = Console(file=said, width=80)
    reporter = Reporter(
        RunFolder(tmp_path / "run", resume=False), Settings(TrainConfig(), micro()), speaks=True
    )
    bar = ProgressBar(narrow)
    reporter._console, reporter._shown = narrow, _Shown([], bar, bar.add_task("training"))
    reporter._drawn_at = time.monotonic()  # nothing is drawn so soon
    val = {"mean_pearson": -0.0602, "mean_ccc": -0.0038, "mean_mse": 0.1801}
    record = {"epoch": 0, "step": 3, "train_loss": 0.1991, "val": val}
    reporter.report_epoch(record, None, SkipBudget())
    assert len(epoch_line(record)) > narrow.width
    assert epoch_line(record) in said.getvalue().splitlines()
