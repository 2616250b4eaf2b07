"""sidecar_text.py: the words of a clip from a file next to it: subtitles, or text without times."""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from pathlib import Path

from viper_e2e.clip import Cue
from viper_e2e.errors import ClipError
from viper_e2e.runtime import VIDEO_EXTENSIONS, extension_of, printable
from viper_e2e.shards import MAX_WORDS_BYTES, read_subtitles

_log = logging.getLogger(__name__)

SUBTITLE_FILES = ("vtt", "srt", "txt")
"""Beside a clip, the first that is there is taken."""
LANGUAGE_NAME = re.compile(r"(?P<stem>.+)\.(?P<language>[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*)", re.DOTALL)
"""``clip.en``, ``clip.pt-BR``."""


def words_beside(video: Path, language: str = "") -> tuple[Cue, ...]:
    """What a file beside a clip says, nothing where there is none; broken cues are noted.

    ``language`` and `ClipError`: as for `beside_clip`; also for a file that cannot be used.
    """
    path = beside_clip(video, language)
    if path is None:
        return ()
    cues, faults = cues_of_file(path)
    if faults:
        _log.warning("%s: %d broken cues are not read (%s)", printable(str(path)), len(faults), faults[0])
    return cues


def beside_clip(video: Path, language: str = "") -> Path | None:
    """The file with the words of a clip: its name with another ending, in whatever case.

    A language may stand between (``CLIP.en.srt``): the one that is asked for, or else the only one there, where
    no file is without. `ClipError` where there are several to choose from.
    """
    stem = video.name.rpartition(".")[0]
    by_language = _in_languages(video.parent, stem)
    asked = by_language.get(language.casefold()) if language else None
    found = asked or _without_language(video, stem)
    if found is not None or not by_language or language:
        return found
    if len(by_language) > 1:
        reason = f"has words in {', '.join(sorted(by_language))} beside it; choose one by --words-language"
        raise ClipError(reason, stage="words", clip=str(video))
    return next(iter(by_language.values()))


def _in_languages(folder: Path, stem: str) -> dict[str, Path]:
    """Language in lower case → the file of words that says it is in it."""
    try:
        changed = folder.stat().st_mtime_ns
    except OSError:
        return {}
    return _files_by_stem(folder, changed).get(stem, {})


@lru_cache(maxsize=8)
def _files_by_stem(folder: Path, _changed: int) -> dict[str, dict[str, Path]]:
    """Files of words in a folder as it was at a time: name without ending → language → file."""
    found: dict[str, dict[str, Path]] = {}
    names = sorted(path.name for path in folder.iterdir())
    clips = {name.rpartition(".")[0] for name in names if extension_of(name) in VIDEO_EXTENSIONS}
    for ending in SUBTITLE_FILES:
        for name in names:
            # What is called after another clip is that clip's: `take.one.txt` beside `take.one.mp4`.
            whole = name.rpartition(".")[0]
            match = LANGUAGE_NAME.fullmatch(whole)
            if match and extension_of(name) == ending and whole not in clips:
                found.setdefault(match["stem"], {}).setdefault(match["language"].casefold(), folder / name)
    return found


def _without_language(video: Path, stem: str) -> Path | None:
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
