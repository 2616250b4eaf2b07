"""journal.py: a journal of scored clips, one file per process, so that a restart scores nothing twice."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from viper_e2e.config import ModelConfig, ScoringOptions
from viper_e2e.errors import ViperError
from viper_e2e.model import ViPER
from viper_e2e.runtime import Processes, digest, explain, heed_launcher, plain_json, settle_folder, versions

LONGEST_SHARE = timedelta(days=2)
"""How long a process that is done waits for one that has slower clips; a lost one is noticed at once."""


class ResultJournal:
    """Outcomes by the name of a clip, as JSON lines in ``folder/process-<index>-of-<count>.jsonl``.

    ``identity``: whatever outcomes depend on besides the clip; those of another identity do not count.
    """

    def __init__(self, folder: Path, identity: str, processes: Processes):
        self.folder, self.processes = folder, processes
        self._identity = hashlib.sha256(identity.encode()).hexdigest()[:16]
        self._path = folder / f"process-{processes.index}-of-{processes.count}.jsonl"
        settle_folder(folder, "scores are kept in")

    def known(self) -> dict[str, Any]:
        """Outcomes that all processes have written, in this run or an earlier one, however many they were.

        A line that is damaged counts for nothing: its clip is scored again.
        """
        self.processes.wait("reading what has been scored")
        outcomes: dict[str, Any] = {}
        for path in sorted(self.folder.glob("process-*.jsonl")):
            # Anything after the last line break was cut short by a kill.
            for line in path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
                record = plain_json.record_in(line) or {}
                if record.get("identity") == self._identity:
                    outcomes[record["name"]] = record["outcome"]
        self.processes.wait("all have read what has been scored")
        return outcomes

    def add(self, outcomes: dict[str, Any]) -> None:
        """Write down outcomes of this process, at once."""
        lines = [
            plain_json.dumps({"identity": self._identity, "name": name, "outcome": outcome})
            for name, outcome in outcomes.items()
        ]
        try:
            self._cut_torn_line()
            # A name that is not text is written as \udcXX, which JSON takes back.
            with self._path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write("".join(f"{line}\n" for line in lines))
        except OSError as error:
            raise ViperError(
                f"{explain(error, self._path)}; what was scored so far is saved there: "
                "run the same command again to continue"
            ) from error

    def _cut_torn_line(self) -> None:
        if not self._path.exists():
            return
        with self._path.open("rb+") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            if file.read() not in (b"", b"\n"):
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)

    def remove(self) -> None:
        """Once everything is merged and written: our files, and the folder if it holds nothing else."""
        for path in self.folder.glob("process-*-of-*.jsonl"):
            path.unlink(missing_ok=True)
        with suppress(OSError):  # it is not empty, and not ours to empty
            self.folder.rmdir()


def scoring_accelerator(device: torch.device) -> Accelerator:
    """Accelerator for processes that each score their share of clips alone."""
    heed_launcher()
    return Accelerator(
        cpu=device.type == "cpu", kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_SHARE)]
    )


def identity_of(model: ViPER, options: ScoringOptions, *settings: object) -> str:
    """Identity of all that outcomes depend on besides the clip: weights, every setting, versions of packages.

    Nothing counts by its name or place: a checkpoint trained again in the same folder is another one.
    """
    how = [str(model.device.type), options.mixed_precision, options.compile]
    # A clip that took too long may be had with more time.
    how += [options.clip_timeout_seconds, options.max_worker_restarts]
    settled = [_counted(model.config), asdict(model.decoder.config), asdict(model.labels)]
    # A calibrated checkpoint may be used without its calibration.
    settled += [] if model.calibration is None else [model.calibration.to_json()]
    return digest([model.content_id, settled, how, [repr(setting) for setting in settings], versions()])


def _counted(config: ModelConfig) -> dict[str, Any]:
    """The settings that outcomes depend on; one that came later than journals counts only where it is given."""
    settings = asdict(config)
    return {name: value for name, value in settings.items() if value or name != "extra_modalities"}
