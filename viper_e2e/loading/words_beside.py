"""words_beside.py: the words of a clip in a file beside it: subtitles, or a text without times."""

from __future__ import annotations

import logging
from pathlib import Path

from viper_e2e.clip import Cue
from viper_e2e.errors import ClipError
from viper_e2e.runtime import printable
from viper_e2e.shards import MAX_WORDS_BYTES, read_subtitles

_log = logging.getLogger(__name__)

SUBTITLE_FILES = ("vtt", "srt", "txt")
"""Beside a clip, the first that is there is taken."""


def words_beside(video: Path) -> tuple[Cue, ...]:
    """What a file beside a clip says, nothing where there is none; broken cues are noted.

    `ClipError` for a file that cannot be used.
    """
    path = beside_clip(video)
    if path is None:
        return ()
    cues, faults = cues_of_file(path)
    if faults:
        _log.warning("%s: %d broken cues are not read (%s)", printable(str(path)), len(faults), faults[0])
    return cues


def beside_clip(video: Path) -> Path | None:
    """The file with the words of a clip: its name with another ending, in whatever case."""
    stem = video.name.rpartition(".")[0]
    found: dict[str, Path] = {}
    for ending in SUBTITLE_FILES:
        for written in (ending, ending.upper()):
            path = video.with_name(f"{stem}.{written}")
            if path.is_file():
                found.setdefault(ending, path)
    return next((found[ending] for ending in SUBTITLE_FILES if ending in found), None)


def cues_of_file(path: Path) -> tuple[tuple[Cue, ...], tuple[str, ...]]:
    """Cues, and what is wrong with others; `ClipError` for a file that cannot be used."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_WORDS_BYTES + 1)
        found = read_subtitles(path.name, data)
    except OSError as error:
        raise ClipError(f"cannot be read ({error.strerror})", stage="words", clip=str(path)) from error
    except ValueError as error:
        raise ClipError(str(error), stage="words", clip=str(path)) from error
    return found.cues, found.faults
