"""What an epoch came to is one line, also in a log that is narrower than it."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from support.run_logs import epoch_of

from viper_e2e.config.presets import micro
from viper_e2e.config.settings import Settings
from viper_e2e.config.training import TrainConfig
from viper_e2e.loading.skips import SkipBudget
from viper_e2e.report import EpochRecord
from viper_e2e.runtime.progress import ProgressBar
from viper_e2e.training import reporting
from viper_e2e.training.reporting import Reporter
from viper_e2e.training.run_folder import RunFolder
from viper_e2e.training.tables import epoch_line


@pytest.fixture
def reported(tmp_path, monkeypatch):
    """What a narrow log says of epochs with these validations."""

    def say(*validations: dict) -> list[str]:
        said = io.StringIO()
        narrow = Console(file=said, width=80)
        settings = Settings(TrainConfig(run_dir=str(tmp_path / "run")), micro())
        folder = RunFolder(tmp_path / "run", resume=False)
        reporter = Reporter(folder, settings, speaks=True)
        monkeypatch.setattr(reporting, "progress_bar", lambda: ProgressBar(narrow))
        with reporter.showing(0, 3):
            for number, val in enumerate(validations):
                reporter.report_epoch(epoch(number, val), None, SkipBudget())
        folder.release()
        return said.getvalue().splitlines()

    return say


def epoch(number: int, val: dict) -> EpochRecord:
    return epoch_of({"epoch": number, "step": 3, "train_loss": 0.1991, "val": val})


def test_an_epoch_is_one_line_in_a_narrow_log(reported):
    val = {"mean_pearson": -0.0602, "mean_ccc": -0.0038, "mean_mse": 0.1801}
    line = epoch_line(epoch(0, val))
    assert len(line) > 80
    assert line in reported(val)


def test_what_is_judged_by_is_told_once_where_it_is_undefined(reported):
    undefined = {"mean_pearson": None, "mean_ccc": None, "mean_mse": 0.1801}
    tasks = {"mood": {"kind": "class", "num_clips": 9, "uar": 0.5, "war": 0.5}}
    assert sum("mean Pearson is undefined" in line for line in reported(undefined, undefined)) == 1
    assert "undefined" not in "".join(reported(undefined | {"tasks": tasks, "best_by": 0.5}))
    tasks["mood"]["uar"] = None
    assert "mood UAR is undefined" in "".join(reported(undefined | {"tasks": tasks, "best_by": None}))


def test_speed_is_that_of_its_epoch(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(reporting.time, "monotonic", lambda: clock[0])
    reporter = Reporter(
        RunFolder(tmp_path / "run", resume=False),
        Settings(TrainConfig(run_dir=str(tmp_path / "run")), micro()),
        speaks=True,
    )
    said = io.StringIO()
    monkeypatch.setattr(reporting, "progress_bar", lambda: ProgressBar(Console(file=said, width=80)))

    shown: list[str] = []
    monkeypatch.setattr(ProgressBar, "update", lambda _, __, **fields: shown.append(fields.get("details", "")))

    def step(waited: float, detection: float) -> str:
        reporter.count_step(
            1, 0.5, 0.1, 10, waited_seconds=waited, num_cached=None, stage_seconds={"detection": detection}
        )
        return shown[-1]

    with reporter.showing(0, 2):
        reporter.begin_epoch(waited_seconds=0.0, stage_seconds={})
        clock[0] = 100.0
        assert step(50.0, 25.0) == "0.1 clips/s · waiting 50% · detection 25%"
        clock[0] = 140.0  # a validation
        reporter.begin_epoch(waited_seconds=60.0, stage_seconds={"detection": 40.0})
        clock[0] = 141.0
        assert step(60.0, 40.0) == "10.0 clips/s · waiting 0% · detection 0%"
