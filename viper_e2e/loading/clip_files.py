"""clip_files.py: folders searched for clips: what is one, what is left out, and why."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from viper_e2e.decoding import HEAD_BYTES, is_video, with_black_picture
from viper_e2e.runtime import (
    AMBIGUOUS_EXTENSIONS,
    SOUND_EXTENSIONS,
    VIDEO_EXTENSIONS,
    count_of,
    extension_of,
    is_hidden,
)

MAX_NAMED = 5
_NO_CLIPS = ("file does not have the extension of a clip", "files do not have the extension of a clip")
ONLY_SOUND = (*SOUND_EXTENSIONS, "ogg", "wma", "aiff", "aif", "au", "caf", "ac3", "amr")
"""Endings of files with sound alone, also where we read no such file beside a clip."""


@dataclass
class Found:
    """Files of a folder, with sub-folders and linked folders."""

    files: list[Path] = field(default_factory=list)
    """Files with one of the endings looked for; sorted."""
    others: Counter[str] = field(default_factory=Counter)
    """Files with other endings, by ending (with its dot; empty: none)."""
    odd: list[str] = field(default_factory=list)
    """Entries with the ending that cannot be read: broken links, sockets, …, each with the reason."""
    closed: list[str] = field(default_factory=list)
    """Folders that cannot be searched, each with the reason."""

    def left_out(self, folder: str | os.PathLike) -> list[str]:
        """Entries that were passed over, in at most two lines for people."""
        lines = []
        if self.others:
            kinds = ", ".join(
                f"{n} {ending or 'without an ending'}" for ending, n in self.others.most_common(8)
            )
            num_more = len(self.others) - 8
            kinds += f", {num_more} more kinds" if num_more > 0 else ""
            lines.append(f"{folder}: {count_of(self.others.total(), *_NO_CLIPS)}: {kinds}")
        if self.odd:
            more = f", and {len(self.odd) - MAX_NAMED} more" if len(self.odd) > MAX_NAMED else ""
            lines.append(f"{folder}: skipped: {', '.join(self.odd[:MAX_NAMED])}{more}")
        return lines

    def sound_alone(self, folder: str | os.PathLike) -> list[str]:
        """One line on how to make clips of sounds, for a folder of sounds without clips; else none."""
        sounds = {ending: n for ending, n in self.others.items() if ending[1:] in ONLY_SOUND}
        if self.files or not sounds:
            return []
        command = with_black_picture(f"SOUND{max(sounds, key=sounds.__getitem__)}")
        total = sum(sounds.values())
        return [
            f"{folder}: {count_of(total, 'file holds', 'files hold')} only sound; to score "
            f"one with a black picture: {command}"
        ]


def find_files(folder: Path, extensions: Sequence[str] = VIDEO_EXTENSIONS) -> Found:
    """Files by their endings, in whatever case, in a folder and everything below it.

    Hidden ones (``._clip.mp4`` too) are never looked at. Links to folders are followed, each folder once. Files
    whose ending says little (``.ts``, ``.ogg``, ``.gif``) count as clips if they begin like one.
    """
    found = Found()
    for path, mode in _walk(folder, found):
        extension = extension_of(path.name)
        if extension not in extensions:
            if stat.S_ISREG(mode):
                found.others[f".{extension}" if extension else ""] += 1
        elif not stat.S_ISREG(mode):
            found.odd.append(f"{path.name} ({_kind(mode)})")
        elif extension in AMBIGUOUS_EXTENSIONS and "mp4" in extensions and not _begins_like_video(path):
            found.others[f".{extension}"] += 1
        else:
            found.files.append(path)
    found.files.sort()
    return found


def _walk(folder: Path, found: Found) -> Iterator[tuple[Path, int]]:
    """Path and mode of everything that is no folder; a mode of 0 stands for a broken link."""
    seen: set[tuple[int, int]] = set()
    # Linked folders last, so that a clip is known by its own path where both lead to it.
    waiting: list[Path] = [folder]
    linked: list[Path] = []
    while waiting or linked:
        here = waiting.pop(0) if waiting else linked.pop(0)
        try:
            status = here.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            # File systems without numbers of their own give 0 for all.
            seen |= {(status.st_dev, status.st_ino)} if status.st_ino else set()
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
        except OSError as error:
            found.closed.append(f"{here}: cannot be searched ({error.strerror})")
            continue
        for entry in entries:
            if is_hidden(entry.name):
                continue
            if entry.is_dir():
                (linked if entry.is_symlink() else waiting).append(Path(entry.path))
                continue
            try:
                yield Path(entry.path), entry.stat().st_mode
            except OSError:
                yield Path(entry.path), 0


def _kind(mode: int) -> str:
    kinds = {stat.S_ISSOCK: "a socket", stat.S_ISFIFO: "a pipe", stat.S_ISBLK: "a device"}
    return next((text for test, text in kinds.items() if test(mode)), "a device" if mode else "a broken link")


def _begins_like_video(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return is_video(file.read(HEAD_BYTES))
    except OSError:
        return True  # named as a clip that cannot be read, rather than passed over
