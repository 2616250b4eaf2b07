"""checkpoint.py: weights and settings <-> a folder of safetensors and JSON that is whole or not there."""

from __future__ import annotations

import errno
import hashlib
import logging
import math
import os
import re
import shlex
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import safetensors
from safetensors.torch import load_file, save_file
from torch import Tensor

from viper_e2e.errors import ViperError
from viper_e2e.runtime import naming, plain_json

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
FOR_PEOPLE = (".md", ".rst", ".html", ".png", ".jpg", ".svg", ".pdf")
"""Endings of files that are read by people, and by no program of ours."""


class CheckpointError(ViperError):
    """A checkpoint folder is missing, damaged or not ours; the message names the file."""


# --- a folder that is whole or not there ----------------------------------------------------------


def write_folder(target: Path, fill: Callable[[Path], None], *, keep_previous: bool = False) -> None:
    """Replace ``target`` by what ``fill`` writes, so that a crash at any moment leaves a whole folder.

    ``fill`` writes into ``target.new``; every file is flushed to disk, their sha256 go into the manifest,
    written last; then ``target`` steps aside to ``target.previous``, ``target.new`` takes its name, and
    only then the previous one goes, or with ``keep_previous`` stays until the next one is whole.
    ``newest_whole`` finds the survivor of a crash in between.
    """
    new, previous = _beside(target, "new"), _beside(target, "previous")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        fill(new)
        _write_manifest(new)
    except BaseException:
        # A full disk or Ctrl-C: what is half written must not stay; the good folder is untouched.
        shutil.rmtree(new, ignore_errors=True)
        raise
    if target.exists():
        shutil.rmtree(previous, ignore_errors=True)
        target.replace(previous)
    new.replace(target)
    _fsync(target.parent)
    if not keep_previous:
        shutil.rmtree(previous, ignore_errors=True)


def copy_files(folder: Path, new: Path) -> None:
    """All of a checkpoint but its manifest; `OSError` names the file for which there was no room."""
    for source in _files(folder):
        if source != folder / MANIFEST:
            target = new / source.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def newest_whole(target: Path) -> tuple[Path | None, list[str]]:
    """The newest undamaged folder among ``target``, ``target.new`` and ``target.previous``.

    Returns it (or ``None``) and one line for each damaged one that was passed over. A ``target.new`` that was
    not finished has never been a checkpoint, so nothing is said of it.
    """
    complaints = []
    new = _beside(target, "new")
    for folder in (target, new, _beside(target, "previous")):
        if not folder.is_dir():
            continue
        try:
            verify(folder)
        except CheckpointError as error:
            complaints += [str(error)] if folder != new else []
        else:
            return folder, complaints
    return None, complaints


def verify(folder: Path) -> None:
    """Compare every file with the manifest; :class:`CheckpointError` names the first that differs.

    Files that nobody computes with may change: a model card is there to be edited.
    """
    for name, expected in _manifest_files(folder).items():
        path = _inside(folder, name)
        if not path.is_file():
            raise CheckpointError(f"{path}: missing; copy the whole checkpoint folder again")
        if path.stat().st_size != expected["size"]:
            raise CheckpointError(
                f"{path}: {path.stat().st_size} bytes instead of {expected['size']}; "
                "the file is damaged, copy the checkpoint folder again"
            )
        if _sha256(path) != expected["sha256"]:
            raise CheckpointError(
                f"{path}: content differs from the manifest; the file is damaged, copy it again"
            )


def content_of(folder: Path) -> dict[str, str]:
    """Name → sha256 of the files that a verified folder is computed with."""
    return {name: expected["sha256"] for name, expected in _manifest_files(folder).items()}


def folder_of(source: Path) -> Path:
    """The checkpoint's folder; of a run's folder its best checkpoint, or its last where none was validated."""
    if (source / MANIFEST).exists() or (source / "config.json").exists():
        return source
    for found in (source / "checkpoints" / "best", source / "checkpoints" / "last", source / "best"):
        if (found / MANIFEST).is_file():
            logger.warning("%s: the folder of a run; taking %s", source, found)
            return found
    if told := unfinished_line(source):
        raise CheckpointError(told)
    if runs := _models_in(source):
        raise CheckpointError(f"{source}: holds several runs; did you mean {runs[0]}?")
    return source


def unfinished_line(run: Path) -> str:
    """Command that continues a run, or the runs that were to give one model, if that is still missing; empty
    where ``run`` is no such folder."""
    settings = run / "config.yaml"
    if not settings.is_file() or (run / "checkpoints").exists():
        return ""
    command = command_of(run)
    again = f"viper {command} --resume --run-dir {shlex.quote(str(run))}"
    models = _models_in(run)
    if not models:
        return f"{run}: a run that has saved no checkpoint yet; `{again}` continues it"
    joins = re.search(
        r"^ensemble: (?!1$)", settings.read_text(encoding="utf-8", errors="replace"), re.MULTILINE
    )
    if command == "cv" or (command == "train" and not joins):
        return ""
    return f"{run}: stopped before it had one model; `{again}` continues it; or name a model: {models[0]}"


def command_of(run: Path) -> str:
    """The command that began the run, or the runs, in a folder that has settings, and goes on with them."""
    records = {"retrained.json": "ablate --retrain", "folds.json": "cv", "sweep.json": "sweep"}
    # A sweep whose record is lost finds its trials again.
    return next((name for file, name in records.items() if (run / file).is_file()), "") or (
        "sweep" if any(run.glob("trial-*")) else "train"
    )


def _models_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("seed-*/checkpoints/best")) + sorted(folder.glob("*/checkpoints/best"))


def _manifest_files(folder: Path) -> dict[str, Any]:
    manifest = read_json(folder / MANIFEST)
    files = manifest.get("files")
    if manifest.get("schema") != 1 or not isinstance(files, dict) or not all(map(_is_entry, files.values())):
        raise CheckpointError(f"{folder / MANIFEST}: not a manifest of this version; was it edited?")
    # Manifests of earlier versions list the model card as well.
    return {name: expected for name, expected in files.items() if _is_computed_with(name)}


def _is_entry(expected: object) -> bool:
    if not isinstance(expected, dict) or expected.keys() != {"size", "sha256"}:
        return False
    size, sha256 = expected["size"], expected["sha256"]
    return type(size) is int and isinstance(sha256, str) and bool(re.fullmatch("[0-9a-f]{64}", sha256))


def _is_computed_with(name: str) -> bool:
    """Not the model card, nor what a hub or a person puts beside a model."""
    path = PurePosixPath(name)
    return path.suffix.lower() not in FOR_PEOPLE and path.name not in (".gitattributes", "LICENSE")


def _write_manifest(folder: Path) -> None:
    files = {}
    for path in _files(folder):
        _fsync(path)
        name = path.relative_to(folder).as_posix()
        if _is_computed_with(name):
            files[name] = {"size": path.stat().st_size, "sha256": _sha256(path)}
    write_json(folder / MANIFEST, {"schema": 1, "files": files})
    _fsync(folder / MANIFEST)
    for path in (*(path for path in folder.rglob("*") if path.is_dir()), folder):
        _fsync(path)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise CheckpointError(f"{folder / MANIFEST}: {name!r} points outside of the folder")
    return path


def _beside(target: Path, word: str) -> Path:
    return target.with_name(f"{target.name}.{word}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    is_posix = hasattr(os, "O_DIRECTORY")
    if path.is_dir() and not is_posix:
        return  # Windows opens no folders
    # ... and flushes no file that is open for reading alone; here some may be read-only.
    descriptor = os.open(path, os.O_RDONLY if is_posix else os.O_RDWR)
    try:
        with naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- JSON and tensors -----------------------------------------------------------------------------


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    with naming(path):
        path.write_text(plain_json.dumps(data, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a checkpoint; `CheckpointError` for anything else."""
    if not path.exists():
        raise CheckpointError(f"{path}: missing, but every checkpoint folder has it; is the path right?")
    return plain_json.read_object(path, error=CheckpointError, advice="the file is damaged")


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, shared storage apart. `OSError` tells how much room is missing."""
    needed, free = sum(tensor.nbytes for tensor in tensors.values()), _free_bytes(path.parent)
    if needed > free:
        raise _full(path, needed, free)
    path.touch()
    mode = path.stat().st_mode  # as this user makes files: safetensors' own are for nobody else to read
    try:
        save_file({name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}, path)
    except safetensors.SafetensorError as error:
        free = _free_bytes(path.parent)
        if needed > free:
            raise _full(path, needed, free) from error
        raise OSError(errno.EIO, f"{error}; {needed:,} bytes were to be written", str(path)) from error
    path.chmod(stat.S_IMODE(mode))


def _free_bytes(folder: Path) -> float:
    try:
        return float(shutil.disk_usage(folder).free)
    except OSError:  # a file system that does not tell
        return math.inf


def _full(path: Path, needed: int, free: float) -> OSError:
    missing = f"needs {needed:,} bytes, {free:,.0f} are free, {needed - free:,.0f} are missing"
    return OSError(errno.ENOSPC, f"no space left: {missing}", str(path))


def load_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path}: missing; copy the whole checkpoint folder again")
    try:
        return load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({error})") from error
