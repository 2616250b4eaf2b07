"""outfiles.py: output files: checked before any work, each written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from viper_e2e.errors import ViperError


def settle_file(path: str | os.PathLike, option: str) -> Path:
    """A file that will be written at the end of long work: refused now if it could not be.

    Its folder is made if there is none. ``option``: what named it, for the message. Raises
    :class:`ViperError` where a folder has this name, or the folder cannot be made or written into.
    """
    path = Path(path)
    if path.is_dir():
        raise ViperError(f"{option} {path}: is a folder; name a file, such as {path / 'scores.csv'}")
    settle_folder(path.parent, option)
    return path


def settle_folder(folder: str | os.PathLike, option: str, *, may_be_full: bool = False) -> Path:
    """A folder that files will be written into: made if it is not there, and tried. Raises `ViperError`.

    ``may_be_full``: what it holds already is of use where nothing more has room.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ViperError(
            f"{option} {folder}: is not a folder and cannot be created ({error.strerror})"
        ) from error
    try:
        # Asking for permissions is not enough: the super-user has them on a read-only disk; nor is an empty
        # file, which a full disk still takes.
        with tempfile.TemporaryFile(dir=folder) as tried:
            tried.write(b"" if may_be_full else b"tried")
    except OSError as error:
        raise ViperError(
            f"{option} {folder}: cannot be written into ({error.strerror}); name another folder"
        ) from error
    return folder


def settle_new_folder(folder: str | os.PathLike, option: str) -> Path:
    """A folder that is made at the end of long work: refused now if it is there already, or cannot be made."""
    folder = Path(folder)
    if folder.exists():
        raise ViperError(f"{option} {folder}: already exists; name a new folder")
    settle_folder(folder.absolute().parent, f"{option} {folder}:")
    return folder


@contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """A name to write under; the file written there then replaces ``path`` in one step.

    Nobody ever sees half a file, and what was there stays until the new one is complete. Raises
    :class:`ViperError` where it cannot be written.
    """
    # A link stays one: what it points to is replaced.
    target = Path(os.path.realpath(path))
    partial = target.with_name(f".{target.stem[:60]}.{os.getpid()}.partial{target.suffix}")
    try:
        yield partial
        partial.replace(target)
    except OSError as error:
        raise ViperError(
            f"{path}: cannot be written ({error.strerror or error}); is its folder there, with room in it?"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """UTF-8 text, whole or not at all. Raises :class:`ViperError` where it cannot be written."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def remove_unfinished(folder: Path) -> None:
    """Remove files that a killed :func:`written_whole` left in a folder that no other process writes into."""
    for partial in folder.glob(".*.partial*"):
        partial.unlink(missing_ok=True)
