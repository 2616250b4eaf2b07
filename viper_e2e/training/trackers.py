"""trackers.py: trackers that show a run while it trains: TensorBoard, trackio, wandb, mlflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from viper_e2e.config import Settings, Trackers, flat
from viper_e2e.errors import ViperError
from viper_e2e.runtime import plain_json
from viper_e2e.training.resuming import with_absolute_paths
from viper_e2e.training.tracker_child import Start
from viper_e2e.training.tracker_process import TrackerProcess

PACKAGES = {"trackio": "trackio", "wandb": "wandb", "mlflow": "mlflow-skinny"}
"""The smallest package of each, for `pip install`."""
Plain = str | int | float | None


@runtime_checkable
class Tracker(Protocol):
    """Shows one run. None of its methods raises or waits: failures are reported, and training continues."""

    def settings(self, values: Mapping[str, Plain]) -> None:
        """Record settings by their full names, as in ``model.fusion.dim``."""

    def numbers(self, values: Mapping[str, int | float], step: int) -> None: ...

    def picture(self, path: Path, step: int) -> None:
        """A PNG file, listed under its name."""

    def close(self) -> None: ...


class TensorBoard:
    """Event files in ``tensorboard/`` of the run folder."""

    def __init__(self, folder: Path, tell: Callable[[str], None], first_step: int):
        """``first_step``: what an earlier start of the run logged from there on is not drawn twice."""
        self._tell, self._has_told = tell, False
        self._board = SummaryWriter(str(folder), purge_step=first_step, flush_secs=10)

    def settings(self, values: Mapping[str, Plain]) -> None:
        rows = "".join(f"    {name}: {value}\n" for name, value in values.items())  # indented: as it is
        self._try(lambda: self._board.add_text("settings", rows))

    def numbers(self, values: Mapping[str, int | float], step: int) -> None:
        for name, value in values.items():
            self._try(partial(self._board.add_scalar, name, value, step))

    def picture(self, path: Path, step: int) -> None:
        pixels = np.asarray(Image.open(path).convert("RGB"))
        self._try(lambda: self._board.add_image(path.stem, pixels, step, dataformats="HWC"))

    def close(self) -> None:
        self._try(self._board.close)

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            if not self._has_told:
                self._has_told = True
                self._tell(f"TensorBoard: not written ({error}); training continues")


def check_installed(trackers: Trackers) -> None:
    """Raises `ViperError` for one whose package is missing, before any work."""
    for name in trackers.names:
        if name in PACKAGES and find_spec(name) is None:
            raise ViperError(f"--log-with {name}: {name} is not installed; pip install {PACKAGES[name]}")


def open_trackers(settings: Settings, step: int, tell: Callable[[str], None]) -> list[Tracker]:
    """Those that the settings ask for, which have the settings already.

    ``step``: from which the run continues. ``tell``: is called with a line for each that has stopped.
    """
    config, folder = settings.train, Path(settings.train.run_dir).absolute()
    run = "/".join(folder.parts[-2:])  # seeds and folds are folders in that of their run
    trackers: list[Tracker] = []
    for name in config.log_with.names:
        if name == "tensorboard":
            trackers.append(TensorBoard(folder / "tensorboard", tell, step + 1))
        else:
            start = Start(config.tracker_project, run, folder / "trackers", config.resume)
            trackers.append(TrackerProcess(name, start, tell))
    values = {name: _plain(value) for name, value in flat(with_absolute_paths(settings)).items()}
    for tracker in trackers:
        tracker.settings(values)
    return trackers


def _plain(value: object) -> Plain:
    return value if value is None or isinstance(value, str | int | float) else plain_json.dumps(value)
