"""run_folder.py: the folder of a training run, which one process owns."""

from __future__ import annotations

import errno
import os
import shlex
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import yaml

from viper_e2e.config import MixedPrecision
from viper_e2e.errors import ViperError
from viper_e2e.model import checkpoint
from viper_e2e.report import RunLog
from viper_e2e.runtime import count_of, plain_json, remove_unfinished, settle_folder, versions, write_text
from viper_e2e.runtime import lock as take_lock

NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""Errors of network file systems that were mounted without locks."""


class RunFolder:
    """The folder of one run: settings, versions, logs, checkpoints, plots.

    Raises :class:`ViperError` if the folder already holds a run and ``resume`` was not asked for, if there
    is nothing to resume, or if another living process works in it.
    """

    def __init__(self, path: Path, *, resume: bool, owner: bool = True):
        """``owner``: False for the further processes of a run, which only append to its logs."""
        self.path = path
        self._lock: TextIO | None = None
        self.unwritten: dict[str, list[str]] = {}
        """Lines of each log for which there was no room or no permission; each writing tries them again."""
        self._refusals: dict[str, str] = {}
        """Why, of each log for which that has been said."""
        self._damaged: dict[str, int] = {}
        """Lines of each log that are no records, as of its last reading."""
        if not owner:
            return
        if not resume:
            check_is_free(path)
        if resume and not (path / "config.yaml").exists():
            raise ViperError(f"{path}: nothing to resume, no config.yaml in it; start without --resume")
        settle_folder(path, "--run-dir")
        self._lock = self._take_lock()
        remove_unfinished(path)

    @property
    def last(self) -> Path:
        return self.path / "checkpoints" / "last"

    @property
    def best(self) -> Path:
        return self.path / "checkpoints" / "best"

    @property
    def plots(self) -> Path:
        return self.path / "plots"

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """``config.yaml`` (resolved, can be given to ``--config`` again) and ``versions.json``."""
        write_settings(self.path, settings)
        write_text(self.path / "versions.json", plain_json.dumps(versions(), indent=2) + "\n")

    def read_settings(self) -> dict[str, Any]:
        """Settings that `write_settings` wrote when the run began."""
        return yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8"))

    def read_precision(self) -> MixedPrecision:
        """Precision that ``auto`` resolved to when the run began; a resumed one does not decide again."""
        precision = self.read_settings()["mixed_precision"]
        if precision == "fp16":
            raise ViperError(
                f"{self.path}: trained in fp16, which auto never chooses; add --mixed-precision fp16"
            )
        return precision

    def log(self, file: str, record: Mapping[str, Any]) -> None:
        """Append one JSON line to ``metrics.jsonl``, ``skipped.jsonl``, ….

        A full disk must not end days of training: it is said, once per log, and the line stays in `unwritten`.
        """
        self.unwritten.setdefault(file, []).append(plain_json.dumps(record))
        self.write_rest()

    def write_rest(self) -> None:
        """Append to the logs what they lack, of each all or nothing."""
        for file, lines in list(self.unwritten.items()):
            try:
                append_lines(self.path / file, lines)
            except OSError as error:
                if file not in self._refusals:
                    told = "not written ({error}); training continues, and it is tried again with each line"
                    print(f"{self.path / file}: {told.format(error=error)}", file=sys.stderr)
                self._refusals[file] = error.strerror or str(error)
            else:
                del self.unwritten[file]

    def refusals(self) -> list[str]:
        """Lines that each log lacks, with the reason."""
        return [
            f"{count_of(len(lines), 'line')} of {file} could not be written ({self._refusals[file]})"
            for file, lines in self.unwritten.items()
        ]

    def lacking(self, unwritten: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """Those of the lines by log that are not in it meanwhile."""
        found = {}
        for file, lines in unwritten.items():
            there = {plain_json.dumps(record) for record in self.read_log(file)}
            found[file] = [line for line in lines if line not in there]
        return {file: lines for file, lines in found.items() if lines}

    def read_log(self, file: str) -> list[dict[str, Any]]:
        """All records of a log so far; a last line that a kill cut short is left out, and so are damaged ones,
        which is said."""
        path = self.path / file
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else [""]
        records = [plain_json.record_in(line) for line in lines[:-1]]
        damaged = sum(record is None and bool(line) for line, record in zip(lines, records, strict=False))
        if damaged > self._damaged.get(file, 0):
            told = count_of(damaged, "line is", "lines are")
            print(f"{path}: {told} damaged and left out", file=sys.stderr)
        self._damaged[file] = damaged
        return [record for record in records if record is not None]

    def read_metrics(self) -> RunLog:
        """The run's epochs so far."""
        lines = self.read_log("metrics.jsonl")
        return RunLog.from_json(lines, self.read_settings().get("best_by", "") if lines else "")

    def rewind(self, file: str, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Keep only the wanted records, without a last line that a kill cut short."""
        path = self.path / file
        if not path.exists():
            return
        kept = [record for record in self.read_log(file) if keep(record)]
        write_text(path, "".join(plain_json.dumps(r) + "\n" for r in kept))

    def release(self) -> None:
        """Let another process work in the folder."""
        if self._lock is not None:
            # The file stays: to unlink it would let two processes lock two files of one name.
            self._lock.close()

    def _take_lock(self) -> TextIO:
        lock = (self.path / "lock").open("a+", encoding="utf-8")
        try:
            take_lock(lock)
        except OSError as error:
            if error.errno in NO_LOCKS:
                print(
                    f"{self.path}: this file system has no locks ({error.strerror}); "
                    "make sure that no other run uses this folder",
                    file=sys.stderr,
                )
                return lock
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            lock.seek(0)
            owner = lock.read().strip() or "another process"
            lock.close()
            raise ViperError(
                f"{self.path}: {owner} is using this folder; wait for it, stop it, or name another --run-dir"
            ) from error
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        return lock


def append_lines(path: Path, lines: Sequence[str]) -> None:
    """All of them or none. `OSError` where they cannot be written."""
    is_torn = _ends_midway(path)
    size = path.stat().st_size if path.exists() else 0
    try:
        with path.open("a", encoding="utf-8") as log:
            log.write("\n" * is_torn + "".join(f"{line}\n" for line in lines))
    except OSError:
        with suppress(OSError):  # what could not be opened is as it was
            os.truncate(path, size)
        raise


def _ends_midway(path: Path) -> bool:
    """Whether a log ends within a line, for which a disk had no room or a kill left no time."""
    if not path.exists() or not path.stat().st_size:
        return False
    with path.open("rb") as lines:
        lines.seek(-1, os.SEEK_END)
        return lines.read() != b"\n"


def check_is_free(folder: Path) -> None:
    """`ViperError` where there is a run already."""
    if (folder / "config.yaml").exists():
        raise ViperError(f"{folder}: already holds a run; continue it with --resume or name another --run-dir")


def check_goes_on(folder: Path, command: str) -> None:
    """`ViperError` where ``--resume`` is asked of a command that did not begin what is there."""
    if not (folder / "config.yaml").exists() or (own := checkpoint.command_of(folder)) == command:
        return
    again = f"viper {own} --resume --run-dir {shlex.quote(str(folder))}"
    raise ViperError(f"{folder}: was begun by viper {own}; continue it with {again}, or name another --run-dir")


def write_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """``config.yaml`` of a folder."""
    write_text(folder / "config.yaml", yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True))
